"""MedNeXt (Roy et al., MICCAI 2023): a U-Net of depthwise convolutions with large kernels.

It halves every axis at every level, whatever the plan's strides; its first level works at full
resolution.
"""

from collections.abc import Sequence

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
    expansion: int | Sequence[int] = 2,
    num_blocks: int | Sequence[int] = 2,
) -> nn.Module:
    """Build a MedNeXt as deep as the plan, `widths[0]` doubling; the defaults are its size S.

    `expansion` and `num_blocks` are one number, or one a level on the way down, which the way up
    mirrors; a deeper plan repeats the last. Size B: [2, 3, 4] and 2, M: [2, 3, 4] and [3, 4],
    L: [3, 4, 8] and [3, 4, 8].
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size {kernel_size}; expected an odd number")
    num_halvings = len(plan.network.widths) - 1
    *expansions, widest = _by_level(expansion, num_halvings + 1)
    *blocks, most_blocks = _by_level(num_blocks, num_halvings + 1)
    network = MedNeXt(
        spatial_dims=plan.spatial_dims,
        init_filters=plan.network.widths[0],
        in_channels=num_inputs,
        out_channels=num_outputs,
        encoder_expansion_ratio=expansions,
        decoder_expansion_ratio=expansions[::-1],
        bottleneck_expansion_ratio=widest,
        kernel_size=kernel_size,
        deep_supervision=plan.network.deep_supervision,
        use_residual_connection=True,
        blocks_down=blocks,
        blocks_bottleneck=most_blocks,
        blocks_up=blocks[::-1],
    )
    return PaddedNetwork(network, multiple=(2**num_halvings,) * plan.spatial_dims)


def _by_level(numbers: int | Sequence[int], num_levels: int) -> list[int]:
    """Return one number a level; the last one goes on."""
    given = [numbers] if isinstance(numbers, int) else list(numbers)
    return [*given, *given[-1:] * num_levels][:num_levels]
