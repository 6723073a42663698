"""Cross entropy: each voxel's surprise at its own label, plain, focal, or of the hardest voxels.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.losses.comparison import Comparison

ClassWeights = Sequence[float] | str | None

# Power of one over a class's share of all voxels, for each rule.
_POWERS = {"inverse": 1.0, "inverse_sqrt": 0.5}


def cross_entropy(seen: Comparison, class_weights: Tensor | None) -> Tensor:
    """Return the mean of -log p(label) over the voxels that count.

    Args:
        seen: the batch.
        class_weights: one number a label, background first; the mean is weighted by them, as in
            torch's `cross_entropy`. None: all 1.
    """
    return _weighted_mean(seen, -seen.logp_of_label_BIJK, class_weights)


def focal_cross_entropy(seen: Comparison, class_weights: Tensor | None, gamma: float) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p at the label (Lin et al., ICCV 2017)."""
    # expm1 keeps 1 - p exact where p is close to 1.
    doubt_BIJK = -torch.expm1(seen.logp_of_label_BIJK)
    return _weighted_mean(seen, -seen.logp_of_label_BIJK * doubt_BIJK**gamma, class_weights)


def hardest_cross_entropy(seen: Comparison, class_weights: Tensor | None, share: float) -> Tensor:
    """Return the mean of -w log p(label) over the hardest voxels of the batch.

    Args:
        seen: the batch.
        class_weights: w, one number a label; None: all 1.
        share: of the voxels that count, 0 to 1; at least one voxel is taken.
    """
    surprise_BIJK = -seen.logp_of_label_BIJK
    if class_weights is not None:
        surprise_BIJK = surprise_BIJK * class_weights.to(surprise_BIJK.device)[seen.label_BIJK]
    if seen.counted_BIJK is not None:
        surprise_BIJK = surprise_BIJK[seen.counted_BIJK]
    if not surprise_BIJK.numel():
        return seen.logp_BLIJK.sum() * 0
    num_hardest = max(1, round(share * surprise_BIJK.numel()))
    return surprise_BIJK.flatten().topk(num_hardest, sorted=False).values.mean()


def _weighted_mean(seen: Comparison, values_BIJK: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return seen.mean(values_BIJK)
    weight_BIJK = class_weights.to(values_BIJK.device)[seen.label_BIJK]
    # The mean weight may be 0: a batch may hold only classes of weight 0.
    return seen.mean(values_BIJK * weight_BIJK) / seen.mean(weight_BIJK).clamp(min=1e-8)


def weights_of(
    class_weights: ClassWeights, num_outputs: int, class_share: Sequence[float] | None
) -> Tensor | None:
    """Return class weights as a tensor.

    Args:
        class_weights: one number a label, background first; or a rule: `inverse_sqrt` is
            1 / sqrt(share), `inverse` is 1 / share, both scaled to a mean of 1. A class that no
            case holds gets the largest weight of the others. None: all 1.
        num_outputs: how many labels there are.
        class_share: share of all voxels that belong to each label; the rules need it.

    Raises:
        ValueError: another number of weights than outputs, a weight below 0, an unknown rule, or
            a rule without shares.
    """
    if class_weights is None:
        return None
    if isinstance(class_weights, str):
        return _weights_by_rule(class_weights, class_share)
    weights = torch.tensor([float(weight) for weight in class_weights])
    if len(weights) != num_outputs or (weights < 0).any():
        raise ValueError(
            f"class_weights {list(class_weights)}; expected {num_outputs} numbers of at least 0, "
            "background first"
        )
    return weights


def _weights_by_rule(rule: str, class_share: Sequence[float] | None) -> Tensor:
    if rule not in _POWERS:
        raise ValueError(f"class_weights {rule!r}; expected numbers, or one of {list(_POWERS)}")
    if class_share is None:
        raise ValueError(
            f"class_weights {rule!r} needs a fingerprint.json of these classes beside the plan; "
            "make it with medseg plan, or give numbers"
        )
    share = torch.tensor(class_share)
    weights = share.clamp(min=share[share > 0].min()).pow(-_POWERS[rule])
    return weights / weights.mean()
