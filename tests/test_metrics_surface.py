"""Surface distances against the surface-distance package, brute force and closed forms."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.metrics import surface
from medseg.metrics.elements import AROUND, element_areas
from medseg.metrics.surface import SurfaceDistances, default_tolerance_mm, measure_surfaces

SPACINGS = [(1.0, 1.0, 1.0), (0.98, 0.98, 2.5), (0.7, 1.3, 3.1)]


def on_grid(shape: tuple[int, ...], spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Geometry:
    i, j, k = shape
    return Geometry((i, j, k), np.diag([*spacing_mm, 1.0]))


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Rough random shapes, some touching the border: every kind of corner occurs."""
    noise = rng.normal(size=shape)
    for axis in range(len(shape)):
        noise = noise + np.roll(noise, 1, axis) * 0.8
    return np.asarray(noise > 0.8)


def ball(geometry: Geometry, radius_mm: float) -> NDArray[np.bool_]:
    index = np.stack(np.indices(geometry.shape), axis=-1).reshape(-1, 3).astype(float)
    world = geometry.to_world(index)
    distance = np.linalg.norm(world - world.mean(axis=0), axis=1)
    return np.asarray(distance.reshape(geometry.shape) <= radius_mm)


def by_package(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> dict[str, Any]:
    package = pytest.importorskip("surface_distance")
    with warnings.catch_warnings():
        # The package still uses SciPy's old module names.
        warnings.simplefilter("ignore", DeprecationWarning)
        found: dict[str, Any] = package.compute_surface_distances(reference, prediction, spacing_mm)
    return found


def require_agreement(mine: SurfaceDistances, theirs: dict[str, Any]) -> None:
    import surface_distance as package

    assert mine.hausdorff_mm(95) == pytest.approx(
        package.compute_robust_hausdorff(theirs, 95), abs=1e-6
    )
    assert mine.hausdorff_mm() == pytest.approx(
        package.compute_robust_hausdorff(theirs, 100), abs=1e-6
    )
    for tolerance_mm in (0.0, 0.5, 1.01, 2.77):
        assert mine.surface_dice(tolerance_mm) == pytest.approx(
            package.compute_surface_dice_at_tolerance(theirs, tolerance_mm), abs=1e-6
        )
    weights = theirs["surfel_areas_gt"], theirs["surfel_areas_pred"]
    averages = package.compute_average_surface_distance(theirs)
    total = sum(w.sum() for w in weights)
    average = sum(a * w.sum() for a, w in zip(averages, weights, strict=True)) / total
    assert mine.average_mm == pytest.approx(average, abs=1e-6)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_areas_of_all_256_neighbourhoods_are_those_of_the_surface_distance_package(
    spacing_mm: tuple[float, ...],
) -> None:
    tables = pytest.importorskip("surface_distance.lookup_tables")
    theirs = np.array(tables.create_table_neighbour_code_to_surface_area(spacing_mm))
    kernel = tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    mine = element_areas(np.array(spacing_mm))
    for code in range(256):
        same = sum(int(kernel[voxel]) for bit, voxel in enumerate(AROUND) if code >> bit & 1)
        assert mine[code] == pytest.approx(theirs[same], abs=1e-12)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("max_transform_vox", [10**9, 0], ids=["transform", "tree"])
def test_3d_scores_agree_with_the_surface_distance_package(
    rng: np.random.Generator,
    spacing_mm: tuple[float, ...],
    max_transform_vox: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surface, "_TRANSFORM_MAX_VOX", max_transform_vox)
    prediction, reference = blobs(rng, (14, 11, 9)), blobs(rng, (14, 11, 9))
    mine = measure_surfaces(prediction, reference, geometry=on_grid((14, 11, 9), spacing_mm))
    require_agreement(mine, by_package(prediction, reference, spacing_mm))


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_2d_scores_agree_with_the_surface_distance_package(
    rng: np.random.Generator, flat: int
) -> None:
    prediction, reference = blobs(rng, (30, 22)), blobs(rng, (30, 22))
    theirs = by_package(prediction, reference, (0.6, 1.7))
    spacing_mm = np.insert([0.6, 1.7], flat, 8.0)
    planes = [np.expand_dims(mask, flat) for mask in (prediction, reference)]
    geometry = on_grid(planes[0].shape, tuple(spacing_mm))
    require_agreement(measure_surfaces(*planes, geometry=geometry), theirs)


def test_distances_are_those_of_brute_force_between_corners(rng: np.random.Generator) -> None:
    prediction, reference = blobs(rng, (7, 6, 5)), blobs(rng, (7, 6, 5))
    spacing_mm = np.array([0.8, 1.1, 2.4])

    def corners(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        padded = np.pad(mask, 1)
        found = []
        for at in np.ndindex(8, 7, 6):
            eight = padded[tuple(slice(n, n + 2) for n in at)]
            if eight.any() and not eight.all():
                found.append(at)
        return np.array(found) * spacing_mm

    here, there = corners(prediction), corners(reference)
    apart = np.linalg.norm(here[:, None] - there[None], axis=2)
    mine = measure_surfaces(prediction, reference, geometry=on_grid((7, 6, 5), tuple(spacing_mm)))
    assert np.allclose(mine.prediction_mm, np.sort(apart.min(axis=1)), atol=1e-12)
    assert np.allclose(mine.reference_mm, np.sort(apart.min(axis=0)), atol=1e-12)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.5, 1.0)])
