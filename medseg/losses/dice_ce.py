"""Dice plus cross entropy: the field's default (Isensee et al., Nature Methods 2021)."""

from collections.abc import Sequence

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import ClassWeights, cross_entropy, weights_of
from medseg.losses.overlap import dice_loss
from medseg.losses.registry import Term, register_loss


@register_loss("dice_ce")
def dice_ce(
    *,
    num_outputs: int,
    class_share: Sequence[float] | None = None,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    class_weights: ClassWeights = None,
    batch_dice: bool | None = None,
    squared: bool = False,
    smooth: float = 1e-5,
) -> Term:
    """Build the sum of soft Dice over foreground classes and cross entropy over all."""
    weights = weights_of(class_weights, num_outputs, class_share)

    def term(seen: Comparison) -> Tensor:
        dice = dice_loss(seen, batch=batch_dice, squared=squared, smooth=smooth)
        return dice_weight * dice + ce_weight * cross_entropy(seen, weights)

    return term
