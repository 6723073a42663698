"""The door to all formats: names, lists of scans, label values, side files, whole or absent."""

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.core.errors import LabelError, MedsegError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet, label_set
from medseg.core.volume import Volume
from medseg.io.formats import (
    case_name,
    find_scans,
    read_label_map,
    read_volume,
    write_class_masks,
    write_label_map,
    write_volume,
)
from medseg.io.sidecars import itksnap_text, read_labels, slicer_text, write_sidecars

GEOMETRY = Geometry((3, 4, 5), np.diag([1.0, 2, 3, 1]))
ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
LABELS = label_set({"left kidney": 7, "spleen": 300})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.nii.gz", "a.b"),
        ("A.NII", "A"),
        ("x.seg.nrrd", "x"),
        ("p 1.png", "p 1"),
        ("folder", "folder"),
        ("1.2.840", "1.2.840"),
        ("scan.img.gz", "scan"),
    ],
)
def test_a_case_is_named_without_the_suffix(name, expected):
    assert case_name(Path("somewhere") / name) == expected


def axis_orders():
    """All 48 ways of naming three axes and their directions."""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        axes = np.zeros((3, 3))
        axes[order, range(3)] = signs
        yield axes


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".seg.nrrd", ".mha"])
@pytest.mark.parametrize("tilt", [np.eye(3), ROTATION], ids=["straight", "oblique"])
def test_all_48_orientations_come_back_where_they_were(tmp_path, rng, suffix, tilt):
    path = tmp_path / f"mask{suffix}"
    label_map_IJK = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    for axes in axis_orders():
        affine = np.eye(4)
        affine[:3, :3] = tilt @ axes @ np.diag((0.7, 0.9, 2.5))
        affine[:3, 3] = (-31.7, 12.3, 1250.9)
        geometry = Geometry((3, 4, 5), affine)
        write_label_map(label_map_IJK, path, geometry=geometry, labels=LABELS)
        back = read_label_map(path, LABELS)
        assert back.geometry.corner_error_mm(geometry) <= 1e-3
        assert back.geometry.orientation == geometry.orientation
        assert np.array_equal(back.only_channel, label_map_IJK)
        assert back.findings == ()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha"])
def test_indices_are_stored_as_declared_and_come_back(tmp_path, rng, suffix):
    label_map_IJK = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    path = tmp_path / f"mask{suffix}"
    write_label_map(label_map_IJK, path, geometry=GEOMETRY, labels=LABELS)
    back = read_label_map(path, LABELS)
    assert np.array_equal(back.only_channel, label_map_IJK)
    assert back.geometry.matches(GEOMETRY)
    assert set(np.unique(read_volume(path).voxels)) == {0, 7, 300}
    assert read_volume(path).voxels.dtype == np.uint16


def test_ignored_voxels_are_stored_as_declared(tmp_path):
    labels = LabelSet(labels=label_set({"a": 1}).labels, ignore_value=999)
    label_map_IJK = np.zeros((3, 4, 5), np.uint8)
    label_map_IJK[0], label_map_IJK[1] = 1, 2
    write_label_map(label_map_IJK, tmp_path / "m.nii", geometry=GEOMETRY, labels=labels)
    assert np.array_equal(read_label_map(tmp_path / "m.nii", labels).only_channel, label_map_IJK)
    assert set(np.unique(read_volume(tmp_path / "m.nii").voxels)) == {0, 1, 999}


@pytest.mark.parametrize("value", [3, 255])
def test_an_index_that_is_no_class_is_never_written(tmp_path, value):
    label_map_IJK = np.full((3, 4, 5), value, np.uint8)
    with pytest.raises(LabelError, match="LBL-005"):
        write_label_map(label_map_IJK, tmp_path / "m.nii", geometry=GEOMETRY, labels=LABELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "code"),
    [([0, 7, 8], "LBL-003"), ([0, np.nan, 7], "LBL-001"), ([0, 0.6, 7], "LBL-002")],
)
def test_rows_61_to_63_values_that_are_no_class_are_refused(tmp_path, content, code):
    values = np.resize(np.array(content, np.float32), (1, 3, 4, 5))
    write_volume(Volume(values, GEOMETRY), tmp_path / "mask.nii")
    with pytest.raises(MedsegError, match=f"{code} .*mask.nii"):
        read_label_map(tmp_path / "mask.nii", LABELS)


def test_row_62_labels_off_by_round_off_are_read(tmp_path):
    values = np.resize(np.array([0, 6.9999, 300.0005], np.float32), (1, 3, 4, 5))
    write_volume(Volume(values, GEOMETRY), tmp_path / "mask.nii")
    assert set(np.unique(read_label_map(tmp_path / "mask.nii", LABELS).voxels)) == {0, 1, 2}


