"""RTSTRUCT: what is written reads back voxel for voxel; what others drew is drawn as they say."""

import logging
import shutil
import subprocess

import matplotlib.path
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from oriented_scans import affine_of, signed_permutations, turned, write_scan
from pydicom.uid import generate_uid

from medseg.core.errors import GeometryError, LabelError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import CodedTerm, Label, LabelSet, label_set
from medseg.io.dicom.rtstruct.reading import classes_drawn, read_rtstruct, read_rtstruct_labels
from medseg.io.dicom.rtstruct.writing import write_rtstruct
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import classes_in_mask, read_label_map, write_label_map

SHAPE = (9, 8, 4)
ORGANS = label_set({"liver": 1, "spleen": 2})
LPS = np.array([-1.0, -1.0, 1.0])


def intricate(rng):
    """Noise, one voxel alone, two that touch at a corner, a hole in an island in a hole."""
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[:, :, 0] = rng.integers(0, 3, SHAPE[:2])
    label_map[2, 3, 1] = 1
    label_map[5, 5, 1] = label_map[6, 6, 1] = 2
    for inset in range(4):
        label_map[inset : 8 - inset, inset : 8 - inset, 2] = (inset + 1) % 2
    return label_map


def draw(label_map, scan, folder, labels=ORGANS):
    write_rtstruct(
        label_map, folder / "m.dcm", geometry=scan.geometry, labels=labels, source=folder / "scan"
    )
    return pydicom.dcmread(folder / "m.dcm")


def grid(axes=None, **chosen):
    placed = turned(np.eye(3) if axes is None else axes, **chosen)
    return Geometry(SHAPE, placed.affine)


@pytest.fixture
def scan(tmp_path):
    return write_scan(grid(), tmp_path / "scan")


def again(tmp_path, labels=ORGANS, **chosen):
    return read_rtstruct(
        tmp_path / "m.dcm", labels=labels, **chosen or {"source": tmp_path / "scan"}
    )


@pytest.mark.parametrize(
    ("oblique", "spacing_mm"),
    [
        (True, (0.8, 1.1, 2.3)),
        pytest.param(False, (0.8, 1.1, 2.3), marks=pytest.mark.slow),
        pytest.param(False, (1.0, 1.0, 1.0), marks=pytest.mark.slow),
    ],
    ids=["oblique", "anisotropic", "isotropic"],
)
@pytest.mark.parametrize(
    "axes",
    list(signed_permutations()),
    ids=lambda axes: Geometry((2, 2, 2), affine_of(axes)).orientation,
)
def test_every_orientation_survives_series_and_rtstruct(axes, oblique, spacing_mm, tmp_path, rng):
    scan = write_scan(grid(axes, spacing_mm=spacing_mm, oblique=oblique), tmp_path / "scan")
    label_map = intricate(rng)
    draw(label_map, scan, tmp_path)
    found = again(tmp_path, onto=scan.geometry)
    assert np.array_equal(found.only_channel, label_map)
    assert found.findings == ()


