"""Soft Dice alone (Milletari et al., 3DV 2016)."""

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.overlap import dice_loss
from medseg.losses.registry import Term, register_loss


@register_loss("dice")
def dice(
    *,
    batch_dice: bool | None = None,
    squared: bool = False,
    smooth: float = 1e-5,
) -> Term:
    """Build soft Dice over foreground classes."""

    def term(seen: Comparison) -> Tensor:
        return dice_loss(seen, batch=batch_dice, squared=squared, smooth=smooth)

    return term
