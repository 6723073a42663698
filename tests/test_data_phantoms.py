"""Phantoms look like patients: where organs lie, how they overlap, and where the tumour is."""

import numpy as np
import pytest
from pydicom.sr.codedict import codes
from scipy import ndimage

from medseg.core.errors import GeometryError
from medseg.data.anatomy import ABDOMEN, LABELS, Ellipsoid
from medseg.data.phantoms import AXIAL, ORIENTATIONS, Lesions, Phantom, make_phantom

TUMOUR = len(LABELS)


def phantom(seed: int = 0, **settings) -> Phantom:
    return make_phantom(np.random.default_rng(seed), **settings)


def centre_mm(made: Phantom, name: str) -> np.ndarray:
    index = np.argwhere(made.label_map == LABELS.names.index(name) + 1)
    return made.image.geometry.to_world(index.astype(float)).mean(axis=0)


def test_the_same_seed_makes_the_same_patient_and_another_seed_another():
    first, second, other = phantom(1), phantom(1), phantom(2)
    assert np.array_equal(first.image.voxels, second.image.voxels)
    assert first.image.geometry.matches(second.image.geometry)
    assert not np.allclose(first.image.geometry.affine, other.image.geometry.affine)


def test_there_are_48_orientations_and_the_axial_ones_are_right_handed():
    assert len(set(ORIENTATIONS)) == 48
    for stored in AXIAL:
        grid = phantom(orientation=stored, shape=(24, 24, 12), lesions=Lesions(count=0))
        assert grid.image.geometry.orientation == stored
        assert np.linalg.det(grid.image.geometry.direction) > 0.99


