"""Generalised Dice: every class counts alike, whatever its volume (Sudre et al., DLMIA 2017).

Axes: B batch, L foreground label.
"""

import torch
from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import cross_entropy
from medseg.losses.overlap import Overlap, measure_overlap
from medseg.losses.registry import Term, register_loss


@register_loss("generalised_dice")
def generalised_dice(
    *,
    ce_weight: float = 0.0,
    batch_dice: bool | None = None,
    smooth: float = 1e-5,
) -> Term:
    """Build 1 - 2 sum(w both) / sum(w (predicted + labelled)) with w = 1 / labelled^2."""

    def term(seen: Comparison) -> Tensor:
        overlap = measure_overlap(seen, batch=batch_dice)
        weight_BL = _weights(overlap)
        size_BL = overlap.predicted_BL + overlap.labelled_BL
        above_B = 2 * (weight_BL * overlap.both_BL).sum(1) + smooth
        loss_B = 1 - above_B / ((weight_BL * size_BL).sum(1) + smooth)
        # A scan without any annotated class has nothing to say.
        known_B = torch.ones_like(loss_B)
        if overlap.counts_BL is not None:
            known_B = overlap.counts_BL.any(1).to(loss_B)
        loss = (loss_B * known_B).sum() / known_B.sum().clamp(min=1)
        return loss + ce_weight * cross_entropy(seen, None) if ce_weight else loss

    return term


def _weights(overlap: Overlap) -> Tensor:
    """Return 1 / volume^2, the largest of a scan set to 1 so that `smooth` stays in voxels.

    A class that is absent from a scan has no volume; it gets the largest weight. One that was not
    annotated gets none.
    """
    present_BL = overlap.labelled_BL > 0
    weight_BL = torch.where(present_BL, overlap.labelled_BL.clamp(min=1).pow(-2), 0)
    weight_BL = weight_BL / weight_BL.amax(1, keepdim=True).clamp(min=torch.finfo().tiny)
    weight_BL = torch.where(present_BL, weight_BL, 1)
    return weight_BL if overlap.counts_BL is None else weight_BL * overlap.counts_BL
