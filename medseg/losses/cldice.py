"""Centreline Dice for tubes: skeletons must lie in each other's shape (Shit et al., CVPR 2021)."""

from collections.abc import Sequence

from torch import Tensor

from medseg.losses.comparison import Comparison
from medseg.losses.cross_entropy import ClassWeights
from medseg.losses.dice_ce import dice_ce
from medseg.losses.registry import Term, register_loss
from medseg.losses.skeleton import soft_skeleton


@register_loss("cldice")
def cldice(
    *,
    num_outputs: int,
    class_share: Sequence[float] | None = None,
    iterations: int = 3,
    cldice_weight: float = 0.5,
    cldice_smooth: float = 1.0,
    dice_weight: float = 0.5,
    ce_weight: float = 1.0,
    class_weights: ClassWeights = None,
) -> Term:
    """Build soft clDice plus Dice plus cross entropy."""
    beside = dice_ce(
        num_outputs=num_outputs,
        class_share=class_share,
        dice_weight=dice_weight,
        ce_weight=ce_weight,
        class_weights=class_weights,
    )
    if iterations < 0 or cldice_smooth <= 0:
        raise ValueError(
            f"iterations {iterations}, cldice_smooth {cldice_smooth}; expected at least 0, above 0"
        )

    def term(seen: Comparison) -> Tensor:
        return cldice_weight * cldice_loss(
            seen, iterations=iterations, smooth=cldice_smooth
        ) + beside(seen)

    return term


def cldice_loss(seen: Comparison, *, iterations: int, smooth: float) -> Tensor:
    """Return 1 - the harmonic mean of topology precision and sensitivity, a mean over classes.

    Precision is the share of the predicted skeleton that lies in the label, sensitivity that of
    the labelled skeleton that lies in the prediction.

    Args:
        seen: the batch.
        iterations: see `soft_skeleton`.
        smooth: added above and below both, in voxels of a skeleton; above 0, for absent classes.
    """
    label_BLIJK = seen.labelled.float()
    p_BLIJK = seen.logp_BLIJK[:, 1:].exp()
    counted = seen.counted_BIJK
    skeleton_of_p = soft_skeleton(p_BLIJK, counted, iterations=iterations)
    skeleton_of_label = soft_skeleton(label_BLIJK, counted, iterations=iterations)
    precision_BL = _share(skeleton_of_p, label_BLIJK, smooth)
    sensitivity_BL = _share(skeleton_of_label, p_BLIJK, smooth)
    harmonic_BL = 2 * precision_BL * sensitivity_BL / (precision_BL + sensitivity_BL)
    return seen.mean_of_annotated(1 - harmonic_BL)


def _share(skeleton_BLIJK: Tensor, shape_BLIJK: Tensor, smooth: float) -> Tensor:
    both_BL = (skeleton_BLIJK * shape_BLIJK).flatten(2).sum(2)
    return (both_BL + smooth) / (skeleton_BLIJK.flatten(2).sum(2) + smooth)
