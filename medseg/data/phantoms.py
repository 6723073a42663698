"""Scans made in code: CT-like (or MR-like) abdomens with organs that no threshold tells apart.

A patient is a table of shapes (`data/anatomy`), varied, bent by a smooth deformation, and looked at
on an oblique, anisotropic grid. Edges are rendered from signed distances, so that partial volume
needs no supersampling; then come the blur and the noise of a reconstruction.
"""

from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medseg.core.errors import GeometryError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet
from medseg.core.volume import Volume
from medseg.data.anatomy import ABDOMEN, LABELS, TISSUES, Ellipsoid, Field, Structure

Contrast = Literal["CT", "MR"]

# The patient's axes x, y, z, each with the codes of its positive and its negative direction.
_ENDS = ("RL", "AP", "SI")
ORIENTATIONS = tuple("".join(codes) for axes in permutations(_ENDS) for codes in product(*axes))
# Of those, the ones an axial DICOM series can hold: slices last, axes right-handed.
AXIAL = ("LPS", "RAS", "LAI", "RPI", "PRS", "ALS", "PLI", "ARI")

_HOST = LABELS.names.index("liver") + 1
_TUMOUR = LABELS.names.index("tumour") + 1
_MAX_TILT_DEG = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A scan made in code.

    Attributes:
        image: int16, HU for CT and arbitrary units for MR.
        label_map: (I, J, K) indices of `labels`, on the grid of the image.
        labels: the classes, with codes, colours and left-right partners.
    """

    image: Volume
    label_map: NDArray[np.uint8]
    labels: LabelSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesions:
    """How many tumours lie in the liver, and how large they are.

    Raises:
        GeometryError: fewer than none, or radii that are not an interval above 0.
    """

    count: int = 1
    radius_mm: tuple[float, float] = (9.0, 11.5)

    def __post_init__(self) -> None:
        low_mm, high_mm = self.radius_mm
        if self.count < 0 or not 0 < low_mm <= high_mm:
            raise GeometryError(
                f"lesions: count {self.count}, radius_mm {self.radius_mm}; expected a count of 0 "
                "or more, and a smaller and a larger radius above 0"
            )


@dataclass(slots=True, kw_only=True, eq=False)
class _Canvas:
    """A scan while it is painted.

    Attributes:
        brightness: of each tissue, one number or one a voxel.
        image, label_map: (I, J, K), changed in place.
        edge_mm: width over which partial volume spreads an edge.
    """

    shape: tuple[int, int, int]
    brightness: dict[str, float | Field]
    edge_mm: float
    image: Field = field(init=False)
    label_map: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.image = np.full(self.shape, self.brightness["air"], dtype=np.float32)
        self.label_map = np.zeros(self.shape, dtype=np.uint8)

    def paint(self, structure: Structure, points_mm: Field) -> None:
        """Paint a structure, given where each voxel lies in its coordinates, (3, I, J, K)."""
        distance_mm = structure.distance_mm(points_mm)
        cover = np.clip(0.5 - distance_mm / np.float32(self.edge_mm), 0, 1)
        self.image[...] += cover * (self.brightness[structure.tissue] - self.image)
        self.label_map[distance_mm < 0] = structure.label


def make_phantom(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int, int] = (96, 96, 40),
    orientation: str | None = None,
    contrast: Contrast = "CT",
    lesions: Lesions | None = None,
) -> Phantom:
    """Draw a patient and a scanner, and scan the one with the other.

    Args:
        rng: everything random comes from it.
        shape: voxels along the patient's x (right), y (front) and z (head); 1 along z makes a 2D
            image.
        orientation: how the grid is stored, such as `LPS`; None draws one of the 48.
        contrast: `CT` in HU, or `MR` with a bias field and Rician noise.
        lesions: tumours in the liver; None puts one there.

    Raises:
        GeometryError: an orientation or a contrast that is none, or more lesions than fit.
    """
    if orientation is None:
        orientation = str(rng.choice(AXIAL if shape[2] == 1 else ORIENTATIONS))
    if orientation not in ORIENTATIONS:
        raise GeometryError(f"orientation {orientation!r}: expected one such as RAS or LPS")
    if contrast not in get_args(Contrast):
        raise GeometryError(f"contrast {contrast!r}: expected one of {get_args(Contrast)}")
    grid = _draw_grid(rng, shape, orientation)
    points_mm = _points_mm(grid)
    bent_mm = _bend(rng, points_mm)
    canvas = _Canvas(
        shape=grid.shape,
        brightness=_draw_brightness(rng, grid, contrast),
        edge_mm=min(grid.spacing_mm),
    )
    for structure in ABDOMEN:
        canvas.paint(structure.varied(rng), bent_mm)
    lesions = lesions or Lesions()
    for _ in range(lesions.count):
        lesion = _draw_lesion(rng, canvas.label_map == _HOST, grid, lesions.radius_mm)
        canvas.paint(lesion, points_mm)
    acquire = _acquire_ct if contrast == "CT" else _acquire_mr
    voxels = np.rint(acquire(rng, canvas.image, grid)).astype(np.int16)
    return Phantom(
        image=Volume(voxels[None], _on_the_table(rng, grid), (contrast,)),
        label_map=canvas.label_map,
        labels=LABELS,
    )


def _draw_grid(rng: np.random.Generator, shape: tuple[int, int, int], codes: str) -> Geometry:
    """Draw spacing, tilt and offset of a grid around the middle of the patient."""
    in_plane_mm = rng.uniform(1.5, 2.0)
    spacing_mm = np.array((in_plane_mm, in_plane_mm, rng.uniform(3.0, 5.0)))
    order = [next(axis for axis, ends in enumerate(_ENDS) if code in ends) for code in codes]
    signs = [1 if code == _ENDS[axis][0] else -1 for axis, code in zip(order, codes, strict=True)]
    tilt_deg = rng.uniform(-_MAX_TILT_DEG, _MAX_TILT_DEG, size=3)
    axes = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix() * spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = axes[:, order] * signs
    stored = np.array(shape)[order]
    affine[:3, 3] = rng.uniform(-6, 6, size=3) - affine[:3, :3] @ ((stored - 1) / 2)
    return Geometry((int(stored[0]), int(stored[1]), int(stored[2])), affine)


def _points_mm(grid: Geometry) -> Field:
    index = np.indices(grid.shape).reshape(3, -1).T.astype(np.float64)
    return np.asarray(grid.to_world(index).T.reshape(3, *grid.shape), dtype=np.float32)


def _bend(rng: np.random.Generator, points_mm: Field) -> Field:
    """Deform space smoothly, and make the patient larger or smaller.

    Three waves an axis, each too low and too long for space to fold: the steepest slope of their
    sum is 3 x 2.5 mm x 2 pi / 110 mm = 0.43, below 1.
    """
    scale = rng.uniform(0.93, 1.07, size=(3, 1, 1, 1)).astype(np.float32)
    bent = points_mm * scale
    for axis in range(3):
        for _ in range(3):
            towards = rng.normal(size=3)
            wave = towards / np.linalg.norm(towards) * 2 * np.pi / rng.uniform(110, 220)
            phase = np.tensordot(wave.astype(np.float32), points_mm, axes=1)
            height_mm = np.float32(rng.uniform(0.5, 2.5))
            bent[axis] += height_mm * np.sin(phase + np.float32(rng.uniform(0, 2 * np.pi)))
    return bent


def _draw_brightness(
    rng: np.random.Generator, grid: Geometry, contrast: Contrast
) -> dict[str, float | Field]:
    """Draw how bright each tissue of this patient is; loops of bowel are a field of their own."""
    gain = rng.uniform(0.7, 1.4)
    drawn = {
        name: tissue.hu + tissue.hu_spread * rng.uniform(-1, 1)
        if contrast == "CT"
        else tissue.mr * gain * rng.uniform(0.92, 1.08)
        for name, tissue in TISSUES.items()
    }
    # Heights of smooth noise become, from low to high: fat, bowel wall and contents, gas.
    loops = _smooth_noise(rng, grid, width_mm=6.0)
    fat, bowel, air = drawn["fat"], drawn["bowel"], drawn["air"]
    cavity = np.interp(loops, (-0.3, 0.0, 1.7, 1.9), (fat, bowel, bowel, air))
    return {**drawn, "cavity": cavity.astype(np.float32)}


def _draw_lesion(
    rng: np.random.Generator,
    host: NDArray[np.bool_],
    grid: Geometry,
    radius_mm: tuple[float, float],
) -> Ellipsoid:
    """Draw a tumour inside its host, at least a voxel clear of all that is not host."""
    largest_mm = rng.uniform(*radius_mm)
    depth_mm = ndimage.distance_transform_edt(host, sampling=grid.spacing_mm)
    room = np.argwhere(depth_mm > largest_mm + max(grid.spacing_mm))
    if not len(room):
        raise GeometryError(
            f"lesions: the liver has no room left for a radius of {largest_mm:.1f} mm",
            hint="ask for fewer or smaller lesions, or a larger grid",
        )
    # Centred on a voxel, even the smallest lesion is seen by the grid.
    x, y, z = grid.to_world(room[[rng.integers(len(room))]].astype(np.float64))[0].tolist()
    wide, deep, high = (largest_mm * rng.uniform(0.85, 1.0, size=3)).tolist()
    return Ellipsoid(
        tissue="tumour", centre_mm=(x, y, z), radii_mm=(wide, deep, high), label=_TUMOUR
    )


def _acquire_ct(rng: np.random.Generator, image: Field, grid: Geometry) -> Field:
    """Blur like a reconstruction kernel and a slice profile; add mottle and correlated noise."""
    texture = _smooth_noise(rng, grid, width_mm=4.0) * np.float32(rng.uniform(4, 8))
    soft = np.clip((image + 300) / 300, 0, 1)
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    kernel_vox = rng.uniform(0.55, 0.85)
    noise = ndimage.gaussian_filter(white, _in_plane(grid, kernel_vox, 0.0))
    noise *= np.float32(rng.uniform(10, 16)) / noise.std()
    blurred = ndimage.gaussian_filter(image + texture * soft, _in_plane(grid, 0.55, 0.45))
    return np.asarray(np.clip(blurred + noise, -1024, 3071))


def _acquire_mr(rng: np.random.Generator, image: Field, grid: Geometry) -> Field:
    """Blur, shade by a bias field of up to 30 %, and add Rician noise (Gudbjartsson, 1995)."""
    bias = np.exp(np.float32(0.15) * np.clip(_smooth_noise(rng, grid, width_mm=60.0), -2, 2))
    blurred = ndimage.gaussian_filter(image, _in_plane(grid, 0.55, 0.45)) * bias
    sigma = np.float32(rng.uniform(15, 30))
    real, imaginary = rng.standard_normal((2, *grid.shape), dtype=np.float32) * sigma
    return np.asarray(np.hypot(blurred + real, imaginary))


def _smooth_noise(rng: np.random.Generator, grid: Geometry, *, width_mm: float) -> Field:
    """Return noise of mean 0 and deviation 1, smoothed by a Gaussian of that sigma."""
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    sigma_vox = [width_mm / spacing_mm for spacing_mm in grid.spacing_mm]
    smooth = ndimage.gaussian_filter(white, sigma_vox, truncate=3.0, mode="wrap")
    return np.asarray((smooth - smooth.mean()) / smooth.std(), dtype=np.float32)


def _in_plane(grid: Geometry, within_vox: float, between_vox: float) -> list[float]:
    """Return a sigma an axis, `between_vox` along the thick axis of the slices."""
    thick = int(np.argmax(grid.spacing_mm))
    return [between_vox if axis == thick else within_vox for axis in range(3)]


def _on_the_table(rng: np.random.Generator, grid: Geometry) -> Geometry:
    """Move a grid to where the scanner's own zero lies: far from the patient's middle."""
    affine = grid.affine.copy()
    affine[:3, 3] += rng.uniform((-20, 100, -900), (20, 200, -300))
    return Geometry(grid.shape, affine)
