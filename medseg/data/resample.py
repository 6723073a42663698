"""Voxels of one grid seen on another: linear interpolation through both affines."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.errors import GeometryError
from medseg.core.geometry import Geometry

# Half a voxel beyond the outermost centres still lies inside the outermost voxels.
_EDGE_VOX = 0.5 + 1e-6


def resample_onto(
    voxels_IJK: NDArray[Any], source: Geometry, *, target: Geometry
) -> NDArray[np.float32]:
    """Interpolate voxels linearly at the centres of another grid.

    Args:
        voxels_IJK: values on the grid `source`.
        source: where they lie.
        target: the grid wanted.

    Returns:
        Values of `target.shape`, float32. What lies outside the source takes its lowest value
        (air in CT, nothing in PET).

    Raises:
        GeometryError: GEO-003: one grid is in mm, the other in pixels.
    """
    if source.unit != target.unit:
        raise GeometryError(
            f"a grid in {source.unit} cannot be laid over one in {target.unit}",
            code="GEO-003",
            hint="give spacing_mm for the images that carry none",
        )
    # Index of the target -> world -> index of the source.
    step = np.linalg.inv(source.affine) @ target.affine
    values = voxels_IJK.astype(np.float32, copy=False)
    found = np.empty(target.shape, np.float32)
    ndimage.affine_transform(
        values, step[:3, :3], offset=step[:3, 3], output=found, order=1, mode="nearest"
    )
    found[_outside(step, source.shape, target.shape)] = values.min()
    return found


def _outside(
    step: NDArray[np.float64], source: tuple[int, int, int], target: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Mark the voxels of the target whose centres lie in no voxel of the source."""
    i, j, k = np.ogrid[tuple(slice(n) for n in target)]
    outside = np.zeros(target, bool)
    for axis, size in enumerate(source):
        along = step[axis, 0] * i + step[axis, 1] * j + step[axis, 2] * k + step[axis, 3]
        outside |= (along < -_EDGE_VOX) | (along > size - 1 + _EDGE_VOX)
    return outside
