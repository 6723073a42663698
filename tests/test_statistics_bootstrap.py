"""Bootstrap intervals against SciPy, closed forms, and a distribution whose mean is known."""

import math

import numpy as np
import pytest
from scipy import stats

from medseg.statistics.bootstrap import mean_interval, paired_interval


def test_intervals_are_those_of_scipy_up_to_chance(rng: np.random.Generator) -> None:
    values = rng.beta(8, 2, size=30)
    mine = mean_interval(values, rng=rng, num_resamples=40_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert mine.mean == pytest.approx(values.mean())
    # The ends of 40 000 resamples are known to about 2 % of the interval's width.
    width = theirs.high - theirs.low
    assert mine.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert mine.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_clustered_intervals_are_those_of_scipy_on_sums_and_counts(
    rng: np.random.Generator,
) -> None:
    counts = rng.integers(1, 5, size=25)
    patients = np.repeat(np.arange(25), counts)
    values = rng.normal(size=25)[patients] + 0.2 * rng.normal(size=len(patients))
    sums = np.bincount(patients, weights=values)
    theirs = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis=-1: s.sum(axis) / c.sum(axis),
        paired=True,
        n_resamples=40_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    mine = mean_interval(
        values, rng=rng, clusters=[f"patient {n}" for n in patients], num_resamples=40_000
    )
    width = theirs.high - theirs.low
    assert mine.mean == pytest.approx(values.mean())
    assert mine.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert mine.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_copies_of_a_patient_do_not_narrow_the_interval(rng: np.random.Generator) -> None:
    values = rng.normal(size=20)
    once = mean_interval(values, rng=np.random.default_rng(3))
    copied = mean_interval(
        np.repeat(values, 5),
        clusters=np.repeat(range(20), 5).tolist(),
        rng=np.random.default_rng(3),
    )
    assert copied.low == pytest.approx(once.low)
    assert copied.high == pytest.approx(once.high)
    assert (once.num, copied.num) == (20, 100)


def test_equal_values_give_an_interval_without_width(rng: np.random.Generator) -> None:
    found = mean_interval([0.1 + 0.2] * 7, rng=rng)
    assert found.low == found.high == found.mean == pytest.approx(0.3)


def test_undefined_values_are_left_out_and_counted(rng: np.random.Generator) -> None:
    nan = float("nan")
    found = mean_interval([1.0, nan, 3.0, nan], clusters=["a", "a", "b", "c"], rng=rng)
    assert (found.mean, found.num, found.num_undefined) == (2, 2, 2)
    assert 1 <= found.low <= found.high <= 3


@pytest.mark.parametrize(
    ("values", "clusters"),
    [([0.7], ["a"]), ([0.7, 0.9], ["a", "a"]), ([], []), ([math.nan], ["a"])],
)
def test_one_patient_or_none_has_no_interval(
    rng: np.random.Generator, values: list[float], clusters: list[str]
) -> None:
    found = mean_interval(values, clusters=clusters, rng=rng)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.mean) == (not found.num)


def test_the_same_generator_gives_the_same_interval() -> None:
    values = np.linspace(0.2, 0.9, 12)
    first, second = (mean_interval(values, rng=np.random.default_rng(5)) for _ in range(2))
    assert first == second


def test_a_paired_difference_is_the_mean_of_differences(rng: np.random.Generator) -> None:
    difficulty = rng.normal(size=40)
    better, worse = difficulty + 0.1 + 0.01 * rng.normal(size=40), difficulty
    found = paired_interval(better, worse, rng=rng)
    assert found.mean == pytest.approx((better - worse).mean())
    assert 0.09 < found.low < 0.1 < found.high < 0.11


def test_lists_that_cannot_be_paired_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_interval([1.0, 2.0], [1.0], rng=rng)
    with pytest.raises(ValueError, match="cluster"):
        mean_interval([1.0, 2.0], clusters=["a"], rng=rng)


@pytest.mark.slow
def test_nineteen_of_twenty_intervals_hold_the_true_mean(rng: np.random.Generator) -> None:
    studies = rng.beta(8, 2, size=(1000, 40))
    held = 0
    for values in studies:
        found = mean_interval(values, rng=rng, num_resamples=1000)
        held += found.low <= 0.8 <= found.high
    # 950 expected, 7 the standard error; the bootstrap is a little short at 40 patients.
    assert 915 <= held <= 975
