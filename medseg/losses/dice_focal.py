"""Dice plus focal cross entropy: voxels that are already right count little."""

from collections.abc import Sequence

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import ClassWeights, focal_cross_entropy, weights_of
from medseg.losses.overlap import dice_loss
from medseg.losses.registry import Term, register_loss


@register_loss("dice_focal")
def dice_focal(
    *,
    num_outputs: int,
    class_share: Sequence[float] | None = None,
    gamma: float = 2.0,
    dice_weight: float = 1.0,
    focal_weight: float = 1.0,
    class_weights: ClassWeights = None,
    batch_dice: bool | None = None,
    smooth: float = 1e-5,
) -> Term:
    """Build the sum of soft Dice over foreground classes and focal cross entropy over all."""
    weights = weights_of(class_weights, num_outputs, class_share)
    # Between 0 and 1 the slope at probability 1 is infinite.
    if gamma < 1:
        raise ValueError(f"gamma {gamma}; expected at least 1 (0 is loss=dice_ce)")

    def term(seen: Comparison) -> Tensor:
        overlap = dice_loss(seen, batch=batch_dice, squared=False, smooth=smooth)
        return dice_weight * overlap + focal_weight * focal_cross_entropy(seen, weights, gamma)

    return term