def test_another_library_fills_the_written_contours_to_the_same_voxels(scan, tmp_path, rng):
    label_map = intricate(rng)
    dataset = draw(label_map, scan, tmp_path)
    centres = np.argwhere(np.ones(SHAPE[:2], dtype=bool))
    found = np.zeros(SHAPE, dtype=np.uint8)
    for region in dataset.ROIContourSequence:
        for contour in region.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) * LPS
            index = scan.geometry.to_index(points)
            assert np.abs(index[:, :2] % 1 - 0.5).max() < 1e-4
            k = round(index[0, 2])
            assert np.abs(index[:, 2] - k).max() < 1e-4
            closed = matplotlib.path.Path(np.vstack([index[:, :2], index[:1, :2]]))
            found[:, :, k][closed.contains_points(centres).reshape(SHAPE[:2])] = (
                region.ReferencedROINumber
            )
    assert np.array_equal(found, label_map)


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is absent")
def test_plastimatch_fills_the_written_contours_to_the_same_voxels(scan, tmp_path, rng):
    label_map = intricate(rng)
    draw(label_map, scan, tmp_path)
    command = ["plastimatch", "convert", "--input", tmp_path / "m.dcm"]
    command += ["--referenced-ct", tmp_path / "scan", "--output-prefix", tmp_path / "out"]
    subprocess.run([*command, "--prefix-format", "nrrd"], check=True, capture_output=True)
    for index, name in enumerate(ORGANS.names, start=1):
        image = SimpleITK.ReadImage(tmp_path / "out" / f"{name}.nrrd")
        theirs = np.argwhere(SimpleITK.GetArrayFromImage(image).T > 0)
        world = np.array([image.TransformIndexToPhysicalPoint(one) for one in theirs.tolist()])
        ours = scan.geometry.to_index(world * LPS)
        assert np.abs(ours - np.rint(ours)).max() < 1e-3
        expected = {tuple(one) for one in np.argwhere(label_map == index)}
        assert {tuple(one) for one in np.rint(ours).astype(int)} == expected


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is absent")
@pytest.mark.parametrize("is_empty", [False, True])
def test_dciodvfy_finds_no_error(is_empty, scan, tmp_path, rng):
    label_map = intricate(rng)
    draw(np.zeros_like(label_map) if is_empty else label_map, scan, tmp_path)
    done = subprocess.run(
        ["dciodvfy", "-new", tmp_path / "m.dcm"], check=False, capture_output=True, text=True
    )
    assert "RTStructureSet" in done.stderr
    assert "Error" not in done.stderr


def test_contours_refer_to_the_image_they_lie_on(scan, tmp_path, rng):
    dataset = draw(intricate(rng), scan, tmp_path)
    slices = {
        entry.SOPInstanceUID: entry for entry in map(pydicom.dcmread, (tmp_path / "scan").iterdir())
    }
    (space,) = dataset.ReferencedFrameOfReferenceSequence
    referenced = space.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert {one.ReferencedSOPInstanceUID for one in referenced.ContourImageSequence} == {*slices}
    source = next(iter(slices.values()))
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    assert space.FrameOfReferenceUID == source.FrameOfReferenceUID
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        image = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        normal = np.cross(*np.array(image.ImageOrientationPatient, dtype=float).reshape(2, 3))
        off_mm = (points - np.array(image.ImagePositionPatient, dtype=float)) @ normal
        assert np.abs(off_mm).max() < 1e-5


def test_only_the_listed_attributes_come_from_the_source(scan, tmp_path, rng):
    for path in (tmp_path / "scan").iterdir():
        image = pydicom.dcmread(path)
        image.PatientComments = image.InstitutionName = image.StudyDescription = "CANARY"
        image.PatientName = "Müller^Ö"
        image.SpecificCharacterSet = "ISO_IR 100"
        image.save_as(path)
    dataset = draw(intricate(rng), scan, tmp_path)
    assert "CANARY" not in str(dataset)
    assert dataset.PatientName == "Müller^Ö"
    assert dataset.PatientID == "phantom"


def test_names_codes_and_colours_survive(scan, tmp_path):
    code = CodedTerm(value="78961009", scheme="SCT", meaning="Spleen")
    labels = LabelSet(
        labels=(
            Label(name="Milz größer", values=(7,), colour=(200, 30, 90), code=code),
            Label(name="lesion", values=(9,), colour=(10, 240, 20)),
        )
    )
    draw(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path, labels)
    found = read_rtstruct_labels(tmp_path / "m.dcm")
    for ours, theirs in zip(found.labels, labels.labels, strict=True):
        assert (ours.name, ours.colour, ours.code) == (theirs.name, theirs.colour, theirs.code)