def test_concentric_balls_lie_the_difference_of_their_radii_apart(
    spacing_mm: tuple[float, ...],
) -> None:
    shape = tuple(int(44 / s) for s in spacing_mm)
    geometry = on_grid(shape, spacing_mm)
    distances = measure_surfaces(ball(geometry, 12), ball(geometry, 20), geometry=geometry)
    # A surface on a grid is known to about half a voxel's diagonal at either end.
    for measured in (distances.hausdorff_mm(), distances.hausdorff_mm(95), distances.average_mm):
        assert measured == pytest.approx(8, abs=float(np.linalg.norm(spacing_mm)))
    assert distances.surface_dice(10) == 1
    assert distances.surface_dice(6) == 0


def test_area_of_a_box_is_its_faces_less_bevelled_edges_and_corners() -> None:
    geometry = on_grid((10, 10, 10), (1.0, 2.0, 3.0))
    box = np.zeros(geometry.shape, dtype=bool)
    box[2:6, 2:7, 2:8] = True
    measured = measure_surfaces(box, box, geometry=geometry).prediction_area.sum()
    ni, nj, nk = 3, 4, 5
    faces = 2 * (nj * nk * 6 + ni * nk * 3 + ni * nj * 2)
    bevels = 4 * (
        ni * 1 * np.hypot(1, 1.5) + nj * 2 * np.hypot(0.5, 1.5) + nk * 3 * np.hypot(0.5, 1)
    )
    corner = np.linalg.norm([2 * 3, 1 * 3, 1 * 2]) / 8
    assert measured == pytest.approx(faces + bevels + 8 * corner)


def test_scores_do_not_change_when_the_grid_is_turned_in_space(rng: np.random.Generator) -> None:
    prediction, reference = blobs(rng, (12, 10, 8)), blobs(rng, (12, 10, 8))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 1.3, 3.1])
    affine[:3, 3] = (-120, 33, 700)
    straight = measure_surfaces(
        prediction, reference, geometry=on_grid((12, 10, 8), (0.7, 1.3, 3.1))
    )
    oblique = measure_surfaces(prediction, reference, geometry=Geometry((12, 10, 8), affine))
    assert np.allclose(straight.prediction_mm, oblique.prediction_mm, atol=1e-9)
    assert straight.surface_dice(1.3) == pytest.approx(oblique.surface_dice(1.3), abs=1e-12)
    assert straight.hausdorff_mm(95) == pytest.approx(oblique.hausdorff_mm(95), abs=1e-9)


