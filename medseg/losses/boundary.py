"""Boundary loss: errors weigh by their distance from the edge (Kervadec et al., MIDL 2019)."""

from collections.abc import Sequence

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import ClassWeights
from medseg.losses.dice_ce import dice_ce
from medseg.losses.distance import signed_distances
from medseg.losses.registry import Term, register_loss


@register_loss("boundary")
def boundary(
    *,
    num_outputs: int,
    class_share: Sequence[float] | None = None,
    spacing_mm: Sequence[float] | None = None,
    boundary_weight: float = 0.1,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    class_weights: ClassWeights = None,
) -> Term:
    """Build Dice plus cross entropy plus the boundary term, in mm."""
    beside = dice_ce(
        num_outputs=num_outputs,
        class_share=class_share,
        dice_weight=dice_weight,
        ce_weight=ce_weight,
        class_weights=class_weights,
    )

    def term(seen: Comparison) -> Tensor:
        return boundary_weight * boundary_loss(seen, spacing_mm) + beside(seen)

    return term


def boundary_loss(seen: Comparison, edges: Sequence[float] | None) -> Tensor:
    """Return the mean of phi (p - g) over voxels and foreground classes.

    phi is the signed distance to the edge of the class, p its probability, g 1 inside. The paper
    drops the part with g, which no weight can change; with it a perfect prediction costs 0.

    Args:
        seen: the batch.
        edges: see `signed_distances`.
    """
    return seen.mean_of_classes(seen.errors * signed_distances(seen, edges))
