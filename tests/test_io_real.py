"""Real files: placed as nibabel or SimpleITK place them, or refused with a code."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.core.errors import MedsegError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.formats import find_scans, read_volume, write_volume

# What must be refused, and why; everything else must be read.
REFUSED = {
    "BallBinary30x30x30_byteskip_minus_five.nhdr": "NRD-002",
    "BallBinary30x30x30_nifti.nhdr": "FIL-011",
    "test1d_ascii.nrrd": "NRD-004",
    "test_customFields.nrrd": "NRD-004",
    "test_simple4d_raw.nrrd": "NRD-005",
    "analyze.hdr": "NII-002",
    "nifti1.hdr": "NII-009",
    "nifti2.hdr": "NII-009",
    "row_major.dconn.nii": "NII-008",
    "test.mgz": "FIL-004",
    "not-nifti.nii": "FIL-006",
    "complex32.nii": "NII-005",
    "complex64.nii": "NII-005",
    "4D.nii": "NII-023",
    "minimal.hdr": "NII-010",
    "minimal.hdr.gz": "NII-010",
    "minimal.img": "NII-010",
    "minimal.img.gz": "NII-010",
    "minimal.nii": "NII-010",
    "minimal.nii.gz": "NII-010",
    "minimal2.hdr": "NII-010",
    "minimal2.img.gz": "NII-010",
}
NIFTI = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz", ".mgz")


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels (C, I, J, K) and the affine."""
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    if voxels.dtype.names:
        voxels = np.stack([voxels[name] for name in "RGB"], axis=-1)
    shape = (*image.shape, 1, 1)[:3]
    return np.moveaxis(voxels.reshape(*shape, -1), -1, 0), image.affine


def by_simpleitk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels (C, I, J, K) and the affine, turned to RAS."""
    image = SimpleITK.ReadImage(path)
    n, affine = image.GetDimension(), np.eye(4)
    affine[:n, :n] = np.array(image.GetDirection()).reshape(n, n) * image.GetSpacing()
    affine[:n, 3] = image.GetOrigin()
    shape = (*image.GetSize(), 1)[:3]
    voxels = SimpleITK.GetArrayFromImage(image).T.reshape(1, *shape)
    return voxels, np.diag([-1, -1, 1, 1]) @ affine


def require_equal(scan: Volume, voxels: np.ndarray, affine: np.ndarray) -> None:
    reference = Geometry(scan.geometry.shape, affine, scan.geometry.unit)
    assert scan.geometry.corner_error_mm(reference) <= 1e-3
    assert np.allclose(scan.voxels, voxels, rtol=1e-6, equal_nan=True)


def files_of(folder: Path) -> list[Path]:
    names = ("SOURCE.txt", "LICENSE", "COPYING", "LICENSE-APACHE", "LICENSE-MIT")
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in names]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_odd_file_is_placed_right_or_refused(shared_data):
    seen: set[str] = set()
    for path in files_of(shared_data("odd_nifti_nrrd")):
        if path.suffix == ".raw":
            continue
        if path.name in REFUSED:
            with pytest.raises(MedsegError) as caught:
                read_volume(path, channels_axis=True)
            assert caught.value.code == REFUSED[path.name], path
            seen.add(path.name)
            continue
        scan = read_volume(path, channels_axis=True)
        if path.name.endswith(NIFTI):
            require_equal(scan, *by_nibabel(path))
        elif "bz2" not in path.name:  # which SimpleITK cannot unpack
            require_equal(scan, *by_simpleitk(path))
    assert seen == set(REFUSED)


@pytest.mark.parametrize("name", ["spinalcord_sct", "ibsi_orientation", "spleen_ct_msd_crop"])
def test_real_nifti_scans_equal_nibabel_and_simpleitk(shared_data, name):
    scans = [path for path in find_scans(shared_data(name)) if path.name.endswith(".nii.gz")]
    assert scans
    for path in scans:
        scan = read_volume(path)
        require_equal(scan, *by_nibabel(path))
        require_equal(scan, *by_simpleitk(path))


def test_written_scans_have_the_affine_of_the_scan_to_the_bit(shared_data, tmp_path):
    for path in find_scans(shared_data("spinalcord_sct")):
        scan = read_volume(path)
        write_volume(scan, tmp_path / "copy.nii.gz")
        copy = nibabel.load(tmp_path / "copy.nii.gz")
        assert np.array_equal(copy.affine, scan.geometry.affine), path
        assert np.array_equal(np.asarray(copy.dataobj), scan.only_channel), path


def test_the_orientation_phantom_counts_up_along_each_axis(shared_data):
    (path,) = (p for p in find_scans(shared_data("ibsi_orientation")) if p.is_file())
    i, j, k = np.indices((32, 48, 64))
    assert np.array_equal(read_volume(path).only_channel, i + j + k)


def test_microscopy_flavours_of_one_crop_agree(shared_data):
    by_name = {
        path.name: read_volume(path) for path in find_scans(shared_data("microscopy_formats"))
    }
    assert len(by_name) == 14
    gray = by_name["sub-png_sample-16gray_SEM.png"].only_channel
    for name, scan in by_name.items():
        if scan.geometry.shape != (256, 256, 1):  # two flavours are a larger crop
            continue
        full = scan.voxels.astype(float) * (257 if scan.voxels.dtype == np.uint8 else 1)
        assert np.abs(full - gray).max() <= 257, name
        assert scan.geometry.unit == "px"
        assert len(scan.channels) in (1, 3)


def test_stardist_stacks_equal_simpleitk(shared_data):
    for path in find_scans(shared_data("stardist_sample")):
        if path.suffix == ".tif":
            voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)).T
            assert np.array_equal(read_volume(path).voxels[0].squeeze(), voxels)
