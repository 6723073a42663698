"""Attention U-Net (Oktay et al., MIDL 2018): gates let through the skips that matter.

Its first level works at full resolution.
"""

from monai.networks.nets import AttentionUnet
from torch import nn

from medseg.core.plan import Plan
from medseg.models.levels import largest_kernel, strides_of
from medseg.models.registry import register_model


@register_model("attention_unet")
def attention_unet(
    plan: Plan, *, num_inputs: int, num_outputs: int, dropout: float = 0.0
) -> nn.Module:
    """Build an attention U-Net (batch norm throughout)."""
    network: nn.Module = AttentionUnet(
        spatial_dims=plan.spatial_dims,
        in_channels=num_inputs,
        out_channels=num_outputs,
        channels=plan.network.widths,
        strides=strides_of(plan),
        kernel_size=largest_kernel(plan),
        up_kernel_size=largest_kernel(plan),
        dropout=dropout,
    )
    return network
