"""How far the surfaces of two masks lie apart: Hausdorff distance, average, surface Dice.

After Nikolov et al. (arXiv:1809.04430, J Med Internet Res 2021;23:e26151): a surface consists of
one element for every corner between eight voxels that are not all alike. Marching cubes give the
element its area, by which it is weighed; its distance is the one to the nearest element of the
other surface. The border of the scan closes a mask that reaches it. A 2D image (one slice) is the
cross-section of a prism, so that its surface is its contour and areas become lengths.

Distances hold on any grid, oblique or sheared; areas are those of the grid's voxel edges, exact
unless the grid is sheared, where the shear is left out of the weights.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from medseg.core.geometry import Geometry
from medseg.metrics.elements import AROUND, element_areas
from medseg.metrics.overlap import UNDEFINED, Mask

Floats = NDArray[np.float64]

# A distance that equals the tolerance counts as within it, whatever the header's round-off:
# spacings and affines are often stored as float32, whose relative step is 6e-8.
_ROUND_OFF = 1e-6
# Up to this many corners a distance transform is fast whatever the shapes are (0.7 s, 100 MB);
# above it, where masks often lie far apart, a search tree needs neither the time nor the memory.
_TRANSFORM_MAX_VOX = 8_000_000
# What surface Dice usually allows in clinical images; finer grids get less.
_USUAL_TOLERANCE_MM = 1.0


def default_tolerance_mm(geometry: Geometry) -> float:
    """Return 1 mm, or on grids finer than half of that twice their coarsest spacing.

    Across a micrograph 1 mm would forgive everything. Pixels, on a grid without physical size.
    """
    sides = zip(geometry.spacing_mm, geometry.shape, strict=True)
    # The only slice of a 2D image has a thickness that says nothing about its contour.
    spacing_mm = [spacing_mm for spacing_mm, size in sides if size > 1]
    return min(_USUAL_TOLERANCE_MM, 2 * max(spacing_mm, default=_USUAL_TOLERANCE_MM))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SurfaceDistances:
    """Elements of two surfaces, nearest first: distance to the other surface, and area.

    Distances are infinite where the other mask is empty. Units are mm and mm2 (mm in 2D), or
    pixels on a grid without physical size.
    """

    prediction_mm: Floats
    prediction_area: Floats
    reference_mm: Floats
    reference_area: Floats

    def hausdorff_mm(self, percent: float = 100.0) -> float:
        """Return the distance within which `percent` of either surface lies from the other.

        100 gives the Hausdorff distance, 95 the robust one (HD95): the larger of both directions,
        each a percentile by area. NaN when either mask is empty.
        """
        if not (self.prediction_mm.size and self.reference_mm.size):
            return UNDEFINED
        return max(
            _percentile(self.prediction_mm, self.prediction_area, percent),
            _percentile(self.reference_mm, self.reference_area, percent),
        )

    @property
    def average_mm(self) -> float:
        """Average symmetric surface distance, by area; NaN when either mask is empty."""
        if not (self.prediction_mm.size and self.reference_mm.size):
            return UNDEFINED
        moment = self.prediction_mm @ self.prediction_area + self.reference_mm @ self.reference_area
        return float(moment / (self.prediction_area.sum() + self.reference_area.sum()))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Return the share of both surfaces within the tolerance of the other one, 0 to 1.

        0 when one mask is empty, NaN when both are.
        """
        total = self.prediction_area.sum() + self.reference_area.sum()
        if not total:
            return UNDEFINED
        limit_mm = tolerance_mm * (1 + _ROUND_OFF)
        close = self.prediction_area[self.prediction_mm <= limit_mm].sum()
        close += self.reference_area[self.reference_mm <= limit_mm].sum()
        return float(close / total)


def measure_surfaces(prediction: Mask, reference: Mask, *, geometry: Geometry) -> SurfaceDistances:
    """Measure every element of both surfaces.

    Args:
        prediction: (I, J, K), the whole grid or any part of it that holds both masks.
        reference: of the same shape.
        geometry: the whole grid, which gives edges and directions and tells a 2D image.
    """
    # The triangular factor is the grid without its rotation: distances are the same, and on
    # a grid without shear its columns are exactly one voxel edge each.
    edges = np.linalg.qr(geometry.affine[:3, :3])[1]
    flat = tuple(n == 1 for n in geometry.shape)
    codes = [_corner_codes(mask, flat) for mask in (prediction, reference)]
    surfaces = [(code > 0) & (code < 255) for code in codes]
    areas = element_areas(np.where(flat, 1.0, geometry.spacing_mm))
    sides = []
    for this, other in ((0, 1), (1, 0)):
        distance = _distances(surfaces[this], surfaces[other], edges)
        area = areas[codes[this][surfaces[this]]]
        order = np.argsort(distance, kind="stable")
        sides.append((distance[order], area[order]))
    return SurfaceDistances(
        prediction_mm=sides[0][0],
        prediction_area=sides[0][1],
        reference_mm=sides[1][0],
        reference_area=sides[1][1],
    )


def _percentile(distance_mm: Floats, area: Floats, percent: float) -> float:
    """Smallest distance within which that percentage of the area lies; distances ascend."""
    reached = np.cumsum(area)
    # Without the allowance a share met exactly (19 of 20 equal elements) is left to round-off.
    wanted = percent / 100 * reached[-1] * (1 - 1e-12)
    return float(distance_mm[min(np.searchsorted(reached, wanted), len(distance_mm) - 1)])


def _corner_codes(mask: Mask, flat: tuple[bool, ...]) -> NDArray[np.uint8]:
    """Code of the eight voxels around every corner, outside closed by a layer of background."""
    voxels = np.asarray(mask, dtype=np.uint8)
    for axis in range(3):
        width = [(0, 0)] * 3
        width[axis] = (0, 1) if flat[axis] else (1, 1)
        voxels = np.pad(voxels, width, mode="edge" if flat[axis] else "constant")
    i, j, k = (n - 1 for n in voxels.shape)
    codes = np.zeros((i, j, k), dtype=np.uint8)
    for bit, (di, dj, dk) in enumerate(AROUND):
        codes |= voxels[di : di + i, dj : dj + j, dk : dk + k] << np.uint8(bit)
    return codes


def _distances(surface: Mask, other: Mask, edges: Floats) -> Floats:
    """Distance of every corner on `surface` to the nearest one on `other`, in mm."""
    from_vox = np.argwhere(surface)
    if not other.any():
        return np.full(len(from_vox), np.inf)
    step_vox = _nearest(from_vox, other, edges) - from_vox
    return np.asarray(np.linalg.norm(step_vox @ edges.T, axis=1))


def _nearest(from_vox: NDArray[np.int64], other: Mask, edges: Floats) -> NDArray[Any]:
    """Index of the nearest corner on `other`, N x 3."""
    sheared = np.abs(edges - np.diag(np.diag(edges))).max() > _ROUND_OFF * np.abs(edges).max()
    if other.size <= _TRANSFORM_MAX_VOX and not sheared:
        indices = ndimage.distance_transform_edt(
            ~other,
            sampling=np.abs(np.diag(edges)),
            return_distances=False,
            return_indices=True,
        )
        return np.asarray(indices[(slice(None), *from_vox.T)].T)
    targets = np.argwhere(other)
    _, chosen = KDTree(targets @ edges.T, balanced_tree=False).query(from_vox @ edges.T)
    return np.asarray(targets[chosen])
