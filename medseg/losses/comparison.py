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
