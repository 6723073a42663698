"""Swin UNETR (Hatamizadeh et al., BrainLes 2021): attention within shifted windows.

It halves every axis five times, whatever the plan's strides, and has widths of its own.
"""

from collections.abc import Sequence

from monai.networks.nets import SwinUNETR
from torch import nn

from medseg.core.plan import Plan
from medseg.models.padding import PaddedNetwork
from medseg.models.registry import register_model

_STRIDE = 32
_DEPTHS = (2, 2, 2, 2)
_HEADS = (3, 6, 12, 24)


@register_model("swinunetr")
def swinunetr(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    feature_size: int = 24,
    depths: Sequence[int] = _DEPTHS,
    num_heads: Sequence[int] = _HEADS,
    window_size: int = 7,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a Swin UNETR."""
    network = SwinUNETR(
        spatial_dims=plan.spatial_dims,
        in_channels=num_inputs,
        out_channels=num_outputs,
        feature_size=feature_size,
        depths=depths,
        num_heads=num_heads,
        window_size=window_size,
        drop_rate=dropout,
    )
    return PaddedNetwork(network, multiple=(_STRIDE,) * plan.spatial_dims)
