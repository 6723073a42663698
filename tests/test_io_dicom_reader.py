"""Reading image series: what is read lies where it belongs, with the values that were written."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from medseg.core.errors import ReadError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.reader import find_series, is_dicom, read_dicom
from medseg.io.dicom.series_writer import write_series


def oblique(shape=(7, 6, 5), spacing_mm=(0.9, 1.3, 2.5)):
    turn_z, turn_x = np.radians(20), np.radians(-35)
    about_z = [[np.cos(turn_z), -np.sin(turn_z), 0], [np.sin(turn_z), np.cos(turn_z), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(turn_x), -np.sin(turn_x)], [0, np.sin(turn_x), np.cos(turn_x)]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ np.array(about_x) * spacing_mm
    affine[:3, 3] = -31.5, 12.25, 101.125
    return Geometry(shape, affine)


@pytest.fixture
def scan(rng):
    geometry = oblique()
    return Volume(rng.integers(-1000, 1500, (1, *geometry.shape), dtype=np.int16), geometry)


def write(scan: Volume, folder: Path, modality="CT", seed="a"):
    return write_series(scan, folder, modality=modality, patient_id="phantom", seed=seed)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_written_series_reads_back_in_place_and_exactly(scan, tmp_path, modality):
    write(scan, tmp_path / "series", modality)
    found = read_dicom(tmp_path / "series")
    assert found.geometry.corner_error_mm(scan.geometry) < 1e-6
    assert np.array_equal(found.voxels, scan.voxels)
    assert found.voxels.dtype == np.int16


def test_writing_twice_with_one_seed_gives_the_same_bytes(scan, tmp_path):
    first, second = (write(scan, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_values_between_whole_numbers_come_back_within_half_a_step_of_int16(tmp_path, rng):
    geometry = oblique()
    scan = Volume(rng.normal(0, 3, (1, *geometry.shape)).astype(np.float32), geometry)
    write(scan, tmp_path, "PT")
    found = read_dicom(tmp_path)
    half_step = np.ptp(scan.voxels) / 65535 / 2
    assert found.voxels.dtype == np.float32
    assert np.abs(found.voxels - scan.voxels).max() <= 1.01 * half_step


def test_a_zip_reads_like_the_folder_it_was_made_of(scan, tmp_path):
    paths = write(scan, tmp_path / "series")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, f"study/{path.name}")
        archive.writestr("study/readme.txt", "hello")
    found = read_dicom(tmp_path / "scan.zip")
    assert is_dicom(tmp_path / "scan.zip")
    assert np.array_equal(found.voxels, scan.voxels)
    assert [finding.code for finding in found.findings] == ["DCM-027"]


def test_two_series_in_a_folder_are_listed_and_chosen_by_their_last_digits(scan, tmp_path):
    write(scan, tmp_path / "a", seed="a")
    write(scan, tmp_path / "b", modality="MR", seed="b")
    with pytest.raises(ReadError, match=r"DCM-003 .* 2 volumes, expected one: \d+ CT") as refusal:
        read_dicom(tmp_path)
    series = {entry.modality: entry for entry in find_series(tmp_path)}
    assert all(entry.selector in str(refusal.value) for entry in series.values())
    chosen = read_dicom(tmp_path, series_uid=series["MR"].selector)
    assert np.array_equal(chosen.voxels, scan.voxels)


def test_a_folder_without_dicom_is_told_from_one_with_it(scan, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "absent")
    write(scan, tmp_path / "deeper" / "series")
    assert is_dicom(tmp_path)
    assert not is_dicom(tmp_path, recursive=False)
    assert is_dicom(tmp_path / "deeper" / "series" / "slice_0001.dcm")
