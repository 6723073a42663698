"""One label map out of several: masks a class merged, raters' maps voted on or weighed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.labels import LabelMap
from medseg.data.case import Case
from medseg.data.staple import staple

# How several raters' maps become one: by vote; by STAPLE; or by vote for scores, while training
# sees every rater's map in turn, the mean of which is the soft target.
Consensus = Literal["majority", "staple", "soft"]


def consensus_of(label_maps_IJK: Sequence[LabelMap], how: Consensus) -> LabelMap:
    """Make one label map, the reference, of the raters' maps; a single one stays what it is."""
    if len(label_maps_IJK) > 1 and how == "staple":
        return staple(label_maps_IJK)
    return majority(label_maps_IJK)


def training_targets(cases: Sequence[Case], how: Consensus) -> list[Case]:
    """Return what training draws from: the cases, or with `soft` each case once a rater.

    Then every opinion is seen equally often, and the expected gradient of cross-entropy is that of
    the soft target, the mean of the raters (label sampling: Jensen et al., MICCAI 2019).
    """
    if how != "soft":
        return list(cases)
    return [replace(case, labels=(one,), raters=()) for case in cases for one in case.labels]


def merge_masks(
    masks_IJK: Mapping[int, NDArray[Any]],
) -> tuple[LabelMap, dict[tuple[int, int], int]]:
    """Lay binary masks over each other; where several overlap, the last one counts.

    Args:
        masks_IJK: class index -> mask (any value above 0 is inside), all of one shape, in the
            order in which they are laid down.

    Returns:
        Indices (I, J, K), uint8 (uint16 from 255 classes on), and where masks overlapped:
        (index laid down, index it covered) -> voxels.
    """
    shape = next(iter(masks_IJK.values())).shape
    merged = np.zeros(shape, np.uint8 if max(masks_IJK) < 255 else np.uint16)
    overlaps: dict[tuple[int, int], int] = {}
    for index, mask in masks_IJK.items():
        inside = mask > 0
        covered = np.bincount(merged[inside])
        for under in np.flatnonzero(covered[1:]) + 1:
            overlaps[index, int(under)] = int(covered[under])
        merged[inside] = index
    return merged, overlaps


def majority(label_maps_IJK: Sequence[LabelMap]) -> LabelMap:
    """Give every voxel the index that most raters gave it; a tie goes to the lowest index.

    Background is the lowest, so two raters who disagree about a voxel leave it unmarked.

    Args:
        label_maps_IJK: one map of indices a rater, all of one shape.

    Returns:
        Indices of that shape, in the type of the first map.
    """
    first, *others = label_maps_IJK
    if not others:
        return first
    voted = np.zeros_like(first)
    most_votes = np.zeros(first.shape, np.uint8)
    for index in range(max(int(one.max()) for one in label_maps_IJK) + 1):
        votes = np.zeros(first.shape, np.uint8)
        for one in label_maps_IJK:
            votes += one == index
        ahead = votes > most_votes
        voted[ahead] = index
        most_votes[ahead] = votes[ahead]
    return voted