def test_an_empty_class_is_warned_of_and_comes_back_empty(scan, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = draw(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path)
    assert "2 (spleen) has no voxels" in caplog.text
    assert "ContourSequence" not in dataset.ROIContourSequence[1]
    assert (again(tmp_path).only_channel == 1).all()
    assert classes_drawn(tmp_path / "m.dcm", ORGANS) == {1}


def test_overlapping_classes_come_back_as_a_channel_each(scan, tmp_path, rng):
    masks = rng.integers(0, 2, (2, *SHAPE)).astype(np.uint8)
    draw(masks, scan, tmp_path)
    found = again(tmp_path)
    assert found.channels == ("liver", "spleen")
    assert np.array_equal(found.voxels, masks)


def test_a_sheared_stack_keeps_its_voxels(tmp_path, rng):
    sheared = grid(oblique=False).affine.copy()
    sheared[1, 2] = 0.7
    label_map = intricate(rng)
    scan = write_scan(Geometry(SHAPE, sheared), tmp_path / "scan")
    draw(label_map, scan, tmp_path)
    assert np.array_equal(again(tmp_path).only_channel, label_map)


def test_contours_beyond_64_kib_can_be_read(tmp_path):
    shape = (120, 120, 1)
    comb = np.indices(shape).sum(0).astype(np.uint8) % 2
    comb[:, ::2] = 1
    scan = write_scan(Geometry(shape, grid().affine), tmp_path / "scan")
    dataset = draw(comb, scan, tmp_path, label_set({"comb": 1}))
    assert max(len(c.ContourData) for c in dataset.ROIContourSequence[0].ContourSequence) > 2**13
    found = read_rtstruct(tmp_path / "m.dcm", source=tmp_path / "scan")
    assert np.array_equal(found.only_channel, comb)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"geometry": Geometry(SHAPE, np.eye(4))}, GeometryError, r"GEO-002 m\.dcm: lies up to"),
        ({"labels": label_set({"a\\b": 1})}, WriteError, "DCM-077 .* backslash"),
        (
            {"labels": label_set({"x" * 64 + end: n for n, end in enumerate("ab", start=1)})},
            WriteError,
            "DCM-077",
        ),
        ({"label_map_IJK": np.full(SHAPE, 9)}, LabelError, "LBL-003"),
    ],
)
def test_what_no_rtstruct_can_say_is_refused(change, error, message, scan, tmp_path):
    given = {
        "label_map_IJK": np.ones(SHAPE, dtype=np.uint8),
        "geometry": scan.geometry,
        "labels": ORGANS,
        **change,
    }
    with pytest.raises(error, match=message):
        write_rtstruct(
            given.pop("label_map_IJK"), tmp_path / "m.dcm", source=tmp_path / "scan", **given
        )
    assert not (tmp_path / "m.dcm").exists()


def test_a_source_without_a_frame_of_reference_is_refused(scan, tmp_path):
    for path in (tmp_path / "scan").iterdir():
        image = pydicom.dcmread(path)
        del image.FrameOfReferenceUID
        image.save_as(path)
    with pytest.raises(WriteError, match="DCM-051"):
        draw(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path)


# What others draw.


def redrawn(tmp_path, scan, contours, *, kind="CLOSED_PLANAR", name="liver"):
    """Write an RTSTRUCT whose only region holds contours given as (corners in voxels, k)."""
    dataset = draw(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path, label_set({name: 1}))
    items = []
    for corners, k in contours:
        corners = np.asarray(corners, dtype=float)
        index = np.column_stack([corners, np.broadcast_to(k, len(corners))])
        item = pydicom.Dataset()
        item.ContourGeometricType = kind
        item.NumberOfContourPoints = len(index)
        item.ContourData = [f"{n:.6f}" for n in (scan.geometry.to_world(index) * LPS).ravel()]
        items.append(item)
    dataset.ROIContourSequence[0].ContourSequence = items
    dataset.save_as(tmp_path / "m.dcm")
    return tmp_path / "m.dcm"


def square(low, high):
    return [(low, low), (high, low), (high, high), (low, high)]


def filled(*squares):
    plane = np.zeros(SHAPE[:2], dtype=bool)
    for low, high in squares:
        plane[low:high, low:high] ^= True
    return plane


def codes(volume):
    return [finding.code for finding in volume.findings]


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_a_contour_within_another_is_a_hole_and_within_that_an_island(kind, scan, tmp_path):
    rings = [(square(0.5, 7.5), 1), (square(1.5, 6.5), 1), (square(2.5, 4.5), 1)]
    found = read_rtstruct(redrawn(tmp_path, scan, rings, kind=kind), onto=scan.geometry)
    assert np.array_equal(found.only_channel[:, :, 1] > 0, filled((1, 8), (2, 7), (3, 5)))
    assert not found.only_channel[:, :, [0, 2, 3]].any()
    assert codes(found) == []


