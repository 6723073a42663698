"""What a good scan should read as, said by nibabel or SimpleITK, and whether medseg agrees."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.io.formats import read_volume

_TOLERANCE_MM = 1e-3
Grid = tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.float64]]


def grid_of(path: Path) -> Grid:
    """Read shape, RAS affine and values (I, J, K) by a reader that is not medseg's."""
    if path.name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        voxels = np.asarray(image.get_fdata(dtype=np.float64))
        shape = (*voxels.shape, 1)[:3]
        return shape, np.asarray(image.affine), voxels.reshape(shape)
    found = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(found.GetDirection()).reshape(3, 3) * found.GetSpacing()
    affine[:3, 3] = found.GetOrigin()
    affine[:2] *= -1
    values = SimpleITK.GetArrayFromImage(found).T.astype(np.float64)
    return values.shape, affine, values


def expects(
    scan: Path, *, mask: Path | None, twin: Path, affine: NDArray[np.float64] | None
) -> Callable[[], str]:
    """Return an oracle that compares medseg's reading of a scan, and a mask made of it.

    Args:
        scan: the file.
        mask: what `medseg predict` writes, or the folder with it alone, where its name is an id;
            None: the voxels alone are compared.
        twin: the file that the independent reader reads instead.
        affine: where the voxels lie; None: where the independent reader says.
    """

    def oracle() -> str:
        shape, placed, values = grid_of(twin)
        placed = placed if affine is None else affine
        try:
            own = read_volume(scan).voxels[0].astype(np.float64)
        except MedsegError as fault:
            return f"read by the command, not by read_volume: {fault}"
        if own.shape != shape or not np.array_equal(own, values, equal_nan=True):
            return "other voxels than the independent reader's"
        if mask is None:
            return ""
        found, where, _ = grid_of(next(mask.glob("*.nii.gz")) if mask.is_dir() else mask)
        if found != shape:
            return f"mask of {found} voxels, expected {shape}"
        error_mm = corner_error_mm(where, placed, shape)
        return "" if error_mm <= _TOLERANCE_MM else f"mask is {error_mm:.3g} mm off"

    return oracle


def corner_error_mm(
    one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]
) -> float:
    """Largest distance between the eight corners of a grid under two affines; NaN counts as far."""
    corners = np.array([(*ends, 1) for ends in product(*[(0, n - 1) for n in shape])])
    distances = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1)
    return float("inf") if np.isnan(distances).any() else float(distances.max())
