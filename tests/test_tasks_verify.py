"""medseg verify: an independent reader tells where a mask lies and what it holds."""

import numpy as np
import pydicom
import pytest
import SimpleITK

from medseg.cli import main as cli
from medseg.core.errors import EXIT_REFUSED, EXIT_SOME_FAILED
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Volume
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import write_label_map, write_volume
from medseg.io.placement import image_affine
from medseg.tasks.verify import verify_mask

LABELS = label_set({"a": 1, "b": 7})
ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])


def grid(*, spacing_mm=(0.7, 0.8, 2.5), axes=ROTATION) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing_mm
    affine[:3, 3] = (-40, 25, 130)
    return Geometry((8, 7, 6), affine)


SHEARED = Geometry(
    (8, 7, 6), np.array([[1, 0.3, 0, 5], [0, 2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
)


@pytest.fixture
def label_map_IJK(rng):
    return rng.integers(0, 3, (8, 7, 6)).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "seg.nrrd", "mha"])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, -1)])
def test_every_written_format_lies_on_its_scan(tmp_path, label_map_IJK, suffix, flips):
    geometry = grid(axes=ROTATION @ np.diag(flips))
    write_volume(Volume(label_map_IJK[None].astype(np.int16), geometry), tmp_path / "scan.nrrd")
    write_label_map(label_map_IJK, tmp_path / f"m.{suffix}", geometry=geometry, labels=LABELS)
    found = verify_mask(tmp_path / f"m.{suffix}", tmp_path / "scan.nrrd")
    assert found.passed
    assert found.reader == "SimpleITK"
    assert found.num_vox == 8 * 7 * 6


def test_a_sheared_nifti_is_read_by_nibabel(tmp_path, label_map_IJK):
    write_volume(Volume(label_map_IJK[None], SHEARED), tmp_path / "scan.nrrd")
    write_label_map(label_map_IJK, tmp_path / "m.nii", geometry=SHEARED, labels=LABELS)
    found = verify_mask(tmp_path / "m.nii", tmp_path / "scan.nrrd")
    assert (found.passed, found.reader) == (True, "nibabel")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pictures_lie_on_their_picture(tmp_path, rng, suffix):
    geometry = Geometry((8, 7, 1), image_affine(), "px")
    mask = rng.integers(0, 3, (8, 7, 1)).astype(np.uint8)
    write_volume(Volume(mask[None], geometry), tmp_path / "scan.png")
    write_label_map(mask, tmp_path / f"m.{suffix}", geometry=geometry, labels=LABELS)
    assert verify_mask(tmp_path / f"m.{suffix}", tmp_path / "scan.png").passed


@pytest.mark.parametrize("empty_slices", [(), (0, 3), (0, 1, 5)])
def test_a_dicom_seg_lies_on_its_series(tmp_path, label_map_IJK, empty_slices):
    scan = Volume(label_map_IJK[None].astype(np.int16), grid())
    write_series(scan, tmp_path / "series", modality="CT", patient_id="phantom", seed="scan")
    geometry = read_dicom(tmp_path / "series").geometry
    label_map_IJK[:, :, list(empty_slices)] = 0
    write_label_map(
        label_map_IJK,
        tmp_path / "m.dcm",
        geometry=geometry,
        labels=LABELS,
        source=tmp_path / "series",
    )
    found = verify_mask(tmp_path / "m.dcm", tmp_path / "series")
    assert found.passed, found
    assert found.reader == "highdicom"


def test_an_rtstruct_lies_on_its_series_until_it_is_moved(tmp_path, label_map_IJK):
    scan = Volume(label_map_IJK[None].astype(np.int16), grid())
    write_series(scan, tmp_path / "series", modality="CT", patient_id="phantom", seed="scan")
    path = tmp_path / "m.rtstruct.dcm"
    write_label_map(
        label_map_IJK,
        path,
        geometry=read_dicom(tmp_path / "series").geometry,
        labels=LABELS,
        source=tmp_path / "series",
    )
    found = verify_mask(path, tmp_path / "series")
    assert found.passed, found
    assert (found.reader, found.num_vox) == ("matplotlib", 336)
    dataset = pydicom.dcmread(path)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [float(n) + 0.02 for n in contour.ContourData]
    dataset.save_as(path)
    assert verify_mask(path, tmp_path / "series").corner_error_mm == pytest.approx(0.02 * 3**0.5)


def test_a_displaced_mask_is_measured_and_fails(tmp_path, label_map_IJK, capsys):
    geometry = grid()
    moved = geometry.affine.copy()
    moved[1, 3] += 0.25
    write_volume(Volume(label_map_IJK[None], geometry), tmp_path / "scan.nrrd")
    write_label_map(
        label_map_IJK,
        tmp_path / "m.mha",
        geometry=Geometry(geometry.shape, moved),
        labels=LABELS,
    )
    code = cli(["verify", str(tmp_path / "m.mha"), str(tmp_path / "scan.nrrd")])
    assert code == EXIT_SOME_FAILED
    assert "0.25 mm, 0 of 336 voxels differ" in capsys.readouterr().out


def test_a_flipped_copy_of_another_tool_fails(tmp_path, label_map_IJK):
    geometry = grid()
    write_volume(Volume(label_map_IJK[None], geometry), tmp_path / "scan.nrrd")
    image = SimpleITK.ReadImage(tmp_path / "scan.nrrd")
    SimpleITK.WriteImage(image[::-1], tmp_path / "m.nrrd")
    found = verify_mask(tmp_path / "m.nrrd", tmp_path / "scan.nrrd")
    assert found.corner_error_mm == pytest.approx(7 * 0.7)
    assert not found.passed


def test_another_shape_is_infinitely_far(tmp_path):
    write_volume(Volume(np.zeros((1, 8, 7, 6), np.uint8), grid()), tmp_path / "scan.nrrd")
    small = Geometry((8, 7, 5), grid().affine)
    write_volume(Volume(np.zeros((1, 8, 7, 5), np.uint8), small), tmp_path / "m.nrrd")
    assert verify_mask(tmp_path / "m.nrrd", tmp_path / "scan.nrrd").corner_error_mm == np.inf


def test_a_missing_mask_is_one_line(tmp_path, capsys):
    assert cli(["verify", str(tmp_path / "m.nii"), str(tmp_path)]) == EXIT_REFUSED
    assert capsys.readouterr().err.count("\n") == 1
