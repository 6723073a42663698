"""What a threshold alone would score: the yardstick beside the scores of a trained network."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.labels import LabelMap, LabelSet
from medseg.core.volume import Volume
from medseg.metrics.overlap import Mask, measure_overlap

Voxels = NDArray[Any]
# A scan of one channel, and the indices (I, J, K) of its reference.
Labelled = tuple[Volume, LabelMap]

# What is tried for a class: ends of the window as percentiles of the class itself, widths of a
# Gaussian that quietens the noise first, and dropping all but the largest piece.
_LOW_PERCENT = (1, 5, 10, 20, 35)
_HIGH_PERCENT = (65, 80, 90, 95, 99)
_SMOOTHING_MM = (0.0, 1.5, 3.0)
_OTSU_BINS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A class told by its intensities alone.

    Attributes:
        low, high: intensities of the class, both ends included.
        smoothing_mm: sigma of the Gaussian that a scan is smoothed with first.
        largest_only: keep the largest piece (voxels joined by faces) and drop the rest.
    """

    low: float
    high: float
    smoothing_mm: float
    largest_only: bool

    def segment(self, scan: Volume) -> Mask:
        """Return the mask (I, J, K) of a scan of one channel."""
        return self.pick(_smooth(scan, self.smoothing_mm))

    def pick(self, smooth: Voxels) -> Mask:
        """Return the mask of voxels (I, J, K) that are smoothed already."""
        mask = np.asarray((smooth >= self.low) & (smooth <= self.high))
        return _largest_piece(mask) if self.largest_only else mask


def fit_window(scans: Sequence[Volume], references: Sequence[Mask]) -> Window:
    """Choose the window with the best mean Dice on scans whose reference is known.

    Args:
        scans: of one channel each.
        references: masks (I, J, K) of the class, on the grids of the scans; not all of them empty.
    """
    tried: list[tuple[float, Window]] = []
    for smoothing_mm in _SMOOTHING_MM:
        smooth = [_smooth(scan, smoothing_mm) for scan in scans]
        inside = np.concatenate([v[mask] for v, mask in zip(smooth, references, strict=True)])
        lows, highs = np.percentile(inside, _LOW_PERCENT), np.percentile(inside, _HIGH_PERCENT)
        for low, high, largest_only in product(lows, highs, (False, True)):
            window = Window(
                low=float(low),
                high=float(high),
                smoothing_mm=smoothing_mm,
                largest_only=largest_only,
            )
            tried.append((_mean_dice(window, smooth, references), window))
    return max(tried, key=itemgetter(0))[1]


def window_dice(
    known: Sequence[Labelled], unseen: Sequence[Labelled], *, labels: LabelSet
) -> dict[str, float]:
    """Return, for each class, the mean Dice of its best window on scans it was not fitted to.

    Args:
        known: scans that the windows are fitted to.
        unseen: scans that they are measured on.
        labels: the classes.
    """
    means = {}
    for index, name in enumerate(labels.names, start=1):
        masks = [label_map == index for _, label_map in known]
        window = fit_window([scan for scan, _ in known], masks)
        dice = [
            measure_overlap(window.segment(scan), label_map == index).dice
            for scan, label_map in unseen
        ]
        means[name] = float(np.nanmean(dice))
    return means


def otsu_threshold(voxels: Voxels) -> float:
    """Return the intensity that parts two groups best (Otsu, IEEE Trans. SMC 1979).

    The variance between both groups is largest there; voxels above the threshold are the bright
    group. In an image of one intensity no voxel lies above it.
    """
    if voxels.min() == voxels.max():
        return float(voxels.max())
    counts, edges = np.histogram(voxels, bins=_OTSU_BINS)
    middle = (edges[:-1] + edges[1:]) / 2
    num_dark = np.cumsum(counts)[:-1]
    num_bright = counts.sum() - num_dark
    sum_dark = np.cumsum(counts * middle)[:-1]
    sum_bright = (counts * middle).sum() - sum_dark
    # The outer bins are never empty, and so neither is a group.
    apart = sum_bright / num_bright - sum_dark / num_dark
    return float(edges[1:-1][np.argmax(num_dark * num_bright * apart**2)])


def _mean_dice(window: Window, smooth: Sequence[Voxels], references: Sequence[Mask]) -> float:
    dice = [
        measure_overlap(window.pick(voxels), reference).dice
        for voxels, reference in zip(smooth, references, strict=True)
    ]
    return float(np.nanmean(dice))


def _smooth(scan: Volume, sigma_mm: float) -> Voxels:
    voxels = scan.only_channel.astype(np.float32)
    sigma_vox = [sigma_mm / spacing_mm for spacing_mm in scan.geometry.spacing_mm]
    return np.asarray(ndimage.gaussian_filter(voxels, sigma_vox))


def _largest_piece(mask: Mask) -> Mask:
    pieces, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())