def test_contours_that_overlap_in_part_are_noticed_and_copies_count_once(scan, tmp_path):
    pair = [(square(0.5, 4.5), 1), (square(2.5, 6.5), 1)]
    found = read_rtstruct(redrawn(tmp_path, scan, pair), onto=scan.geometry)
    assert codes(found) == ["DCM-075"]
    assert "4 voxels in both" in found.findings[0].message
    copies = [(square(0.5, 4.5), 1)] * 2
    found = read_rtstruct(redrawn(tmp_path, scan, copies), onto=scan.geometry)
    assert np.array_equal(found.only_channel[:, :, 1] > 0, filled((1, 5)))


def test_a_plane_between_slices_goes_to_the_nearest_and_the_nearest_plane_wins(scan, tmp_path):
    planes = [(square(0.5, 3.5), 0.7), (square(0.5, 5.5), 1.2), (square(0.5, 1.5), 2.4)]
    found = read_rtstruct(redrawn(tmp_path, scan, planes), onto=scan.geometry)
    assert not found.only_channel[:, :, [0, 3]].any()
    assert np.array_equal(found.only_channel[:, :, 1] > 0, filled((1, 6)))
    assert np.array_equal(found.only_channel[:, :, 2] > 0, filled((1, 2)))
    assert codes(found) == ["DCM-076"]
    assert "1 planes" in found.findings[0].message


def test_contours_on_every_second_slice_are_noticed(tmp_path):
    scan = write_scan(Geometry((9, 8, 7), grid().affine), tmp_path / "scan")
    label_map = np.zeros((9, 8, 7), dtype=np.uint8)
    label_map[2:5, 2:5, [0, 2, 4]] = 1
    draw(label_map, scan, tmp_path, label_set({"liver": 1}))
    found = read_rtstruct(tmp_path / "m.dcm", onto=scan.geometry)
    assert codes(found) == ["DCM-076"]
    assert found.findings[0].severity == "warning"


def test_contours_outside_the_scan_are_one_finding_and_all_outside_a_refusal(scan, tmp_path):
    outside = [(square(0.5, 3.5), k) for k in (-2, -1, 4)] + [(square(20.5, 30.5), 1)]
    partly = redrawn(tmp_path, scan, [(square(-4.5, 3.5), 1), *outside])
    found = read_rtstruct(partly, onto=scan.geometry)
    assert codes(found) == ["DCM-071", "DCM-071"]
    assert "4 of 5 contours" in found.findings[0].message
    assert "1 of 5 contours reach beyond" in found.findings[1].message
    assert np.array_equal(found.only_channel[:, :, 1] > 0, filled((0, 4)))
    with pytest.raises(GeometryError, match=r"DCM-071 .* all 4 contours lie outside the scan"):
        read_rtstruct(redrawn(tmp_path, scan, outside), onto=scan.geometry)


def test_a_region_outside_the_scan_is_empty_where_another_lies_inside(scan, tmp_path):
    path = redrawn(tmp_path, scan, [(square(0.5, 3.5), -2)])
    dataset = pydicom.dcmread(path)
    outside = dataset.ROIContourSequence[0]
    draw(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path, label_set({"spleen": 1, "liver": 2}))
    both = pydicom.dcmread(path)
    both.ROIContourSequence[1].ContourSequence = outside.ContourSequence
    both.save_as(path)
    found = read_rtstruct(path, labels=ORGANS, onto=scan.geometry)
    assert (found.only_channel == 2).all()
    assert codes(found) == ["DCM-071"]


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
def test_contours_without_an_area_are_left_out(kind, scan, tmp_path):
    path = redrawn(tmp_path, scan, [(square(0.5, 3.5), 1)], kind=kind)
    found = read_rtstruct(path, labels=label_set({"liver": 1}), onto=scan.geometry)
    assert not found.voxels.any()
    assert codes(found) == ["DCM-073"]
    assert kind in found.findings[0].message