def test_distances_on_a_sheared_grid_are_those_in_the_patient() -> None:
    affine = np.eye(4)
    affine[1, 2] = 0.5
    geometry = Geometry((5, 5, 9), affine)
    prediction = np.zeros(geometry.shape, dtype=bool)
    reference = prediction.copy()
    prediction[2, 2, 1] = reference[2, 2, 5] = True
    # Four slices up the corners lie 4 mm higher and 2 mm further back; the nearest ones of the
    # two voxels are three slices and one row closer.
    distances = measure_surfaces(prediction, reference, geometry=geometry)
    assert distances.prediction_mm[0] == pytest.approx(np.hypot(3, 0.5))


def test_a_distance_equal_to_the_tolerance_is_within_it_whatever_the_round_off() -> None:
    for spacing in (0.1, 0.7, 1.1, float(np.float32(0.9)), 1 / 3):
        geometry = on_grid((12, 6, 6), (spacing, 1.0, 1.0))
        prediction = np.zeros(geometry.shape, dtype=bool)
        reference = prediction.copy()
        prediction[2:8, 2:4, 2:4] = True
        reference[5:11, 2:4, 2:4] = True
        distances = measure_surfaces(prediction, reference, geometry=geometry)
        assert distances.hausdorff_mm() == pytest.approx(3 * spacing)
        assert distances.surface_dice(3 * round(spacing, 7)) == 1


def test_hd95_leaves_out_the_farthest_twentieth_of_the_area() -> None:
    distances = SurfaceDistances(
        prediction_mm=np.arange(1.0, 21.0),
        prediction_area=np.ones(20),
        reference_mm=np.array([0.0]),
        reference_area=np.ones(1),
    )
    assert distances.hausdorff_mm(95) == 19
    assert distances.hausdorff_mm() == 20


def test_empty_masks_have_no_distance_and_a_missed_surface_scores_zero() -> None:
    geometry = on_grid((4, 4, 4))
    empty = np.zeros(geometry.shape, dtype=bool)
    cube = empty.copy()
    cube[1:3, 1:3, 1:3] = True
    for pair in ((empty, cube), (cube, empty)):
        distances = measure_surfaces(*pair, geometry=geometry)
        assert np.isnan([distances.hausdorff_mm(95), distances.average_mm]).all()
        assert distances.surface_dice(100.0) == 0
    both = measure_surfaces(empty, empty, geometry=geometry)
    assert np.isnan([both.hausdorff_mm(), both.average_mm, both.surface_dice(1.0)]).all()


@pytest.mark.slow
def test_scores_of_real_raters_agree_with_the_surface_distance_package(
    shared_data: Callable[[str], Any],
) -> None:
    import SimpleITK

    folder = shared_data("oar_two_raters")
    for organ in ("Brainstem", "Cochlea-Lt", "Parotid-Lt"):
        images = [
            SimpleITK.ReadImage(
                str(folder / rater / "0522c0017" / "segmentations" / f"{organ}.nrrd")
            )
            for rater in ("radiographer", "oncologist")
        ]
        spacing_mm = images[0].GetSpacing()[::-1]
        masks = [SimpleITK.GetArrayFromImage(image) > 0 for image in images]
        mine = measure_surfaces(*masks, geometry=on_grid(masks[0].shape, spacing_mm))
        require_agreement(mine, by_package(*masks, spacing_mm))


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "tolerance_mm"),
    [
        ((40, 40, 20), (0.8, 0.8, 5.0), 1.0),
        ((40, 40, 20), (1.0, 1.0, 1.0), 1.0),
        ((90, 90, 90), (0.05, 0.05, 0.1), 0.2),
        ((90, 90, 1), (1e-4, 1e-4, 1.0), 2e-4),
    ],
)
def test_on_fine_grids_the_tolerance_is_two_voxels(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], tolerance_mm: float
) -> None:
    assert default_tolerance_mm(on_grid(shape, spacing_mm)) == pytest.approx(tolerance_mm)
