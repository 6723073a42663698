"""Cross entropy: each voxel's surprise at its own label, plain, focal, or of the hardest voxels.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.losses.comparison import Comparison


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


def weights_of(class_weights: Sequence[float] | None, num_outputs: int) -> Tensor | None:
    """Return class weights as a tensor.

    Raises:
        ValueError: another number of weights than outputs, or a weight below 0.
    """
    if class_weights is None:
        return None
    weights = torch.tensor([float(weight) for weight in class_weights])
    if len(weights) != num_outputs or (weights < 0).any():
        raise ValueError(
            f"class_weights {list(class_weights)}; expected {num_outputs} numbers of at least 0, "
            "background first"
        )
    return weights