def test_closed_contours_too_short_to_bound_an_area_are_noticed(scan, tmp_path):
    path = redrawn(tmp_path, scan, [([(1, 2)], 1), (square(3.5, 5.5), 1)])
    dataset = pydicom.dcmread(path)
    bare = pydicom.Dataset()
    bare.ContourGeometricType, bare.NumberOfContourPoints = "CLOSED_PLANAR", 0
    bare.ContourData = None
    dataset.ROIContourSequence[0].ContourSequence.append(bare)
    dataset.save_as(path)
    found = read_rtstruct(path, onto=scan.geometry)
    assert codes(found) == ["DCM-073"]
    assert found.findings[0].message.startswith("1 contours have no points")
    assert "1 have one or two" in found.findings[0].message
    assert np.argwhere(found.only_channel[:3, :3, 1]).tolist() == [[1, 2]]


def test_a_structure_set_without_any_contour_is_read_as_empty_with_a_warning(scan, tmp_path):
    path = redrawn(tmp_path, scan, [(square(0.5, 3.5), 1)])
    dataset = pydicom.dcmread(path)
    del dataset.ROIContourSequence
    dataset.save_as(path)
    found = read_rtstruct(path, onto=scan.geometry)
    assert not found.voxels.any()
    assert codes(found) == ["DCM-074"]


def test_contours_across_the_slices_are_refused(scan, tmp_path):
    tilted = redrawn(tmp_path, scan, [(square(0.5, 3.5), [0.0, 0.0, 2.0, 2.0])])
    with pytest.raises(GeometryError, match=r"DCM-072 .* reaches through 2 slices"):
        read_rtstruct(tilted, onto=scan.geometry)


def test_contour_data_that_are_no_points_are_refused(scan, tmp_path):
    path = redrawn(tmp_path, scan, [(square(0.5, 3.5), 1)])
    dataset = pydicom.dcmread(path)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [*contour.ContourData, "1.5"]
    dataset.save_as(path)
    with pytest.raises(ReadError, match=r"DCM-037 .* finite x, y, z"):
        read_rtstruct(path, onto=scan.geometry)


def test_another_frame_of_reference_is_refused(scan, tmp_path):
    dataset = draw(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path)
    other = generate_uid()
    dataset.FrameOfReferenceUID = other
    dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = other
    for region in dataset.StructureSetROISequence:
        region.ReferencedFrameOfReferenceUID = other
    dataset.save_as(tmp_path / "m.dcm")
    with pytest.raises(GeometryError, match=r"DCM-033 .* another frame of reference"):
        again(tmp_path)


def test_a_mask_of_any_kind_is_refused_on_a_scan_in_another_space(scan, tmp_path):
    label_map = np.ones(SHAPE, dtype=np.uint8)
    elsewhere = tmp_path / "elsewhere"
    write_series(scan, elsewhere, modality="CT", patient_id="x", seed="other")
    for suffix, what in ((".rtstruct.dcm", "RTSTRUCT"), (".seg.dcm", "SEG")):
        path = tmp_path / f"m{suffix}"
        write_label_map(
            label_map, path, geometry=scan.geometry, labels=ORGANS, source=tmp_path / "scan"
        )
        assert classes_in_mask(path, ORGANS) == ("liver",)
        found = read_label_map(path, ORGANS, onto=scan.geometry, scan=tmp_path / "scan")
        assert np.array_equal(found.only_channel, label_map)
        with pytest.raises(GeometryError, match=f"DCM-033 .* give the series the {what}"):
            read_label_map(path, ORGANS, onto=scan.geometry, scan=elsewhere)
        with pytest.raises(WriteError, match=r"FIL-021 .* refers to the series it was drawn on"):
            write_label_map(label_map, path, geometry=scan.geometry, labels=ORGANS)


def test_regions_find_their_class_by_name_in_any_case_then_by_code(scan, tmp_path):
    code = CodedTerm(value="78961009", scheme="SCT", meaning="Spleen")
    drawn = LabelSet(
        labels=(
            Label(name="Leber", values=(1,), colour=(1, 2, 3)),
            Label(name="Milz", values=(2,), colour=(1, 2, 3), code=code),
            Label(name="LIVER", values=(3,), colour=(1, 2, 3)),
        )
    )
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[1], label_map[2], label_map[3] = 1, 2, 3
    draw(label_map, scan, tmp_path, drawn)
    wanted = LabelSet(
        labels=(
            Label(name="spleen", values=(5,), colour=(1, 2, 3), code=code),
            Label(name="liver", values=(6,), colour=(1, 2, 3)),
            Label(name="kidney", values=(7,), colour=(1, 2, 3)),
        )
    )
    found = again(tmp_path, wanted)
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[2], expected[3] = 1, 2
    assert np.array_equal(found.only_channel, expected)
    assert [(f.code, f.severity) for f in found.findings] == [
        ("DCM-074", "note"),
        ("DCM-074", "warning"),
    ]
    assert "'Leber'" in found.findings[0].message
    assert "kidney" in found.findings[1].message


