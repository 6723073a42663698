"""Losses on the channels that tell objects apart: heat and offsets of centres, or depth.

Axes: B batch, H channel of a way, A spatial axis, IJK voxel (2D: IJ).
"""

import torch
from torch import Tensor


def centre_loss(
    heads_BHIJK: Tensor,
    heat_BIJK: Tensor,
    offset_BAIJK: Tensor,
    *,
    counted_BIJK: Tensor,
    inside_BIJK: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of the heat and the mean absolute one of the offsets.

    As in Panoptic-DeepLab (Cheng et al., CVPR 2020): heat counts everywhere, offsets in objects.

    Args:
        heads_BHIJK: heat, then offsets.
        heat_BIJK: what the heat should be.
        offset_BAIJK: what the offsets should be.
        counted_BIJK: voxels that count.
        inside_BIJK: voxels of objects.
    """
    heat = (heads_BHIJK[:, 0] - heat_BIJK).square()
    offset = (heads_BHIJK[:, 1:] - offset_BAIJK).abs().sum(1)
    return _mean(heat, counted_BIJK), _mean(offset, counted_BIJK & inside_BIJK)


def depth_loss(heads_BHIJK: Tensor, depth_BIJK: Tensor, *, counted_BIJK: Tensor) -> Tensor:
    """Return the mean squared error of the depth over the voxels that count."""
    return _mean((heads_BHIJK[:, 0] - depth_BIJK).square(), counted_BIJK)


def _mean(values_BIJK: Tensor, counted_BIJK: Tensor) -> Tensor:
    """Return the mean over the voxels that count, 0 where none does."""
    total = torch.where(counted_BIJK, values_BIJK, 0).sum()
    return total / counted_BIJK.sum().clamp_min(1)
