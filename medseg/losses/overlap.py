"""Overlap of predicted and labelled classes, differentiable.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.losses.comparison import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Soft counts of voxels of each foreground class.

    Attributes:
        both_BL: probability of the class, summed over the voxels labelled so.
        predicted_BL: probability (or its square) summed over all voxels.
        labelled_BL: voxels labelled so.
        counts_BL: False where the class was not annotated; None where all were.
    """

    both_BL: Tensor
    predicted_BL: Tensor
    labelled_BL: Tensor
    counts_BL: Tensor | None

    def mean(self, values_BL: Tensor) -> Tensor:
        """Return the mean over the entries that were annotated, 0 where none was."""
        if self.counts_BL is None:
            return values_BL.mean()
        return torch.where(self.counts_BL, values_BL, 0).sum() / self.counts_BL.sum().clamp(min=1)


def measure_overlap(
    seen: Comparison, *, batch: bool | None = None, squared: bool = False
) -> Overlap:
    """Count overlap over the foreground classes.

    The labels are never expanded to one channel a class: sums over a class are gathered by index.

    Args:
        seen: the batch.
        batch: sum over the scans of the batch (B becomes 1), which steadies small classes. None:
            for slices, many of which lack a class, and not for volumes; as Isensee et al. (Nature
            Methods 2021) do.
        squared: square the probabilities of `predicted_BL` (Milletari et al., 3DV 2016).
    """
    num_scans, num_labels, *grid = seen.logp_BLIJK.shape
    if batch is None:
        batch = len(grid) == 2
    p_BLIJK = seen.logp_BLIJK.exp()
    if squared:
        p_BLIJK = p_BLIJK.square()
    p_of_label_BIJK = seen.logp_of_label_BIJK.exp()
    ones_BIJK = torch.ones_like(p_of_label_BIJK)
    if seen.counted_BIJK is not None:
        p_BLIJK = p_BLIJK * seen.counted_BIJK[:, None]
        p_of_label_BIJK = p_of_label_BIJK * seen.counted_BIJK
        ones_BIJK = ones_BIJK * seen.counted_BIJK
    place = _places(seen.label_BIJK, num_labels)
    zeros = p_BLIJK.new_zeros(num_scans * num_labels)
    sums_BL = (
        zeros.index_add(0, place, p_of_label_BIJK.flatten()).view(num_scans, num_labels),
        p_BLIJK.flatten(2).sum(2),
        zeros.index_add(0, place, ones_BIJK.flatten()).view(num_scans, num_labels),
    )
    both, predicted, labelled = (
        s[:, 1:].sum(0, keepdim=True) if batch else s[:, 1:] for s in sums_BL
    )
    counts = None if seen.annotated_BL is None else seen.annotated_BL[:, 1:].bool()
    if counts is not None and batch:
        counts = counts.any(0, keepdim=True)
    return Overlap(both_BL=both, predicted_BL=predicted, labelled_BL=labelled, counts_BL=counts)


def dice_loss(seen: Comparison, *, batch: bool | None, squared: bool, smooth: float) -> Tensor:
    """Return 1 - mean soft Dice over foreground classes (Milletari et al., 3DV 2016).

    Args:
        seen: the batch.
        batch: see `measure_overlap`.
        squared: see `measure_overlap`.
        smooth: added above and below, so that a class absent from both counts as a full overlap.
    """
    overlap = measure_overlap(seen, batch=batch, squared=squared)
    size_BL = overlap.predicted_BL + overlap.labelled_BL
    return overlap.mean(1 - (2 * overlap.both_BL + smooth) / (size_BL + smooth))


def _places(label_BIJK: Tensor, num_labels: int) -> Tensor:
    """Return, flattened, the index of each voxel's (scan, label) in a B x L table."""
    first = torch.arange(len(label_BIJK), device=label_BIJK.device) * num_labels
    return (label_BIJK + first.view(-1, *[1] * (label_BIJK.ndim - 1))).flatten()
