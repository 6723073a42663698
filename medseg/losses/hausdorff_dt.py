"""Hausdorff distance, made smooth by distance transforms (Karimi and Salcudean, IEEE TMI 2019)."""

from collections.abc import Sequence

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import ClassWeights
from medseg.losses.dice_ce import dice_ce
from medseg.losses.distance import predicted_distances, signed_distances
from medseg.losses.registry import Term, register_loss


@register_loss("hausdorff_dt")
def hausdorff_dt(
    *,
    num_outputs: int,
    class_share: Sequence[float] | None = None,
    spacing_mm: Sequence[float] | None = None,
    hausdorff_weight: float = 0.01,
    alpha: float = 2.0,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    class_weights: ClassWeights = None,
) -> Term:
    """Build Dice plus cross entropy plus the Hausdorff term, in mm to the power of `alpha`."""
    beside = dice_ce(
        num_outputs=num_outputs,
        class_share=class_share,
        dice_weight=dice_weight,
        ce_weight=ce_weight,
        class_weights=class_weights,
    )
    if alpha <= 0:
        raise ValueError(f"alpha {alpha}; expected above 0")

    def term(seen: Comparison) -> Tensor:
        return hausdorff_weight * hausdorff_loss(seen, spacing_mm, alpha) + beside(seen)

    return term


def hausdorff_loss(seen: Comparison, edges: Sequence[float] | None, alpha: float) -> Tensor:
    """Return the mean of (p - g)^2 (d_g^alpha + d_p^alpha), equation 8 of the paper.

    Args:
        seen: the batch.
        edges: see `signed_distances`.
        alpha: how much more distant errors weigh.

    d_g and d_p are the distances to the edges of what is labelled and of what is predicted.
    """
    labelled = signed_distances(seen, edges).abs().pow(alpha)
    predicted = predicted_distances(seen, edges).abs().pow(alpha)
    return seen.mean_of_classes(seen.errors.square() * (labelled + predicted))
