"""What every loss looks at: logits set against labels, once, in float32, ignored voxels left out.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medseg.losses.marginal import merge_unannotated


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Logits and labels of a batch, made comparable.

    Attributes:
        logp_BLIJK: log-probabilities, float32.
        label_BIJK: int64 indices 0..L-1; 0 where a voxel is ignored.
        logp_of_label_BIJK: log-probability of each voxel's own label.
        counted_BIJK: False where a voxel is ignored; None where all count.
        annotated_BL: False where a class was not annotated; None where all were.
    """

    logp_BLIJK: Tensor
    label_BIJK: Tensor
    logp_of_label_BIJK: Tensor
    counted_BIJK: Tensor | None
    annotated_BL: Tensor | None

    def mean(self, values_BIJK: Tensor) -> Tensor:
        """Return the mean over the voxels that count, 0 where none does."""
        if self.counted_BIJK is None:
            return values_BIJK.mean()
        total = torch.where(self.counted_BIJK, values_BIJK, 0).sum()
        return total / self.counted_BIJK.sum().clamp(min=1)

    @property
    def labelled(self) -> Tensor:
        """Whether a voxel is labelled with each foreground class, (B, L, I, J, K) bool."""
        num_labels = self.logp_BLIJK.shape[1]
        return torch.stack([self.label_BIJK == n for n in range(1, num_labels)], dim=1)

    @property
    def errors(self) -> Tensor:
        """Probability of each foreground class, less 1 where a voxel is labelled so."""
        return self.logp_BLIJK[:, 1:].exp() - self.labelled.float()

    def mean_of_classes(self, values_BLIJK: Tensor) -> Tensor:
        """Return the mean over the voxels of each scan that count, then over scans and classes.

        Args:
            values_BLIJK: foreground classes alone; those not annotated are left out.
        """
        values_BLN = values_BLIJK.flatten(2)
        if self.counted_BIJK is None:
            return self.mean_of_annotated(values_BLN.mean(2))
        counted_B1N = self.counted_BIJK.flatten(1)[:, None]
        total_BL = torch.where(counted_B1N, values_BLN, 0).sum(2)
        return self.mean_of_annotated(total_BL / counted_B1N.sum(2).clamp(min=1))

    def mean_of_annotated(self, values_BL: Tensor) -> Tensor:
        """Return the mean over the foreground classes annotated in each scan, 0 without any."""
        if self.annotated_BL is None:
            return values_BL.mean()
        kept_BL = self.annotated_BL[:, 1:].bool()
        return torch.where(kept_BL, values_BL, 0).sum() / kept_BL.sum().clamp(min=1)


def compare(
    logits_BLIJK: Tensor,
    label_BIJK: Tensor,
    *,
    ignore_index: int | None,
    annotated_BL: Tensor | None,
) -> Comparison:
    """Set logits against labels.

    Args:
        logits_BLIJK: of any floating type.
        label_BIJK: indices of any integer type.
        ignore_index: label of voxels to leave out; None where there is no such label.
        annotated_BL: see `merge_unannotated`.
    """
    logits_BLIJK, label_BIJK = logits_BLIJK.float(), label_BIJK.long()
    counted_BIJK = None
    if ignore_index is not None:
        counted_BIJK = label_BIJK != ignore_index
        label_BIJK = torch.where(counted_BIJK, label_BIJK, 0)
    if annotated_BL is not None:
        logits_BLIJK, label_BIJK = merge_unannotated(logits_BLIJK, label_BIJK, annotated_BL)
    logp_BLIJK = functional.log_softmax(logits_BLIJK, dim=1)
    return Comparison(
        logp_BLIJK=logp_BLIJK,
        label_BIJK=label_BIJK,
        logp_of_label_BIJK=logp_BLIJK.gather(1, label_BIJK[:, None])[:, 0],
        counted_BIJK=counted_BIJK,
        annotated_BL=annotated_BL,
    )
