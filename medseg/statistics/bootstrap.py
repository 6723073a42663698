"""How sure a mean is: bootstrap intervals over patients.

Bias-corrected and accelerated (BCa) intervals after Efron (J Am Stat Assoc 1987;82:171-185), which
follow the skew that scores near 1 have; the acceleration is estimated by the jackknife. What is
drawn again are clusters (patients): several scans of one patient are not independent.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]

NUM_RESAMPLES = 9999
# Draws held at once while resampling, in three arrays of 40 MB.
_MAX_DRAWS = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and the interval it is thought to lie in.

    Attributes:
        mean: over the defined values; NaN when there are none.
        low, high: ends of the interval; NaN when fewer than two clusters speak.
        num: how many values are defined.
        num_undefined: how many are NaN; they are left out.
    """

    mean: float
    low: float
    high: float
    num: int
    num_undefined: int


def mean_interval(
    values: ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Estimate a mean and its BCa bootstrap interval.

    Args:
        values: N numbers; NaN means undefined.
        rng: draws the resamples.
        level: share of repeated studies whose interval should hold the true mean.
        clusters: whom each value belongs to; None: every value stands for itself.
        num_resamples: how often the clusters are drawn again.

    Raises:
        ValueError: values and clusters of different lengths, or a level outside 0 to 1.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or (clusters is not None and len(clusters) != len(numbers)):
        raise ValueError("expected one row of values, and one cluster a value")
    if not 0 < level < 1:
        raise ValueError(f"level {level}: expected a share between 0 and 1")
    defined = ~np.isnan(numbers)
    num = int(defined.sum())
    num_undefined = len(numbers) - num
    if not num:
        nan = float("nan")
        return Interval(mean=nan, low=nan, high=nan, num=0, num_undefined=num_undefined)
    member = _numbered(clusters, len(numbers))[defined]
    _, member = np.unique(member, return_inverse=True)
    sums = np.asarray(np.bincount(member, weights=numbers[defined]), dtype=np.float64)
    counts = np.asarray(np.bincount(member), dtype=np.float64)
    low, high = _bca(sums, counts, rng=rng, level=level, num_resamples=num_resamples)
    mean = float(sums.sum() / counts.sum())
    return Interval(mean=mean, low=low, high=high, num=num, num_undefined=num_undefined)


def paired_interval(
    a: ArrayLike,
    b: ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Estimate the mean of a - b, value by value, and its interval.

    A pair of which either is NaN is undefined. Arguments and errors are those of `mean_interval`.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} values cannot be paired with {second.size}")
    return mean_interval(
        first - second, rng=rng, level=level, clusters=clusters, num_resamples=num_resamples
    )


def _numbered(clusters: Sequence[Hashable] | None, num: int) -> NDArray[np.int64]:
    """Number the clusters in the order they come in, whatever they are named by."""
    if clusters is None:
        return np.arange(num)
    number_of = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    return np.array([number_of[name] for name in clusters], dtype=np.int64)


def _bca(
    sums: Floats, counts: Floats, *, rng: np.random.Generator, level: float, num_resamples: int
) -> tuple[float, float]:
    """Ends of the interval of the ratio of two sums, drawn by cluster."""
    if len(sums) < 2:
        return float("nan"), float("nan")
    mean = sums.sum() / counts.sum()
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    influence = left_out.mean() - left_out
    scale = (influence**2).sum()
    # Means that are equal up to round-off have no spread to resample.
    if scale <= (1e-12 * max(1.0, abs(mean))) ** 2:
        return float(mean), float(mean)
    acceleration = (influence**3).sum() / (6 * scale**1.5)
    replicates = _resample(sums, counts, rng, num_resamples)
    below = ((replicates < mean).mean() + (replicates <= mean).mean()) / 2
    # With few clusters all replicates may fall on one side; the correction stays finite.
    bias = ndtri(np.clip(below, 0.5 / num_resamples, 1 - 0.5 / num_resamples))
    z = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(replicates, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def _resample(sums: Floats, counts: Floats, rng: np.random.Generator, num: int) -> Floats:
    """Means of clusters drawn with replacement, `num` of them."""
    size = len(sums)
    batch = max(1, _MAX_DRAWS // size)
    means = []
    for start in range(0, num, batch):
        drawn = rng.integers(size, size=(min(batch, num - start), size))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
