"""Where voxels lie in space: the shape and RAS affine of a grid, and the questions asked of it.

Convention: world coordinates are RAS+ (x to the patient's right, y anterior, z superior) in mm, as
in NIfTI-1; a voxel index (i, j, k) is the centre of that voxel. DICOM and ITK files speak LPS and
are converted where they are read and written, never elsewhere. A 2D image is a grid with one slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import GeometryError

Affine = NDArray[np.float64]
Unit = Literal["mm", "px"]

# Two grids whose corners differ by less than this are the same grid (header round-off).
TOLERANCE_MM = 1e-3
_AXIS_ENDS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Shape and placement of a grid of voxels.

    Attributes:
        shape: voxels along i, j, k.
        affine: 4 x 4, takes a voxel index to RAS mm (or to pixels, see `unit`); read-only.
        unit: `mm`, or `px` for an image that carries no physical size.

    Raises:
        GeometryError: a shape that is not three positive numbers; an affine that is not finite,
            is singular, or does not end in 0 0 0 1; another unit.
    """

    shape: tuple[int, int, int]
    affine: Affine
    unit: Unit = "mm"

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1 or shape != tuple(self.shape):
            raise GeometryError(f"shape {self.shape}: expected three positive numbers of voxels")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise GeometryError("affine: expected 4 x 4 with a last row of 0 0 0 1")
        if not np.isfinite(affine).all():
            raise GeometryError("affine holds NaN or infinite numbers")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
            raise GeometryError(
                f"affine is singular: voxel edges of {_listed(lengths)} {self.unit} "
                "that do not span space"
            )
        if self.unit not in ("mm", "px"):
            raise GeometryError(f"unit {self.unit!r}: expected mm or px")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __reduce__(self) -> tuple[object, ...]:
        # NumPy forgets that an array is read-only when it is pickled or copied.
        return type(self), (self.shape, self.affine, self.unit)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Length of a voxel's edge along i, j, k (in pixels where `unit` is `px`)."""
        i, j, k = (float(n) for n in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres (cubic pixels / 1000 where `unit` is `px`)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vectors of the axes as columns, 3 x 3, in RAS."""
        return np.asarray(self.affine[:3, :3] / np.asarray(self.spacing_mm))

    @property
    def orientation(self) -> str:
        """Nearest axis codes, such as `RAS` or `PSR`: where each axis points as its index grows."""
        return "".join(
            _AXIS_ENDS[axis][int(sign > 0)] for axis, sign in _nearest_axes(self.direction)
        )

    @property
    def axis_order(self) -> tuple[int, int, int]:
        """For each of the world axes R, A, S the voxel axis that runs nearest to it."""
        nearest = [world for world, _ in _nearest_axes(self.direction)]
        return nearest.index(0), nearest.index(1), nearest.index(2)

    @property
    def corners(self) -> NDArray[np.float64]:
        """World positions of the centres of the eight corner voxels, 8 x 3."""
        ends = [(0, n - 1) for n in self.shape]
        return self.to_world(np.array(list(product(*ends)), dtype=np.float64))

    def to_world(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take voxel indices, N x 3, to world positions, N x 3."""
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take world positions, N x 3, to (fractional) voxel indices, N x 3."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(world @ inverse[:3, :3].T + inverse[:3, 3])

    def corner_error_mm(self, other: "Geometry") -> float:
        """Return the largest distance between matching corners; infinite when shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners - other.corners, axis=1).max())

    def matches(self, other: "Geometry", tolerance_mm: float = TOLERANCE_MM) -> bool:
        """Tell whether both describe the same grid, corner by corner."""
        return self.corner_error_mm(other) <= tolerance_mm

    def place_in(self, grid: "Geometry") -> tuple[int, int, int] | None:
        """Return the index in `grid` of the first voxel; None unless all voxels coincide with its.

        It may be a cut-out of that grid, or reach beyond it.
        """
        i, j, k = (int(n) for n in np.rint(grid.to_index(self.corners)[0]))
        shift = np.eye(4)
        shift[:3, 3] = i, j, k
        same = Geometry(self.shape, grid.affine @ shift, grid.unit)
        return (i, j, k) if self.matches(same) else None

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which `from_json` makes the same geometry."""
        return {"shape": list(self.shape), "affine": self.affine.tolist(), "unit": self.unit}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Geometry":
        """Make the geometry that `to_json` wrote."""
        return cls(tuple(value["shape"]), np.array(value["affine"]), value["unit"])


def require_match(
    geometry: Geometry, reference: Geometry, *, name: str, reference_name: str
) -> None:
    """Refuse two grids that are not the same one.

    Args:
        geometry: the grid under question.
        reference: the grid it must lie on.
        name: how the error names the first, such as a file name.
        reference_name: how it names the second.

    Raises:
        GeometryError: code GEO-001 (shape) or GEO-002 (placement), with the distance and, where
            one explains it, the flip or the order of axes that would make the grids match.
    """
    if geometry.shape != reference.shape:
        raise GeometryError(
            f"{name}: {_by(geometry.shape)} voxels, but {reference_name} has "
            f"{_by(reference.shape)}",
            code="GEO-001",
            hint="resample the mask onto its scan, or pair it with the scan it was drawn on",
        )
    error_mm = geometry.corner_error_mm(reference)
    if error_mm > TOLERANCE_MM:
        cause = _explain(geometry, reference)
        raise GeometryError(
            f"{name}: lies up to {error_mm:.3g} {geometry.unit} away from {reference_name} "
            f"(tolerance {TOLERANCE_MM} mm){cause}",
            code="GEO-002",
            hint="save the mask on the grid of its scan; a wrong header is not guessed away",
        )


def _explain(geometry: Geometry, reference: Geometry) -> str:
    """Name the flip that turns one grid into the other, if there is one."""
    for flips in product((1, -1), repeat=3):
        flip = np.diag([*flips, 1.0])
        flip[:3, 3] = [(n - 1) * (f < 0) for n, f in zip(geometry.shape, flips, strict=True)]
        flipped = Geometry(geometry.shape, geometry.affine @ flip, geometry.unit)
        if flipped.matches(reference):
            axes = "".join(axis for axis, f in zip("ijk", flips, strict=True) if f < 0)
            return f"; it would match if flipped along {axes}"
    if np.allclose(geometry.direction, reference.direction, atol=1e-3):
        return f"; orientation {geometry.orientation} in both"
    return f"; orientation {geometry.orientation} against {reference.orientation}"


def _nearest_axes(direction: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Match each voxel axis with one world axis, strongest agreement first."""
    found: dict[int, tuple[int, float]] = {}
    weight = np.abs(direction).copy()
    for _ in range(3):
        world, voxel = np.unravel_index(int(np.argmax(weight)), weight.shape)
        found[int(voxel)] = int(world), float(direction[world, voxel])
        weight[world, :] = -1
        weight[:, voxel] = -1
    return [found[axis] for axis in range(3)]


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _listed(numbers: Sequence[float] | NDArray[np.float64]) -> str:
    return ", ".join(f"{n:.4g}" for n in numbers)
