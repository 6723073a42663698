"""NRRD and MetaImage: SimpleITK writes what medseg reads, and reads what medseg writes."""

import bz2
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medseg.core.errors import LabelError, MedsegError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import CodedTerm, Label, LabelSet, label_set
from medseg.core.volume import Volume
from medseg.io.formats import (
    classes_in_mask,
    read_label_map,
    read_volume,
    write_label_map,
    write_volume,
)
from medseg.io.nrrd import write_nrrd

ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
SHEARED = np.array([[1, 0.3, 0, 5], [0, 2, 0.1, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
HEADER = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 2 3 4
space directions: (1,0,0) (0,2,0) (0,0,3)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (5,6,7)
"""
SAMPLES = np.arange(24, dtype="<i2")


def geometry_of(image: SimpleITK.Image, shape) -> Geometry:
    """Place the voxels as SimpleITK does, turned from LPS to RAS."""
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return Geometry(shape, np.diag([-1, -1, 1, 1]) @ lps)


def oblique(flips=(1, 1, 1)) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = ROTATION @ np.diag(np.array(flips) * (0.7, 0.8, 2.5))
    affine[:3, 3] = (-10.123456789, 20, 30)
    return Geometry((5, 6, 7), affine)


def refusal(path: Path, **settings) -> MedsegError:
    with pytest.raises(MedsegError) as caught:
        read_volume(path, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


def nrrd(path: Path, *changes: tuple[str, str], samples: bytes = SAMPLES.tobytes()) -> Path:
    header = HEADER
    for old, new in changes:
        assert old in header
        header = header.replace(old, new)
    path.write_bytes(header.encode() + b"\n" + samples)
    return path


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, -1)])
@pytest.mark.parametrize("kind", ["u1", "i2", "u4", "i8", "f4", "f8"])
def test_what_is_written_lies_where_simpleitk_reads_it(tmp_path, rng, suffix, flips, kind):
    voxels = (rng.random((1, 5, 6, 7)) * 100).astype(kind)
    geometry = oblique(flips)
    path = tmp_path / f"scan.{suffix}"
    write_volume(Volume(voxels, geometry), path)
    image = SimpleITK.ReadImage(path)
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, voxels[0])
    assert geometry_of(image, geometry.shape).corner_error_mm(geometry) < 1e-9
    back = read_volume(path)
    assert np.array_equal(back.voxels, voxels)
    assert back.voxels.dtype == voxels.dtype
    assert back.geometry.corner_error_mm(geometry) < 1e-9


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nhdr", "mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_simpleitk_writes_lies_where_medseg_reads_it(tmp_path, rng, suffix, packed):
    image = SimpleITK.GetImageFromArray(rng.integers(0, 99, (7, 6, 5)).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((1, -2, 3))
    image.SetDirection(ROTATION.ravel())
    path = tmp_path / f"scan.{suffix}"
    SimpleITK.WriteImage(image, path, useCompression=packed)
    scan = read_volume(path)
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, scan.only_channel)
    assert geometry_of(image, scan.geometry.shape).corner_error_mm(scan.geometry) < 1e-4


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_channels_are_the_components_of_simpleitk(tmp_path, rng, suffix):
    voxels = rng.random((2, 5, 6, 7)).astype(np.float32)
    path = tmp_path / f"scan.{suffix}"
    write_volume(Volume(voxels, oblique(), ("a", "b")), path)
    image = SimpleITK.ReadImage(path)
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).transpose(3, 2, 1, 0), voxels)
    assert np.array_equal(read_volume(path).voxels, voxels)


def test_a_sheared_grid_survives_nrrd_and_is_refused_by_metaimage(tmp_path):
    scan = Volume(np.zeros((1, 2, 3, 4), np.uint8), Geometry((2, 3, 4), SHEARED))
    write_volume(scan, tmp_path / "scan.nrrd")
    assert np.array_equal(read_volume(tmp_path / "scan.nrrd").geometry.affine, SHEARED)
    with pytest.raises(WriteError, match="MHA-031"):
        write_volume(scan, tmp_path / "scan.mha")


@pytest.mark.parametrize(
    ("encoding", "samples"),
    [
        ("raw", SAMPLES.tobytes()),
        ("gzip", gzip.compress(SAMPLES.tobytes(), mtime=0)),
        ("bzip2", bz2.compress(SAMPLES.tobytes())),
        ("ascii", " ".join(map(str, SAMPLES)).encode()),
    ],
)
def test_every_encoding_gives_the_first_index_fastest(tmp_path, encoding, samples):
    path = nrrd(tmp_path / "scan.nrrd", ("raw", encoding), samples=samples)
    assert np.array_equal(read_volume(path).only_channel, SAMPLES.reshape(4, 3, 2).T)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LPS", (-1, -1, 1)),
    ],
)
def test_spaces_are_turned_to_ras(tmp_path, space, signs):
    path = nrrd(tmp_path / "scan.nrrd", ("left-posterior-superior", space))
    expected = np.diag([*signs, 1.0]) @ [[1, 0, 0, 5], [0, 2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]]
    assert np.array_equal(read_volume(path).geometry.affine, expected)


@pytest.mark.parametrize("position", [0, 3])
def test_a_channel_axis_may_lie_anywhere(tmp_path, position):
    sizes, directions = ["2", "3", "2"], ["(1,0,0)", "(0,2,0)", "(0,0,3)"]
    kinds = ["domain"] * 3
    for entries, entry in ((sizes, "2"), (directions, "none"), (kinds, "vector")):
        entries.insert(position, entry)
    path = nrrd(
        tmp_path / "scan.nrrd",
        ("dimension: 3", "dimension: 4"),
        ("2 3 4", " ".join(sizes)),
        ("(1,0,0) (0,2,0) (0,0,3)", " ".join(directions)),
        ("domain domain domain", " ".join(kinds)),
    )
    in_file = SAMPLES.reshape([int(n) for n in sizes][::-1]).T
    assert np.array_equal(read_volume(path).voxels, np.moveaxis(in_file, position, 0))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("space: left-posterior-superior", "space: scanner-xyz", "NRD-005"),
        ("space: left-posterior-superior\n", "", "NRD-005"),
        ("space origin: (5,6,7)\n", "", "NRD-005"),
        ("(5,6,7)", "(nan,6,7)", "NRD-005"),
        ("(0,0,3)", "(0,0,0)", "NRD-005"),
        ("space directions: (1,0,0) (0,2,0) (0,0,3)\n", "", "NRD-005"),
        ("(0,0,3)", "none", "NRD-004"),
        ("(0,0,3)", "(0,0)", "NRD-005"),
        ("(0,0,3)", "(0,zero,3)", "NRD-002"),
        ("short", "block", "NRD-002"),
        ("dimension: 3", "dimension: 4", "NRD-002"),
        ("sizes: 2 3 4", "sizes: 2 3", "NRD-002"),
        ("sizes: 2 3 4", "sizes: 2 -3 4", "NRD-002"),
        ("sizes: 2 3 4", "sizes: 2 3 5", "FIL-007"),
        ("sizes: 2 3 4", "sizes: 2 3 3", "FIL-011"),
        ("sizes: 2 3 4", "sizes: 99999 99999 99999", "FIL-009"),
        ("raw", "hex", "NRD-002"),
        ("raw", "gzip", "FIL-008"),
        ("raw", "bzip2", "FIL-008"),
        ("endian: little\n", "", "NRD-002"),
        ("kinds: domain", "kinds: domain domain", "NRD-002"),
        ("NRRD0004", "NRRD0009", "NRD-001"),
    ],
)
def test_a_header_that_contradicts_the_definition_is_refused(tmp_path, old, new, code):
    assert refusal(nrrd(tmp_path / "scan.nrrd", (old, new))).code == code


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("um", 1e-3), ("cm", 10)])
def test_space_units_become_mm(tmp_path, unit, factor):
    units = f'raw\nspace units: "{unit}" "{unit}" "{unit}"'
    path = nrrd(tmp_path / "scan.nrrd", ("raw", units))
    assert np.allclose(read_volume(path).geometry.spacing_mm, np.array((1, 2, 3)) * factor)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname", "link.raw", "absent.raw", "\0"])
@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
def test_row_60_a_data_file_outside_the_headers_folder_is_never_opened(tmp_path, name, suffix):
    folder = tmp_path / "scans"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(SAMPLES.tobytes())
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    path = folder / f"scan.{suffix}"
    if suffix == "nhdr":
        path.write_text(HEADER + f"data file: {name}\n")
    else:
        path.write_text(
            "NDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
            "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
            f"ElementDataFile = {name}\n"
        )
    assert refusal(path).code in ("NRD-003", "MHA-002")


def test_a_data_file_below_the_header_is_read_with_its_skips(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scan.raw").write_bytes(b"line\n" + b"xy" + SAMPLES.tobytes())
    header = HEADER + "line skip: 1\nbyte skip: 2\ndata file: data/scan.raw\n"
    (tmp_path / "scan.nhdr").write_text(header)
    assert np.array_equal(
        read_volume(tmp_path / "scan.nhdr").only_channel, SAMPLES.reshape(4, 3, 2).T
    )


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "", "MHA-003"),
        ("Offset = 0 0 0\n", "", "MHA-003"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0 0", "MHA-003"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0", "MHA-001"),
        ("ElementSpacing = 1 1 2", "ElementSpacing = 1 0 2", "MHA-001"),
        ("ElementSpacing = 1 1 2\n", "", "MHA-001"),
        ("DimSize = 2 3 4", "DimSize = 2 3", "MHA-001"),
        ("DimSize = 2 3 4", "DimSize = 2 3 5", "FIL-007"),
        ("DimSize = 2 3 4", "DimSize = 2 3 3", "FIL-011"),
        ("DimSize = 2 3 4", "DimSize = 99999 99999 99999", "FIL-009"),
        ("MET_SHORT", "MET_OTHER", "MHA-001"),
        ("NDims = 3", "NDims = 4", "MHA-001"),
        ("NDims = 3", "NDims = 3\nCompressedData = True", "FIL-008"),
        ("LOCAL", "LIST", "MHA-002"),
    ],
)
def test_a_metaimage_header_that_contradicts_itself_is_refused(tmp_path, old, new, code):
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\n"
        "ElementSpacing = 1 1 2\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        "ElementDataFile = LOCAL\n"
    )
    path = tmp_path / "scan.mha"
    path.write_bytes(header.encode() + SAMPLES.tobytes())
    assert read_volume(path).geometry.spacing_mm == (1, 1, 2)
    path.write_bytes(header.replace(old, new).encode() + SAMPLES.tobytes())
    assert refusal(path).code == code


def test_a_big_endian_metaimage_with_a_damaged_stream_is_told(tmp_path, rng):
    voxels = rng.integers(-99, 99, (4, 3, 2)).astype(">i2")
    header = (
        "NDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementSpacing = 1 1 2\n"
        "BinaryDataByteOrderMSB = True\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementDataFile = LOCAL\n"
    )
    path = tmp_path / "scan.mha"
    path.write_bytes(header.encode() + voxels.tobytes())
    assert np.array_equal(read_volume(path).only_channel, voxels.T)


def test_patient_metadata_of_a_header_is_not_carried_on(tmp_path):
    path = nrrd(tmp_path / "in.nrrd", ("raw", "raw\nPatientName:=CANARY\ncontent: CANARY"))
    scan = read_volume(path)
    for name in ("out.nrrd", "out.mha", "out.nii"):
        write_volume(scan, tmp_path / name)
        assert b"CANARY" not in (tmp_path / name).read_bytes()


CODED = LabelSet(
    labels=(
        Label(
            name="spleen",
            values=(3,),
            colour=(255, 0, 51),
            code=CodedTerm(value="78961009", scheme="SCT", meaning="Spleen"),
        ),
        Label(name="left kidney", values=(300,), colour=(0, 128, 0)),
        Label(name="absent", values=(7,), colour=(0, 0, 1)),
    )
)


def test_slicers_segments_carry_names_colours_and_codes_and_none_is_cut(tmp_path):
    label_map_IJK = np.zeros((5, 6, 7), np.uint8)
    label_map_IJK[1:3, 2:5, 6], label_map_IJK[4, 0, 0] = 1, 2
    path = tmp_path / "mask.seg.nrrd"
    write_label_map(label_map_IJK, path, geometry=oblique(), labels=CODED)
    image = SimpleITK.ReadImage(path)
    keys = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert keys["Segment0_Name"] == "spleen"
    assert keys["Segment1_Name"] == "left kidney"
    assert [float(n) for n in keys["Segment0_Color"].split()] == [1, 0, 0.2]
    assert keys["Segment1_LabelValue"] == "300"
    # Slicer cuts all segments of a layer to the extent of the first.
    assert {keys[f"Segment{n}_Extent"] for n in range(3)} == {"0 4 0 5 0 6"}
    assert "~SCT^78961009^Spleen~" in keys["Segment0_Tags"]
    stored = SimpleITK.GetArrayFromImage(image).T
    assert np.array_equal(stored, np.array([0, 3, 300])[label_map_IJK])
    back = read_label_map(path, CODED)
    assert np.array_equal(back.only_channel, label_map_IJK)
    assert back.geometry.matches(oblique())


def layered(path: Path, voxels: np.ndarray, names) -> Path:
    """Write segments as Slicer does when they overlap: each in a layer of its own."""
    keys = "".join(
        f"Segment{n}_ID:=s{n}\nSegment{n}_Name:={name}\nSegment{n}_Layer:={n}\n"
        f"Segment{n}_LabelValue:=1\n"
        for n, name in enumerate(names)
    )
    header = HEADER.replace("dimension: 3", "dimension: 4").replace("short", "uchar")
    header = header.replace("2 3 4", "2 2 3 4").replace("kinds:", "kinds: list")
    header = header.replace("directions:", "directions: none")
    path.write_bytes((header + keys).encode() + b"\n" + voxels.tobytes(order="F"))
    return path


def test_overlapping_segments_are_a_channel_a_class(tmp_path, rng):
    voxels = rng.integers(0, 2, (2, 2, 3, 4)).astype(np.uint8)
    voxels[:, 0, 0, 0] = 1
    path = layered(tmp_path / "mask.seg.nrrd", voxels, ["a", "b"])
    labels = label_set({"b": 1, "a": 2, "c": 3})
    found = read_label_map(path, labels)
    assert found.channels == ("b", "a", "c")
    assert np.array_equal(found.voxels, [voxels[1], voxels[0], np.zeros_like(voxels[0])])
    assert classes_in_mask(path, labels) == ("b", "a")


def test_layers_that_do_not_overlap_are_matched_by_name(tmp_path, rng):
    first = rng.integers(0, 2, (2, 3, 4)).astype(np.uint8)
    path = layered(tmp_path / "mask.seg.nrrd", np.stack([first, 1 - first]), ["b", "a"])
    found = read_label_map(path, label_set({"a": 9, "b": 5})).only_channel
    assert np.array_equal(found, np.where(first, 2, 1))
    with pytest.raises(MedsegError, match="LBL-011"):
        read_label_map(path, label_set({"a": 1, "c": 2}))


@pytest.mark.parametrize("first", [(1, 0, 2), (-1, 0, 1)])
def test_a_segmentation_cut_out_of_its_scan_is_laid_on_it(first, tmp_path, rng):
    grid = oblique()
    shift = np.eye(4)
    shift[:3, 3] = first
    voxels = rng.integers(1, 3, (3, 4, 4)).astype(np.uint8)
    voxels[: max(0, -first[0])] = 0
    part = Geometry(voxels.shape, grid.affine @ shift)
    path, labels = tmp_path / "mask.seg.nrrd", label_set({"a": 1, "b": 2})
    write_label_map(voxels, path, geometry=part, labels=labels)
    found = read_label_map(path, labels, onto=grid)
    expected = np.zeros(grid.shape, np.uint8)
    for index in np.argwhere(voxels):
        expected[tuple(index + first)] = voxels[tuple(index)]
    assert found.geometry.matches(grid)
    assert np.array_equal(found.only_channel, expected)
    # Segments beyond the scan, and voxels between its own, stay where their file says.
    beyond = np.eye(4)
    beyond[0, 3] = 20
    for odd in (beyond, np.diag([1.5, 1, 1, 1])):
        write_label_map(
            voxels, path, geometry=Geometry(voxels.shape, grid.affine @ odd), labels=labels
        )
        assert read_label_map(path, labels, onto=grid).geometry.shape == voxels.shape


def test_a_layer_that_is_not_there_is_refused(tmp_path):
    path = nrrd(tmp_path / "m.seg.nrrd", ("raw", "raw\nSegment0_ID:=x\nSegment0_Layer:=3"))
    with pytest.raises(MedsegError, match="SNR-001"):
        read_label_map(path, label_set({"x": 1}))


def test_nan_samples_are_counted(tmp_path):
    samples = struct.pack("<f", float("nan")) * 24
    path = nrrd(tmp_path / "scan.nrrd", ("short", "float"), samples=samples)
    assert [f.code for f in read_volume(path).findings] == ["FIL-014"]


def test_segments_after_a_removed_one_are_read(tmp_path):
    voxels = np.array([[[0, 1, 2]]], dtype=np.uint8)
    path = tmp_path / "mask.seg.nrrd"
    keys = {"Segment0_Name": "a", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    keys |= {"Segment4_Name": "b", "Segment4_LabelValue": "2", "Segment4_Layer": "0"}
    write_nrrd(Volume(voxels[None], Geometry(voxels.shape, np.eye(4))), path, keys=keys)
    found = read_label_map(path, label_set({"b": 1, "a": 2}))
    assert found.only_channel.ravel().tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("value", "error", "code"), [("0", ReadError, "SNR-001"), ("7", LabelError, "LBL-003")]
)
def test_values_that_no_segment_declares_are_refused(tmp_path, value, error, code):
    path = tmp_path / "mask.seg.nrrd"
    keys = {"Segment0_Name": "a", "Segment0_LabelValue": value, "Segment0_Layer": "0"}
    voxels = np.ones((1, 1, 1, 2), dtype=np.uint8)
    write_nrrd(Volume(voxels, Geometry((1, 1, 2), np.eye(4))), path, keys=keys)
    with pytest.raises(error, match=code):
        read_label_map(path, label_set({"a": 1}))


@pytest.mark.parametrize("labels", [{"a": -1}, {" a": 1}, {"a  b": 1}, {"a\nb": 1}, {"": 1}])
def test_what_a_segmentation_would_not_give_back_is_not_written(tmp_path, labels):
    geometry = Geometry((1, 1, 1), np.eye(4))
    path = tmp_path / "m.seg.nrrd"
    label_map = np.ones((1, 1, 1), dtype=np.uint8)
    with pytest.raises(WriteError, match="SNR-002"):
        write_label_map(label_map, path, geometry=geometry, labels=label_set(labels))
    assert not path.exists()


def test_voxels_to_ignore_come_back_from_a_segmentation(tmp_path):
    labels = LabelSet.from_json({"labels": [{"name": "a", "values": 1}], "ignore_value": 255})
    label_map = np.array([[[0, 1, 2]]], dtype=np.uint8)
    path = tmp_path / "m.seg.nrrd"
    write_label_map(label_map, path, geometry=Geometry((1, 1, 3), np.eye(4)), labels=labels)
    assert np.array_equal(read_label_map(path, labels).only_channel, label_map)
