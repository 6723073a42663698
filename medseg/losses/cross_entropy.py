"""Cross entropy: each voxel's surprise at its own label, plain, focal, or of the hardest voxels.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from medseg.losses.comparison import Comparison


def cross_entropy(seen: Comparison, class_weights: Tensor | None) -> Tensor:
    """Return the mean of -log p(label), weighted by class as in torch's `cross_entropy`.

    Args:
        seen: the batch.
        class_weights: one number a label, background first; None: all 1.
    """
    surprise_BIJK = -seen.logp_of_label_BIJK
    if class_weights is None:
        return seen.mean(surprise_BIJK)
    weight_BIJK = class_weights.to(surprise_BIJK.device)[seen.label_BIJK]
    return seen.mean(surprise_BIJK * weight_BIJK) / seen.mean(weight_BIJK).clamp(min=1e-8)


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
