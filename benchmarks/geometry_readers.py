"""The same scans as other libraries read them: voxels (C, I, J, K) and a RAS affine each."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

# What these libraries raise on files they do not read.
REFUSALS = (
    RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, OSError,
    NotImplementedError, AssertionError, nibabel.filebasedimages.ImageFileError,
)  # fmt: skip
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A scan as one library places it."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]


def by_nibabel(path: Path) -> list[Placed]:
    """Read a NIfTI file."""
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    if voxels.dtype.names:
        voxels = np.stack([voxels[name] for name in "RGB"], axis=-1)
    shape = (*image.shape, 1, 1)[:3]
    channels = np.moveaxis(voxels.reshape(*shape, -1), -1, 0)
    return [Placed(channels, np.asarray(image.affine))]


def by_simpleitk(path: Path) -> list[Placed]:
    """Read a file of any format."""
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    return [_of_itk(SimpleITK.ReadImage(str(path)))]


def series_by_simpleitk(files: Sequence[Path], uid: str) -> list[Placed]:
    """Read a DICOM series; GDCM lists and sorts its files."""
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    if len(files) == 1:
        return by_simpleitk(files[0])
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(files[0].parent), uid)
    return [_of_itk(SimpleITK.ReadImage(names))]


def series_by_highdicom(files: Sequence[Path]) -> list[Placed]:
    """Read a DICOM series, or one multi-frame file.

    highdicom insists on a FrameOfReferenceUID, which de-identified files often lack: one is lent.
    """
    datasets = [pydicom.dcmread(file, force=True) for file in files]
    shared = pydicom.uid.generate_uid()
    for dataset in datasets:
        if "FrameOfReferenceUID" not in dataset:
            dataset.FrameOfReferenceUID = shared
    if len(files) == 1 and "PerFrameFunctionalGroupsSequence" in datasets[0]:
        image = highdicom.Image.from_dataset(datasets[0], copy=False)
        volume = image.get_volume(apply_real_world_transform=False)
    else:
        volume = highdicom.get_volume_from_series(datasets, apply_real_world_transform=False)
    return [Placed(volume.array[None], _LPS_TO_RAS @ volume.affine)]


def series_by_dcm2niix(files: Sequence[Path]) -> list[Placed]:
    """Convert a DICOM series; every volume that comes out.

    Files of Philips carry two scalings, the standard's and their own. Both are asked for: which of
    them dcm2niix calls precise (`-p`) depends on the kind of file.
    """
    tool = Path(sys.executable).with_name("dcm2niix")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "in"
        source.mkdir()
        for number, file in enumerate(files):
            shutil.copy(file, source / f"{number:05d}.dcm")
        for precise in ("y", "n"):
            target = Path(scratch) / precise
            target.mkdir()
            done = subprocess.run(
                [tool, "-b", "n", "-z", "n", "-p", precise, "-f", "%s_%p", "-o", target, source],
                check=False,
                capture_output=True,
            )
            if done.returncode:
                raise RuntimeError(f"exit code {done.returncode}")
            for path in sorted(target.glob("*.nii")):
                (placed,) = by_nibabel(path)
                found.append(Placed(np.array(placed.voxels), placed.affine))
    return found


def _of_itk(image: Any) -> Placed:
    n, affine = image.GetDimension(), np.eye(4)
    if n == 4:
        # ITK keeps the fourth axis apart from the three in space.
        direction = np.array(image.GetDirection()).reshape(4, 4)[:3, :3]
        affine[:3, :3] = direction * image.GetSpacing()[:3]
        affine[:3, 3] = image.GetOrigin()[:3]
    else:
        affine[:n, :n] = np.array(image.GetDirection()).reshape(n, n) * image.GetSpacing()
        affine[:n, 3] = image.GetOrigin()
    voxels = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        channels = np.moveaxis(voxels, -1, 0)
    else:
        channels = voxels if n == 4 else voxels[None]
    spatial = channels.reshape(len(channels), *(1,) * (4 - channels.ndim), *channels.shape[1:])
    return Placed(spatial.transpose(0, 3, 2, 1), _LPS_TO_RAS @ affine)
