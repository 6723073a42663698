"""SegResNet (Myronenko, BrainLes 2018), without its autoencoder branch, on any strides.

With the plan's deep supervision every level of the decoder is scored, as by MONAI's SegResNetDS,
whose up-sampling, normalisation and heads differ.

MONAI's own class halves every axis at every level; this one is built of its blocks and follows the
plan's strides and widths, which makes it the same network where those are 2 and doubling.
"""

from collections.abc import Sequence

from monai.networks.blocks.segresnet_block import ResBlock, get_conv_layer
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.levels import strides_of
from medseg.models.registry import Layer, register_model
from medseg.models.resize import enlarge

_NORM = ("group", {"num_groups": 8})
_ACT = ("relu", {"inplace": True})


@register_model("segresnet")
def segresnet(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    blocks_down: Sequence[int] | None = None,
    blocks_up: int = 1,
    norm: Layer = _NORM,
    act: Layer = _ACT,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a SegResNet; None for `blocks_down` is 1, 2, ..., 2, 4 as in the paper."""
    num_levels = len(plan.network.widths)
    if blocks_down is None:
        blocks_down = [1, *[2] * (num_levels - 2), 4][:num_levels]
    if len(blocks_down) != num_levels:
        raise ValueError(f"blocks_down {list(blocks_down)}; the plan has {num_levels} levels")
    return SegResNet(
        plan,
        num_inputs=num_inputs,
        num_outputs=num_outputs,
        blocks_down=blocks_down,
        blocks_up=blocks_up,
        norm=norm,
        act=act,
        dropout=dropout,
    )


class SegResNet(nn.Module):
    """An encoder of pre-activated residual blocks and a light decoder that adds the skips.

    Args:
        plan: gives axes, widths, strides, and whether coarser levels are trained.
        num_inputs: image channels.
        num_outputs: channels of the logits.
        blocks_down: residual blocks of each level of the encoder.
        blocks_up: residual blocks of every level of the decoder.
        norm: normalisation layer.
        act: activation layer.
        dropout: share of features dropped after the first convolution.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        num_inputs: int,
        num_outputs: int,
        blocks_down: Sequence[int],
        blocks_up: int,
        norm: Layer,
        act: Layer,
        dropout: float,
    ) -> None:
        super().__init__()
        dims, widths, strides = plan.spatial_dims, plan.network.widths, strides_of(plan)
        self.first = nn.Sequential(
            get_conv_layer(dims, num_inputs, widths[0]),
            (nn.Dropout2d if dims == 2 else nn.Dropout3d)(dropout),
        )
        self.down, self.up, self.narrow = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, num_blocks in enumerate(blocks_down):
            width = widths[level]
            blocks = [ResBlock(dims, width, norm=norm, act=act) for _ in range(num_blocks)]
            if level:
                stride = strides[level - 1]
                blocks.insert(0, get_conv_layer(dims, widths[level - 1], width, stride=stride))
            self.down.append(nn.Sequential(*blocks))
        for level in reversed(range(len(strides))):
            width = widths[level]
            blocks = [ResBlock(dims, width, norm=norm, act=act) for _ in range(blocks_up)]
            self.up.append(nn.Sequential(*blocks))
            self.narrow.append(get_conv_layer(dims, widths[level + 1], width, kernel_size=1))

        def head(width: int) -> nn.Sequential:
            return nn.Sequential(
                get_norm_layer(name=norm, spatial_dims=dims, channels=width),
                get_act_layer(act),
                get_conv_layer(dims, width, num_outputs, kernel_size=1, bias=True),
            )

        self.last = head(widths[0])
        coarser = widths[1:-1] if plan.network.deep_supervision else ()
        self.coarser = nn.ModuleList(head(width) for width in coarser)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits; while training with deep supervision all levels', finest first.

        The strides must divide the input's size.
        """
        x = self.first(x)
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        levels: list[Tensor] = []
        for narrow, up in zip(self.narrow, self.up, strict=True):
            skip = skips.pop()
            x = up(enlarge(narrow(x), skip.shape[2:]) + skip)
            levels.insert(0, x)
        logits: Tensor = self.last(levels[0])
        if not self.training or not self.coarser:
            return logits
        coarser = (head(level) for head, level in zip(self.coarser, levels[1:], strict=True))
        return logits, *coarser
