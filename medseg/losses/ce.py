"""Cross entropy alone."""

from collections.abc import Sequence

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import ClassWeights, cross_entropy, weights_of
from medseg.losses.registry import Term, register_loss


@register_loss("ce")
def ce(
    *,
    num_outputs: int,
    class_share: Sequence[float] | None = None,
    class_weights: ClassWeights = None,
) -> Term:
    """Build cross entropy over all classes."""
    weights = weights_of(class_weights, num_outputs, class_share)

    def term(seen: Comparison) -> Tensor:
        return cross_entropy(seen, weights)

    return term
