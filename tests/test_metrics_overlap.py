"""Overlap against closed forms and sets."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg.metrics.overlap import measure_overlap

MASKS = arrays(np.bool_, (3, 4, 2))


def test_a_cube_shifted_by_half_shares_half_of_its_dice() -> None:
    prediction = np.zeros((8, 4, 4), dtype=bool)
    reference = prediction.copy()
    prediction[0:4] = True
    reference[2:6] = True
    overlap = measure_overlap(prediction, reference)
    assert overlap.dice == 0.5
    assert overlap.iou == 1 / 3
    assert overlap.error_vox == 0


@given(MASKS, MASKS)
def test_dice_and_iou_are_those_of_sets(
    prediction: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    reference: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> None:
    p = {tuple(at) for at in np.argwhere(prediction).tolist()}
    r = {tuple(at) for at in np.argwhere(reference).tolist()}
    overlap = measure_overlap(prediction, reference)
    if not p | r:
        assert math.isnan(overlap.dice)
        assert math.isnan(overlap.iou)
    else:
        assert math.isclose(overlap.dice, 2 * len(p & r) / (len(p) + len(r)))
        assert math.isclose(overlap.iou, len(p & r) / len(p | r))
    assert overlap.error_vox == len(p) - len(r)


@given(st.integers(1, 24))
def test_one_empty_mask_is_a_complete_miss(num: int) -> None:
    mask = np.arange(24).reshape(2, 3, 4) < num
    for pair in ((mask, mask & False), (mask & False, mask)):
        assert measure_overlap(*pair).dice == 0
        assert measure_overlap(*pair).iou == 0