@pytest.mark.parametrize("stored", ORIENTATIONS[::5])
def test_organs_lie_where_they_belong_however_the_grid_is_stored(stored):
    made = phantom(3, orientation=stored, shape=(64, 64, 40))
    assert made.image.geometry.orientation == stored
    assert centre_mm(made, "liver")[0] > centre_mm(made, "spleen")[0] + 30
    assert centre_mm(made, "right_kidney")[0] > centre_mm(made, "left_kidney")[0] + 30
    for kidney in ("right_kidney", "left_kidney"):
        assert centre_mm(made, kidney)[2] < centre_mm(made, "liver")[2]
        assert centre_mm(made, kidney)[1] < centre_mm(made, "liver")[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_patient_has_every_class_in_a_small_childs_size(seed):
    made = phantom(seed)
    vox = np.bincount(made.label_map.ravel(), minlength=TUMOUR + 1)
    volume_ml = dict(zip(LABELS.names, vox[1:] * made.image.geometry.voxel_ml, strict=True))
    assert 100 < volume_ml["liver"] < 400
    assert 15 < volume_ml["spleen"] < 80
    assert 10 < volume_ml["left_kidney"] < 60
    assert 10 < volume_ml["right_kidney"] < 60
    assert 1 < volume_ml["tumour"] < 7


def test_hounsfield_units_are_those_of_air_lung_fat_and_bone():
    hu = phantom(orientation="RAS").image.only_channel
    assert hu.dtype == np.int16
    assert hu.min() >= -1024
    assert abs(int(hu[0, 0].mean()) + 1000) < 30
    assert np.percentile(hu, 99.5) > 200
    assert ((hu > -140) & (hu < -60)).mean() > 0.05


def test_no_threshold_separates_the_organs():
    for seed in range(3):
        made = phantom(seed)
        hu = made.image.only_channel
        values = [hu[made.label_map == n] for n in range(1, TUMOUR)]
        for n, one in enumerate(values):
            others = np.concatenate(values[:n] + values[n + 1 :])
            low, high = np.percentile(one, (5, 95))
            assert ((others > low) & (others < high)).mean() > 0.3


def test_spacing_is_anisotropic_oblique_and_differs_between_patients():
    grids = [phantom(seed, orientation="LPS").image.geometry for seed in range(4)]
    for grid in grids:
        i, j, k = grid.spacing_mm
        assert i == pytest.approx(j)
        assert 1.5 <= i <= 2.0
        assert 3.0 <= k <= 5.0
        assert np.abs(np.abs(grid.direction) - np.eye(3)).max() > 0.01
    assert len({round(grid.spacing_mm[0], 6) for grid in grids}) == 4


def test_a_tumour_touches_nothing_but_its_liver():
    liver = LABELS.names.index("liver") + 1
    for seed in range(3):
        label_map = phantom(seed).label_map
        shell = ndimage.binary_dilation(label_map == TUMOUR) & (label_map != TUMOUR)
        assert set(np.unique(label_map[shell])) == {liver}


@pytest.mark.parametrize("count", [0, 1, 8, 20])
def test_as_many_separate_lesions_as_asked_for(count):
    made = phantom(5, lesions=Lesions(count=count, radius_mm=(1.5, 2.5)))
    _, found = ndimage.label(made.label_map == TUMOUR)
    assert found == count


def test_small_lesions_fill_a_ten_thousandth_of_the_scan():
    share = [
        (phantom(seed, lesions=Lesions(count=8, radius_mm=(1.5, 2.5))).label_map == TUMOUR).mean()
        for seed in range(3)
    ]
    assert 0.5e-4 < np.mean(share) < 2e-4


def test_lesions_without_room_are_refused():
    with pytest.raises(GeometryError, match="no room left"):
        phantom(lesions=Lesions(radius_mm=(60, 60)))
    with pytest.raises(GeometryError, match="smaller and a larger radius"):
        Lesions(radius_mm=(3, 2))


def test_an_orientation_or_contrast_that_is_none_is_refused():
    with pytest.raises(GeometryError, match="expected one such as RAS"):
        phantom(orientation="RAX")
    with pytest.raises(GeometryError, match="expected one of"):
        phantom(contrast="US")


def test_a_2d_phantom_has_one_slice_whatever_its_orientation():
    for seed in range(4):
        made = phantom(seed, shape=(96, 80, 1), lesions=Lesions(count=0))
        assert made.image.geometry.shape in ((96, 80, 1), (80, 96, 1))
        assert {1, 3} & set(np.unique(made.label_map))


def test_in_mr_fat_is_bright_and_air_is_noise_above_zero():
    made = phantom(4, contrast="MR", orientation="RAS")
    values = made.image.only_channel
    assert made.image.channels == ("MR",)
    assert values.min() >= 0
    assert 5 < np.median(values[:, :3]) < 100
    assert np.percentile(values, 99) > 1.2 * values[made.label_map == 1].mean()


def test_distance_to_a_sphere_is_its_closed_form():
    ball = Ellipsoid(tissue="liver", centre_mm=(1, 2, 3), radii_mm=(10, 10, 10))
    points = np.random.default_rng(0).uniform(-20, 20, size=(3, 500)).astype(np.float32)
    exact = np.linalg.norm(points - np.array([[1], [2], [3]]), axis=0) - 10
    assert np.abs(ball.distance_mm(points) - exact).max() < 1e-3


def test_distance_to_an_ellipsoid_is_right_near_its_surface():
    radii = np.array([10.0, 20.0, 30.0])
    way = np.random.default_rng(0).normal(size=(200, 3))
    on = radii * way / np.linalg.norm(way, axis=1, keepdims=True)
    normal = on / radii**2
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    shape = Ellipsoid(tissue="liver", centre_mm=(0, 0, 0), radii_mm=tuple(radii))
    for step_mm in (-0.5, 0.0, 0.5):
        points = (on + step_mm * normal).T.astype(np.float32)
        assert np.abs(shape.distance_mm(points) - step_mm).max() < 0.05


def test_ribs_end_above_the_belly():
    ribs = ABDOMEN[2]
    x, z = np.full(200, 67.0), np.linspace(-100, 80, 200)
    inside = ribs.distance_mm(np.stack([x, np.zeros(200), z]).astype(np.float32)) < 0
    assert inside[z > 0].any()
    assert not inside[z < -20].any()


def test_storedare_those_that_pydicom_lists_and_only_the_kidneys_swap_in_a_mirror():
    known = {
        "liver": codes.SCT.Liver,
        "spleen": codes.SCT.Spleen,
        "tumour": codes.SCT.Neoplasm,
    }
    by_name = {label.name: label.code for label in LABELS.labels}
    for name, term in known.items():
        assert (by_name[name].value, by_name[name].scheme) == (term.value, "SCT")
        assert by_name[name].meaning == term.meaning
    assert LABELS.mirror_order == (0, 1, 2, 4, 3, 5)
