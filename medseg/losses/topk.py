"""Cross entropy of the hardest voxels alone (Wu et al., 2016), with or without Dice."""

from collections.abc import Sequence

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import ClassWeights, hardest_cross_entropy, weights_of
from medseg.losses.overlap import dice_loss
from medseg.losses.registry import Term, register_loss


@register_loss("topk")
def topk(
    *,
    num_outputs: int,
    class_share: Sequence[float] | None = None,
    share: float = 0.1,
    dice_weight: float = 0.0,
    class_weights: ClassWeights = None,
    batch_dice: bool | None = None,
    smooth: float = 1e-5,
) -> Term:
    """Build the mean cross entropy of the `share` of voxels where it is largest."""
    weights = weights_of(class_weights, num_outputs, class_share)
    if not 0 < share <= 1:
        raise ValueError(f"share {share}; expected above 0 and at most 1")

    def term(seen: Comparison) -> Tensor:
        loss = hardest_cross_entropy(seen, weights, share)
        if not dice_weight:
            return loss
        return loss + dice_weight * dice_loss(seen, batch=batch_dice, squared=False, smooth=smooth)

    return term
