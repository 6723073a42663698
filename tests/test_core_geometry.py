import copy
import itertools
import json
import pickle

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg.core.errors import GeometryError
from medseg.core.geometry import Geometry, require_match

ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*axes)
]
SHAPE = (3, 4, 5)


def affine_of(codes: str, spacing=(1.0, 2.0, 3.0), origin=(-7.0, 8.0, 90.0)) -> np.ndarray:
    """The affine of a grid whose axes point along the codes, by nibabel's own construction."""
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))
    affine = np.eye(4)
    affine[:3, :3] = np.round(np.linalg.inv(turn)[:3, :3]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def geometry(codes: str = "RAS", shape=SHAPE, **kwargs) -> Geometry:
    return Geometry(shape, affine_of(codes, **kwargs))


angles = st.tuples(*[st.floats(-0.4, 0.4)] * 3)
lengths = st.floats(0.1, 20)
grids = st.builds(
    lambda codes, angle, spacing, origin, shape: Geometry(
        shape,
        nib.affines.from_matvec(
            Rotation.from_rotvec(angle).as_matrix() @ affine_of(codes, spacing)[:3, :3], origin
        ),
    ),
    st.sampled_from(ORIENTATIONS),
    angles,
    st.tuples(lengths, lengths, lengths),
    st.tuples(*[st.floats(-1000, 1000)] * 3),
    st.tuples(*[st.integers(1, 600)] * 3),
)


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_orientation_spacing_and_order_of_axes_agree_with_nibabel(codes: str) -> None:
    grid = geometry(codes)
    assert grid.orientation == codes == "".join(nib.aff2axcodes(grid.affine))
    assert grid.spacing_mm == pytest.approx(nib.affines.voxel_sizes(grid.affine), abs=0)
    assert [("LR", "PA", "IS")[world] for world in range(3)] == [
        next(pair for pair in ("LR", "PA", "IS") if codes[axis] in pair) for axis in grid.axis_order
    ]
    assert grid.voxel_ml == pytest.approx(0.006)


@given(grid=grids)
def test_oblique_grids_keep_the_codes_of_their_nearest_axes(grid: Geometry) -> None:
    assert grid.orientation == "".join(nib.aff2axcodes(grid.affine))
    assert np.allclose(grid.direction.T @ grid.direction, np.eye(3), atol=1e-9)
    assert grid.spacing_mm == pytest.approx(nib.affines.voxel_sizes(grid.affine))


@given(grid=grids, index=st.lists(st.tuples(*[st.floats(-50, 700)] * 3), min_size=1, max_size=5))
def test_world_and_index_are_each_others_inverse_and_agree_with_nibabel(grid, index) -> None:
    points = np.array(index)
    world = grid.to_world(points)
    assert np.allclose(world, nib.affines.apply_affine(grid.affine, points))
    assert np.allclose(grid.to_index(world), points, atol=1e-6)


@given(grid=grids)
def test_corners_are_the_centres_of_the_eight_corner_voxels(grid: Geometry) -> None:
    expected = [
        nib.affines.apply_affine(
            grid.affine, [(n - 1) * end for n, end in zip(grid.shape, ends, strict=True)]
        )
        for ends in itertools.product((0, 1), repeat=3)
    ]
    assert np.allclose(grid.corners, expected)


@given(grid=grids)
def test_json_and_pickle_give_back_the_same_grid_and_it_stays_read_only(grid: Geometry) -> None:
    for other in (
        Geometry.from_json(json.loads(json.dumps(grid.to_json()))),
        pickle.loads(pickle.dumps(grid)),
        copy.deepcopy(grid),
    ):
        assert other.corner_error_mm(grid) == 0
        assert (other.shape, other.unit) == (grid.shape, grid.unit)
        with pytest.raises(ValueError, match="read-only"):
            other.affine[0, 0] = 1


@given(grid=grids, shift=st.tuples(*[st.floats(-5, 5)] * 3))
def test_the_corner_error_of_a_shifted_grid_is_the_length_of_the_shift(grid, shift) -> None:
    moved = grid.affine.copy()
    moved[:3, 3] += shift
    error_mm = Geometry(grid.shape, moved).corner_error_mm(grid)
    assert error_mm == pytest.approx(np.linalg.norm(shift), abs=1e-8)


def test_round_off_matches_and_a_hundredth_of_a_millimetre_does_not() -> None:
    grid = geometry()
    for shift_mm, same in ((1e-6, True), (0.9e-3, True), (1e-2, False)):
        moved = grid.affine.copy()
        moved[2, 3] += shift_mm
        assert Geometry(SHAPE, moved).matches(grid) is same
    assert geometry(shape=(3, 4, 6)).corner_error_mm(grid) == float("inf")


def test_the_affine_a_grid_was_made_from_stays_the_callers() -> None:
    affine = affine_of("LPS")
    grid = Geometry(SHAPE, affine)
    affine[0, 0] = 99
    assert grid.affine[0, 0] == -1


@pytest.mark.parametrize(
    ("shape", "affine", "unit", "told"),
    [
        ((3, 4), np.eye(4), "mm", "three positive"),
        ((3, 4, 0), np.eye(4), "mm", "three positive"),
        ((3, 4, -1), np.eye(4), "mm", "three positive"),
        ((3, 4, 5.5), np.eye(4), "mm", "three positive"),
        (SHAPE, np.eye(3), "mm", "4 x 4"),
        (SHAPE, np.diag([1, 1, 1, 2]), "mm", "last row"),
        (SHAPE, np.diag([1, 1, np.nan, 1]), "mm", "NaN"),
        (SHAPE, np.diag([1, np.inf, 1, 1]), "mm", "infinite"),
        (SHAPE, np.diag([1, 0, 1, 1]), "mm", "singular"),
        (SHAPE, np.diag([1, 1, 1, 1]) + np.diag([1, 0, 0], 1) + np.diag([1, 0, 0], -1), "mm",
         "singular"),
        (SHAPE, np.eye(4), "cm", "mm or px"),
    ],
)  # fmt: skip
def test_a_grid_that_places_nothing_is_refused(shape, affine, unit, told) -> None:
    with pytest.raises(GeometryError, match=told):
        Geometry(shape, affine, unit)


def test_a_gantry_tilt_is_a_grid_like_any_other() -> None:
    tilted = affine_of("LPS")
    tilted[1, 2] = 3 * np.tan(np.deg2rad(25))
    assert Geometry(SHAPE, tilted).voxel_ml == pytest.approx(0.006)


@pytest.mark.parametrize(
    "flips", [f for f in itertools.product((1, -1), repeat=3) if f != (1, 1, 1)]
)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
def test_a_flipped_mask_is_refused_with_the_axes_of_the_flip(codes: str, flips) -> None:
    scan = geometry(codes)
    voxels = np.arange(60, dtype=np.int16).reshape(SHAPE)
    mirrored = nib.Nifti1Image(voxels, scan.affine).as_reoriented(
        np.column_stack([range(3), flips])
    )
    # The same shape and voxels, but the header of the mirrored image.
    mask = Geometry(SHAPE, mirrored.affine)
    axes = "".join(axis for axis, f in zip("ijk", flips, strict=True) if f < 0)
    with pytest.raises(
        GeometryError, match=f"flipped along {axes}$|flipped along {axes};"
    ) as found:
        require_match(mask, scan, name="mask.nii.gz", reference_name="scan.nii.gz")
    assert found.value.code == "GEO-002"
    assert "mask.nii.gz" in str(found.value)
    assert "scan.nii.gz" in str(found.value)


def test_another_shape_is_refused_with_both_shapes_and_the_same_grid_is_not() -> None:
    scan = geometry()
    require_match(geometry(), scan, name="a", reference_name="b")
    with pytest.raises(GeometryError, match="GEO-001 a: 3 x 4 x 6 voxels, but b has 3 x 4 x 5"):
        require_match(geometry(shape=(3, 4, 6)), scan, name="a", reference_name="b")


def test_a_mask_with_other_axes_is_refused_with_both_orientations() -> None:
    cube = (4, 4, 4)
    with pytest.raises(GeometryError, match="orientation PSR against RAS"):
        require_match(geometry("PSR", cube), geometry("RAS", cube), name="a", reference_name="b")
