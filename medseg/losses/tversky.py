"""Tversky loss: false positives and misses weighed apart (Salehi et al., MLMI 2017)."""

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import cross_entropy
from medseg.losses.overlap import measure_overlap
from medseg.losses.registry import Term, register_loss


@register_loss("tversky")
def tversky(
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    ce_weight: float = 0.0,
    batch_dice: bool | None = None,
    smooth: float = 1e-5,
) -> Term:
    """Build 1 - both / (both + alpha false + beta missed); halves for both give Dice."""
    if alpha < 0 or beta < 0 or alpha + beta == 0:
        raise ValueError(f"alpha {alpha}, beta {beta}; expected at least 0, and one above 0")

    def term(seen: Comparison) -> Tensor:
        overlap = measure_overlap(seen, batch=batch_dice)
        false_BL = overlap.predicted_BL - overlap.both_BL
        missed_BL = overlap.labelled_BL - overlap.both_BL
        above_BL = overlap.both_BL + smooth
        loss = overlap.mean(1 - above_BL / (above_BL + alpha * false_BL + beta * missed_BL))
        return loss + ce_weight * cross_entropy(seen, None) if ce_weight else loss

    return term
