"""STAPLE: the label map that several raters most likely meant, and how far each can be trusted.

Simultaneous truth and performance level estimation (Warfield, Zou and Wells, IEEE TMI 2004), with a
confusion matrix a rater for several classes (Rohlfing, Russakoff and Maurer, IEEE TMI 2004).

Axes: P pattern (what the raters said of a voxel, each pattern once), R rater, L label.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.labels import LabelMap

_MAX_STEPS = 500
# Performances that change by less have converged (ITK's default is 1e-5).
_TOLERANCE = 1e-6
_TINY = np.finfo(np.float64).tiny


def staple(label_maps_IJK: Sequence[LabelMap]) -> LabelMap:
    """Give every voxel the index that is most probable, given how each rater performs.

    Only the box that holds all marks is looked at, so that the air around a patient, on which all
    agree, changes nothing. A voxel outside it is background; of equally probable indices the lowest
    is taken.

    Args:
        label_maps_IJK: one map of indices a rater, all of one shape.

    Returns:
        Indices of that shape, in the type of the first map.
    """
    first = label_maps_IJK[0]
    marked = np.logical_or.reduce([one > 0 for one in label_maps_IJK])
    agreed = np.logical_and.reduce([one == first for one in label_maps_IJK])
    fused = np.where(agreed, first, 0).astype(first.dtype)
    boxes = ndimage.find_objects(marked.astype(np.uint8))
    if agreed.all() or not boxes:
        return fused
    inside = boxes[0]
    disputed = ~agreed[inside]
    said_PR, which, counts = np.unique(
        np.stack([one[inside][disputed] for one in label_maps_IJK], axis=1),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    same, num_same = np.unique(first[inside][~disputed], return_counts=True)
    posterior_PL, labels, _ = estimate(
        np.concatenate([said_PR, np.repeat(same[:, None], len(label_maps_IJK), axis=1)]),
        np.concatenate([counts, num_same]),
    )
    best_P = labels[posterior_PL.argmax(axis=1)]
    fused[inside][disputed] = best_P[which.reshape(-1)]
    return fused


def estimate(
    said_PR: NDArray[Any], counts_P: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64]]:
    """Run expectation maximisation over patterns; voxels of one pattern share one posterior.

    The prior of a label is its share of all that the raters said, and stays fixed; the first
    posterior is the share of votes.

    Args:
        said_PR: the label each rater gave.
        counts_P: voxels of each pattern.

    Returns:
        Posterior (P, L) of every label in a pattern, the labels (L), and the performance (R, L, L):
        how probable it is that a rater says the second-axis label where the third-axis one is true.
    """
    labels, told = np.unique(said_PR, return_inverse=True)
    told_PR = told.reshape(said_PR.shape)
    # Which rater said what, as numbers: (R, L, P).
    voted_RLP = (told_PR.T[:, None, :] == np.arange(len(labels))[None, :, None]).astype(np.float64)
    weight_P = counts_P / counts_P.sum()
    prior_L = (voted_RLP * weight_P).sum(axis=2).mean(axis=0)
    posterior_PL = voted_RLP.mean(axis=0).T
    performance_RLL = _performance(voted_RLP, posterior_PL, weight_P)
    for _ in range(_MAX_STEPS):
        log_PL = np.log(np.maximum(prior_L, _TINY)) + np.einsum(
            "rdp,rds->ps", voted_RLP, np.log(np.maximum(performance_RLL, _TINY))
        )
        posterior_PL = np.exp(log_PL - log_PL.max(axis=1, keepdims=True))
        posterior_PL /= posterior_PL.sum(axis=1, keepdims=True)
        before, performance_RLL = (
            performance_RLL,
            _performance(voted_RLP, posterior_PL, weight_P),
        )
        if np.abs(performance_RLL - before).max() < _TOLERANCE:
            break
    return posterior_PL, labels, performance_RLL


def _performance(
    voted_RLP: NDArray[np.float64],
    posterior_PL: NDArray[np.float64],
    weight_P: NDArray[np.float64],
) -> NDArray[np.float64]:
    true_PL = posterior_PL * weight_P[:, None]
    return np.asarray((voted_RLP @ true_PL) / np.maximum(true_PL.sum(axis=0), _TINY))
