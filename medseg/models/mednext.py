"""MedNeXt (Roy et al., MICCAI 2023): a U-Net of depthwise convolutions with large kernels.

It halves every axis at every level, whatever the plan's strides; its first level works at full
resolution.
"""

from monai.networks.nets import MedNeXt
from torch import nn

from medseg.core.plan import Plan
from medseg.models.padding import PaddedNetwork
from medseg.models.registry import register_model


@register_model("mednext")
def mednext(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    kernel_size: int = 3,
    expansion: int = 2,
    num_blocks: int = 2,
) -> nn.Module:
    """Build a MedNeXt as deep as the plan, `widths[0]` doubling; the defaults are its size S."""
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size {kernel_size}; expected an odd number")
    num_halvings = len(plan.network.widths) - 1
    network = MedNeXt(
        spatial_dims=plan.spatial_dims,
        init_filters=plan.network.widths[0],
        in_channels=num_inputs,
        out_channels=num_outputs,
        encoder_expansion_ratio=expansion,
        decoder_expansion_ratio=expansion,
        bottleneck_expansion_ratio=expansion,
        kernel_size=kernel_size,
        deep_supervision=plan.network.deep_supervision,
        use_residual_connection=True,
        blocks_down=(num_blocks,) * num_halvings,
        blocks_bottleneck=num_blocks,
        blocks_up=(num_blocks,) * num_halvings,
    )
    return PaddedNetwork(network, multiple=(2**num_halvings,) * plan.spatial_dims)
