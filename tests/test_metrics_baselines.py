"""Threshold baselines: they find what a threshold can find, and nothing else."""

import numpy as np
import pytest
import SimpleITK

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.data.anatomy import LABELS
from medseg.data.phantoms import make_phantom
from medseg.metrics.baselines import Window, fit_window, otsu_threshold, window_dice
from medseg.metrics.overlap import measure_overlap

GRID = Geometry((24, 20, 16), np.diag([1.0, 2.0, 3.0, 1.0]))


def scan_with(mask: np.ndarray, rng: np.random.Generator, inside: float) -> Volume:
    voxels = rng.normal(0, 5, size=GRID.shape) + inside * mask
    return Volume(voxels[None].astype(np.float32), GRID)


def block(low: int, high: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[low:high, 5:15, 4:12] = True
    return mask


def test_a_bright_block_is_found_by_the_window_fitted_to_others(rng):
    known = [block(4, 12), block(8, 18)]
    window = fit_window([scan_with(mask, rng, 100) for mask in known], known)
    found = window.segment(scan_with(block(6, 15), rng, 100))
    assert measure_overlap(found, block(6, 15)).dice > 0.97


def test_the_largest_piece_is_kept_only_where_that_helps(rng):
    both = block(2, 6) | block(10, 22)
    scan = scan_with(both, rng, 100)
    assert fit_window([scan], [block(10, 22)]).largest_only
    assert not fit_window([scan], [both]).largest_only


def test_an_empty_window_gives_an_empty_mask():
    scan = Volume(np.zeros((1, *GRID.shape), dtype=np.int16), GRID)
    window = Window(low=5, high=6, smoothing_mm=0.0, largest_only=True)
    assert not window.segment(scan).any()


def test_smoothing_is_as_wide_in_mm_along_every_axis():
    point = np.zeros((1, *GRID.shape), dtype=np.float32)
    point[0, 12, 10, 8] = 1000
    peak = Window(low=0.5, high=1e4, smoothing_mm=3.0, largest_only=False)
    i, j, k = np.nonzero(peak.segment(Volume(point, GRID)))
    reach_mm = [np.ptp(axis) / 2 * step for axis, step in zip((i, j, k), (1, 2, 3), strict=True)]
    assert max(reach_mm) - min(reach_mm) <= 3


def test_no_window_finds_the_organs_of_a_phantom():
    drawn = [make_phantom(np.random.default_rng(seed), shape=(64, 64, 30)) for seed in range(3)]
    cases = [(case.image, case.label_map) for case in drawn]
    dice = window_dice(cases[:2], cases[2:], labels=LABELS)
    assert tuple(dice) == LABELS.names
    assert np.mean(list(dice.values())) < 0.5


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_otsu_agrees_with_simpleitk(rng, share):
    bright = rng.random(20_000) < share
    voxels = np.where(bright, rng.normal(180, 12, 20_000), rng.normal(60, 20, 20_000))
    image = SimpleITK.GetImageFromArray(voxels.reshape(100, 200).astype(np.float32))
    oracle = SimpleITK.OtsuThresholdImageFilter()
    oracle.SetNumberOfHistogramBins(256)
    oracle.Execute(image)
    # Both cut at an edge of a bin; they may differ in which edge of an empty stretch they name.
    ours = voxels > otsu_threshold(voxels)
    assert (ours != (voxels > oracle.GetThreshold())).mean() < 0.005


def test_otsu_of_one_intensity_finds_nothing_bright():
    voxels = np.full((4, 4), 7)
    assert not (voxels > otsu_threshold(voxels)).any()