def test_an_only_region_is_the_only_class_and_two_are_not(scan, tmp_path):
    path = redrawn(tmp_path, scan, [(square(0.5, 3.5), 1)], name="GTV_1")
    found = read_rtstruct(path, labels=label_set({"tumour": ">0"}), onto=scan.geometry)
    assert codes(found) == ["DCM-074"]
    assert found.voxels.any()
    draw(np.indices(SHAPE).sum(0).astype(np.uint8) % 3, scan, tmp_path)
    with pytest.raises(LabelError, match=r"LBL-003 .*'liver', 'spleen' belong to no class of"):
        again(tmp_path, label_set({"tumour": 1}))


def test_an_rtstruct_without_its_scan_and_a_scan_in_place_of_one_are_refused(scan, tmp_path):
    draw(np.ones(SHAPE, dtype=np.uint8), scan, tmp_path)
    with pytest.raises(ReadError, match=r"DCM-070 .* name the scan they were drawn on"):
        read_rtstruct(tmp_path / "m.dcm")
    with pytest.raises(ReadError, match=r"DCM-034 .* 0 RTSTRUCT files"):
        read_rtstruct(tmp_path / "scan")


@pytest.mark.parametrize("modality", ["CT", "PET", "MR_T1"])
def test_a_real_tumour_equals_the_mask_made_from_its_contours(modality, shared_data):
    folder = shared_data("sts_dicom_rtstruct") / "dicom" / "STS_008" / modality
    nifti = shared_data("sts_tumour") / "nifti" / "STS_008" / f"{modality}_mask.nii.gz"
    found = read_rtstruct(
        folder / "mask" / "RS.dcm", labels=label_set({"tumour": 1}), source=folder / "image"
    )
    reference = nibabel.load(nifti)
    theirs = np.argwhere(np.asarray(reference.dataobj) > 0)
    world = theirs @ reference.affine[:3, :3].T + reference.affine[:3, 3]
    expected = {tuple(n) for n in np.rint(found.geometry.to_index(world)).astype(int)}
    assert {tuple(n) for n in np.argwhere(found.only_channel)} == expected


def test_real_contours_of_ten_organs_fill_as_another_library_says(shared_data):
    path = shared_data("dicom_rtstruct_misc") / "tests/testdata/example_data/rtss.dcm"
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    dataset = pydicom.dcmread(path)
    points = {
        region.ReferencedROINumber: [
            np.array(contour.ContourData, dtype=float).reshape(-1, 3) * LPS
            for contour in region.get("ContourSequence", ())
        ]
        for region in dataset.ROIContourSequence
    }
    everything = np.vstack([one for contours in points.values() for one in contours])
    low, high = everything.min(axis=0), everything.max(axis=0)
    # A pixel that no contour was drawn on, so that hardly any centre lies on a path.
    affine[:3, 3] = high[0] + 4.1, high[1] + 4.1, low[2]
    shape = tuple(int(n) for n in np.ceil((high - low + 10) / 3))
    grid_mm = Geometry(shape, affine)
    centres = np.argwhere(np.ones(shape[:2], dtype=bool))
    names = {region.ROINumber: region.ROIName for region in dataset.StructureSetROISequence}
    compared = 0
    for number, contours in points.items():
        if not contours:
            continue
        expected = np.zeros(shape, dtype=bool)
        for contour in contours:
            index = grid_mm.to_index(contour)
            closed = matplotlib.path.Path(np.vstack([index[:, :2], index[:1, :2]]))
            expected[:, :, round(index[0, 2])] ^= closed.contains_points(centres).reshape(shape[:2])
        found = read_rtstruct(path, labels=label_set({names[number]: 1}), onto=grid_mm)
        assert np.count_nonzero(found.only_channel != expected) <= 1e-4 * expected.sum(), number
        compared += int(expected.sum())
    assert compared > 100_000
