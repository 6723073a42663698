"""Placement as files tell it, turned into a `Geometry`: LPS to RAS, and images without a size.

Legend: I, J, K voxel axes; `lps` and `ras` 4 x 4 affines that end in those world coordinates.
"""

from collections.abc import Sequence

import numpy as np

from medseg.core.errors import GeometryError
from medseg.core.geometry import Affine, Geometry, Unit

# ITK, NRRD and MetaImage point x and y the other way round; the matrix is its own inverse.
_FLIP_XY = np.diag([-1.0, -1.0, 1.0, 1.0])


def lps_to_ras(lps: Affine) -> Affine:
    """Turn an affine that ends in LPS into one that ends in RAS, or back."""
    return np.asarray(_FLIP_XY @ lps)


def affine_of(axes_mm: Sequence[Sequence[float]], origin_mm: Sequence[float]) -> Affine:
    """Make an affine from the step along each voxel axis (three vectors) and the first voxel."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(axes_mm, dtype=np.float64).T
    affine[:3, 3] = origin_mm
    return affine


def image_affine(spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Affine:
    """Place an image that says nothing about space: columns to the left, rows to the back, in LPS.

    ITK-SNAP, 3D Slicer and SimpleITK put a PNG or TIFF at the same place, so masks written in
    other formats lie on the image in all of them.
    """
    return lps_to_ras(np.diag([*spacing, 1.0]))


def placed(
    shape: Sequence[int], affine: Affine, *, name: str, code: str, unit: Unit = "mm"
) -> Geometry:
    """Make the geometry a file declares, naming the file if there is no such geometry.

    Raises:
        GeometryError: with that code, for what `Geometry` refuses.
    """
    i, j, k = shape
    try:
        # Huge numbers of a damaged header overflow here, and are refused for what they give.
        with np.errstate(all="ignore"):
            return Geometry((i, j, k), affine, unit)
    except GeometryError as fault:
        raise GeometryError(
            f"{name}: {fault.message}",
            code=code,
            hint="the header does not place the voxels; export the scan again from its source",
        ) from fault
