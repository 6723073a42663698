"""A small CT series to be bent: files of a healthy scan, edited one by one, beside its truth."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from benchmarks.tiny_set import ball
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.series_writer import write_series

SPACING_MM = (0.8, 1.2, 2.0)
# Columns run to the left and rows to the back, as in most scans of a patient on the back.
AFFINE = np.array([[-0.8, 0, 0, 20], [0, -1.2, 0, 30], [0, 0, 2.0, -40], [0, 0, 0, 1]])
# Takes the number of a slice from 0, and its data set.
Edit = Callable[[int, pydicom.Dataset], object]


def voxels_of(seed: int) -> NDArray[np.int16]:
    """Draw a scan in HU with air in it, (I, J, K)."""
    return (ball(np.random.default_rng(seed))[0] - 1000).astype(np.int16)


def write_ct(
    folder: Path, voxels: NDArray[np.int16], *, edit: Edit | None = None, seed: str = "x"
) -> list[Path]:
    """Write a series, edit each of its files, and return them in the order of k."""
    geometry = Geometry(voxels.shape, AFFINE)
    scan = Volume(voxels[None], geometry)
    paths = list(write_series(scan, folder, modality="CT", patient_id="Doe^Jane", seed=seed))
    for k, path in enumerate(paths):
        if edit is not None:
            edit_file(path, partial(edit, k))
    return paths


def edit_file(path: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    """Change the attributes of a file."""
    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings():
        # What is written here is wrong on purpose.
        warnings.simplefilter("ignore")
        change(dataset)
        dataset.save_as(path)


def setting(**attributes: object) -> Edit:
    """Return an edit that sets the same attributes in every slice."""

    def edit(_k: int, dataset: pydicom.Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return edit


def only(number: int, edit: Edit) -> Edit:
    """Return an edit of one slice."""
    return lambda k, dataset: edit(k, dataset) if k == number else None


def truth(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> Path:
    """Write what a series should read as, as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype), path)
    return path


def write_enhanced(folder: Path, voxels: NDArray[np.int16]) -> Path:
    """Let highdicom make one enhanced file of a series, its frames shuffled."""
    slices = [pydicom.dcmread(path) for path in write_ct(folder / "single", voxels)]
    order = np.random.default_rng(16).permutation(len(slices))
    for number, place in enumerate(order):
        slices[place].InstanceNumber = number + 1
        slices[place].LossyImageCompression = "00"
        slices[place].AcquisitionDateTime = "20000101000000"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            [slices[place] for place in order],
            series_instance_uid=generate_uid(entropy_srcs=["enhanced"]),
            series_number=1,
            sop_instance_uid=generate_uid(entropy_srcs=["enhanced", "1"]),
            instance_number=1,
        )
        whole.save_as(folder / "all.dcm")
    for path in (folder / "single").iterdir():
        path.unlink()
    (folder / "single").rmdir()
    return folder / "all.dcm"
