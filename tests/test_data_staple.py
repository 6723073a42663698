"""STAPLE against its own formulas voxel by voxel, against ITK, and where the answer is known."""

import numpy as np
import pytest
import SimpleITK

from medseg.data.staple import estimate, staple


def voxelwise(maps, num_labels, *, steps=2000):
    """Expectation maximisation as published, one voxel at a time in place of one pattern."""
    said = np.stack([one.ravel() for one in maps])
    num_raters, num_vox = said.shape
    prior = np.array([(said == label).mean() for label in range(num_labels)])
    weight = np.array([(said == label).mean(axis=0) for label in range(num_labels)])
    for _ in range(steps):
        performance = np.zeros((num_raters, num_labels, num_labels))
        for rater in range(num_raters):
            for voxel in range(num_vox):
                performance[rater, said[rater, voxel]] += weight[:, voxel]
        performance /= weight.sum(axis=1)
        before = weight
        weight = np.empty_like(before)
        for voxel in range(num_vox):
            weight[:, voxel] = prior
            for rater in range(num_raters):
                weight[:, voxel] *= performance[rater, said[rater, voxel]]
            weight[:, voxel] /= weight[:, voxel].sum()
        if np.abs(weight - before).max() < 1e-9:
            break
    return weight, performance


def raters(rng, *, num_labels, errors, shape=(6, 7, 5)):
    """Raters who each get a share of the voxels of one truth wrong."""
    truth = rng.integers(0, num_labels, shape).astype(np.uint8)
    truth[0, 0, 0] = truth[-1, -1, -1] = 1
    maps = []
    for share in errors:
        wrong = (truth + rng.integers(1, num_labels, shape)) % num_labels
        map_IJK = np.where(rng.random(shape) < share, wrong, truth).astype(np.uint8)
        # The marks reach both corners, so that the box of all marks is the whole grid.
        map_IJK[0, 0, 0] = map_IJK[-1, -1, -1] = 1
        maps.append(map_IJK)
    return truth, maps


@pytest.mark.parametrize("num_labels", [2, 3])
def test_patterns_give_what_the_formulas_give_voxel_by_voxel(rng, num_labels):
    _, maps = raters(rng, num_labels=num_labels, errors=(0.05, 0.1, 0.3), shape=(4, 3, 3))
    weight, performance = voxelwise(maps, num_labels)
    said = np.stack([one.ravel() for one in maps], axis=1)
    posterior, labels, found = estimate(said, np.ones(len(said)))
    assert labels.tolist() == list(range(num_labels))
    assert np.abs(posterior.T - weight).max() < 1e-3
    assert np.abs(found - performance).max() < 1e-3
    assert np.array_equal(staple(maps).ravel(), weight.argmax(axis=0))


@pytest.mark.parametrize(
    ("num_labels", "errors"), [(2, (0.05, 0.1, 0.2)), (4, (0.1, 0.15, 0.3, 0.4))]
)
def test_itk_comes_to_the_same_labels(rng, num_labels, errors):
    _, maps = raters(rng, num_labels=num_labels, errors=errors, shape=(12, 11, 10))
    fuse = SimpleITK.MultiLabelSTAPLEImageFilter()
    fuse.SetLabelForUndecidedPixels(99)
    fuse.SetTerminationUpdateThreshold(1e-7)
    theirs = fuse.Execute([SimpleITK.GetImageFromArray(one) for one in maps])
    assert np.array_equal(staple(maps), SimpleITK.GetArrayFromImage(theirs))


def test_two_good_raters_outweigh_three_careless_ones(rng):
    # Three raters who guess would win a vote now and then; STAPLE learns that they guess.
    truth, maps = raters(
        rng, num_labels=2, errors=(0.02, 0.02, 0.45, 0.45, 0.45), shape=(14, 14, 14)
    )
    vote = (np.sum(maps, axis=0) > 2).astype(np.uint8)
    assert (staple(maps) != truth).mean() < 0.03 < (vote != truth).mean()


def test_the_performance_is_how_often_each_rater_is_right(rng):
    errors = (0.03, 0.1, 0.25)
    _, maps = raters(rng, num_labels=2, errors=errors, shape=(30, 30, 30))
    said = np.stack([one.ravel() for one in maps], axis=1)
    _, _, performance = estimate(said, np.ones(len(said)))
    for rater, share in enumerate(errors):
        assert np.diag(performance[rater]) == pytest.approx(1 - share, abs=0.02)
        assert performance[rater].sum(axis=0) == pytest.approx(1)


def test_air_around_the_marks_and_the_order_of_the_raters_change_nothing(rng):
    _, maps = raters(rng, num_labels=3, errors=(0.1, 0.2, 0.3))
    inside = staple(maps)
    padded = staple([np.pad(one, 9) for one in maps])
    assert np.array_equal(padded[9:-9, 9:-9, 9:-9], inside)
    assert np.count_nonzero(padded) == np.count_nonzero(inside)
    assert np.array_equal(staple(maps[::-1]), inside)


@pytest.mark.parametrize("value", [0, 3])
def test_where_all_agree_nothing_is_estimated(value):
    maps = [np.full((3, 2, 2), value, np.uint16)] * 3
    fused = staple(maps)
    assert fused.dtype == np.uint16
    assert (fused == value).all()