def test_row_46_labels_beyond_2_to_the_24_stay_apart(tmp_path):
    labels = label_set({"a": 2**24, "b": 2**24 + 1})
    values = np.resize(np.array([2**24, 2**24 + 1, 0]), (3, 4, 5))
    image = nibabel.Nifti1Image(values, GEOMETRY.affine, dtype=np.int64)
    nibabel.save(image, tmp_path / "mask.nii.gz")
    found = read_label_map(tmp_path / "mask.nii.gz", labels).only_channel
    assert np.array_equal(found, np.resize([1, 2, 0], (3, 4, 5)))


def test_a_label_map_of_another_shape_is_refused(tmp_path):
    with pytest.raises(WriteError, match="FIL-023"):
        write_label_map(
            np.zeros((4, 3, 5), np.uint8), tmp_path / "m.nii", geometry=GEOMETRY, labels=LABELS
        )


@pytest.mark.parametrize("name", ["mask.mat", "mask", "mask.nhdr", "mask.jpg"])
def test_a_suffix_that_is_not_written_is_refused(tmp_path, name):
    with pytest.raises(WriteError, match="FIL-020"):
        write_volume(Volume(np.zeros((1, 3, 4, 5), np.uint8), GEOMETRY), tmp_path / name)


def test_a_dicom_seg_needs_its_source(tmp_path):
    with pytest.raises(WriteError, match="FIL-021"):
        write_label_map(
            np.zeros((3, 4, 5), np.uint8), tmp_path / "m.dcm", geometry=GEOMETRY, labels=LABELS
        )


def test_class_masks_are_one_file_a_class(tmp_path, rng):
    label_map_IJK = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    paths = write_class_masks(
        label_map_IJK, tmp_path, geometry=GEOMETRY, labels=LABELS, name="case 1"
    )
    assert [path.name for path in paths] == ["case 1_left_kidney.nii.gz", "case 1_spleen.nii.gz"]
    for index, path in enumerate(paths, start=1):
        assert np.array_equal(read_volume(path).only_channel, label_map_IJK == index)


def test_class_masks_never_overwrite_each_other(tmp_path):
    labels = label_set({"a/b": 1, "a b": 2})
    with pytest.raises(WriteError, match="FIL-024"):
        write_class_masks(
            np.zeros((3, 4, 5), np.uint8), tmp_path, geometry=GEOMETRY, labels=labels, name="x"
        )


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(b"old")
    with pytest.raises(WriteError):
        write_volume(Volume(np.zeros((1, 3, 4, 5), np.complex64), GEOMETRY), path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.nii.gz"]


def test_scans_are_found_damaged_ones_too_and_pairs_once(tmp_path, rng):
    (tmp_path / "sub").mkdir()
    for name in ("a.nii.gz", "sub/b.nrrd", "notes.txt", ".hidden.nii", "table.csv"):
        (tmp_path / name).write_bytes(b"")
    voxels = rng.random((2, 2, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Pair(voxels, np.eye(4)), tmp_path / "c.img")
    found = [path.relative_to(tmp_path).as_posix() for path in find_scans(tmp_path)]
    assert found == ["a.nii.gz", "c.hdr", "sub/b.nrrd"]


def test_a_folder_of_slices_is_one_scan(tmp_path):
    series = tmp_path / "patient" / "series"
    series.mkdir(parents=True)
    for n in range(3):
        (series / f"slice{n}").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    (tmp_path / "mask.nii").write_bytes(b"x")
    assert find_scans(tmp_path) == [tmp_path / "mask.nii", series]


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ReadError, match="FIL-001"):
        find_scans(tmp_path / "absent")


def test_itksnap_and_slicer_read_index_colour_and_name():
    lines = itksnap_text(LABELS).splitlines()
    assert lines[-1].split(maxsplit=7) == ["300", "86", "180", "233", "1", "1", "1", '"spleen"']
    rows = [row for row in slicer_text(LABELS).splitlines() if not row.startswith("#")]
    assert rows[1] == "7 left_kidney 230 159 0 255"
    assert {len(row.split()) for row in rows} == {6}


def test_side_files_give_the_classes_back(tmp_path):
    itksnap, _, whole = write_sidecars(tmp_path, LABELS)
    assert read_labels(whole) == LABELS
    assert read_labels(itksnap) == LABELS
    (tmp_path / "labels.txt").write_text("nothing")
    with pytest.raises(LabelError, match="LBL-010"):
        read_labels(tmp_path / "labels.txt")
