"""Residual-encoder U-Net (Isensee et al., MICCAI 2024), nnU-Net's recommended network.

Most of its convolutions lie in the encoder, in residual blocks that shrink their shortcut by mean
pooling; the decoder has one convolution a level. Its first level works at full resolution.
"""

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.levels import kernels_of, strides_of
from medseg.models.registry import Layer, register_model

_NORM = ("instance", {"affine": True})
_ACT = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
# Blocks of the paper's levels; a deeper plan repeats the last number.
_BLOCKS = (1, 3, 4, 6, 6, 6)


@register_model("resenc_unet")
def resenc_unet(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    blocks: Sequence[int] = _BLOCKS,
    decoder_convs: int = 1,
    norm: Layer = _NORM,
    act: Layer = _ACT,
) -> nn.Module:
    """Build a residual-encoder U-Net; with the plan's deep supervision, all levels are trained."""
    num_levels = len(plan.network.widths)
    each = [*blocks, *[blocks[-1]] * num_levels][:num_levels]
    return ResidualEncoderUNet(
        plan,
        num_inputs=num_inputs,
        num_outputs=num_outputs,
        blocks=each,
        decoder_convs=decoder_convs,
        layers=Layers(plan.spatial_dims, norm=norm, act=act),
    )


class Layers:
    """Makes the layers of one network: its axes, normalisation and activation."""

    def __init__(self, dims: int, *, norm: Layer, act: Layer) -> None:
        self.dims = dims
        self.norm = norm
        self.act = act

    def conv(
        self, num_inputs: int, num_outputs: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> nn.Sequential:
        """Return a convolution and a normalisation."""
        padding = tuple(size // 2 for size in kernel)
        return nn.Sequential(
            Conv[Conv.CONV, self.dims](num_inputs, num_outputs, kernel, stride, padding),
            get_norm_layer(self.norm, self.dims, num_outputs),
        )

    def widen(self, num_inputs: int, num_outputs: int) -> nn.Sequential:
        """Return a 1 x 1 convolution without bias, and a normalisation."""
        return nn.Sequential(
            Conv[Conv.CONV, self.dims](num_inputs, num_outputs, 1, bias=False),
            get_norm_layer(self.norm, self.dims, num_outputs),
        )

    def active(self) -> nn.Module:
        """Return an activation."""
        layer: nn.Module = get_act_layer(self.act)
        return layer

    def grow(self, num_inputs: int, num_outputs: int, stride: Sequence[int]) -> nn.Module:
        """Return a transposed convolution."""
        layer: nn.Module = Conv[Conv.CONVTRANS, self.dims](num_inputs, num_outputs, stride, stride)
        return layer

    def score(self, num_inputs: int, num_outputs: int) -> nn.Module:
        """Return the 1 x 1 convolution that ends in logits."""
        layer: nn.Module = Conv[Conv.CONV, self.dims](num_inputs, num_outputs, 1)
        return layer


class PooledResidualBlock(nn.Module):
    """Two convolutions, and a shortcut that is pooled and widened where they stride and widen."""

    def __init__(
        self,
        layers: Layers,
        *,
        num_inputs: int,
        num_outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        ones = (1,) * layers.dims
        self.body = nn.Sequential(
            layers.conv(num_inputs, num_outputs, kernel, stride),
            layers.active(),
            layers.conv(num_outputs, num_outputs, kernel, ones),
        )
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(Pool[Pool.AVG, layers.dims](stride, stride))
        if num_inputs != num_outputs:
            shortcut.append(layers.widen(num_inputs, num_outputs))
        self.shortcut = nn.Sequential(*shortcut)
        self.after = layers.active()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        features: Tensor = self.after(self.body(x) + self.shortcut(x))
        return features


class ResidualEncoderUNet(nn.Module):
    """A U-Net whose encoder is residual and deep, and whose decoder is plain and shallow.

    Args:
        plan: gives axes, widths, strides, kernels, and whether coarser levels are trained.
        num_inputs: image channels.
        num_outputs: channels of the logits.
        blocks: residual blocks of each level of the encoder.
        decoder_convs: convolutions of each level of the decoder.
        layers: makes its layers.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        num_inputs: int,
        num_outputs: int,
        blocks: Sequence[int],
        decoder_convs: int,
        layers: Layers,
    ) -> None:
        super().__init__()
        widths, kernels, ones = plan.network.widths, kernels_of(plan), (1,) * plan.spatial_dims
        steps = [ones, *strides_of(plan)]
        self.stem = nn.Sequential(
            layers.conv(num_inputs, widths[0], kernels[0], ones), layers.active()
        )
        self.down, self.grow = nn.ModuleList(), nn.ModuleList()
        self.up, self.scores = nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for width, kernel, step, number in zip(widths, kernels, steps, blocks, strict=True):
            stage = [
                PooledResidualBlock(
                    layers,
                    num_inputs=width if block else before,
                    num_outputs=width,
                    kernel=kernel,
                    stride=ones if block else step,
                )
                for block in range(number)
            ]
            self.down.append(nn.Sequential(*stage))
            before = width
        for level in reversed(range(len(widths) - 1)):
            width = widths[level]
            self.grow.append(layers.grow(widths[level + 1], width, steps[level + 1]))
            convs: list[nn.Module] = []
            for n in range(decoder_convs):
                num_seen = width if n else 2 * width
                convs += [layers.conv(num_seen, width, kernels[level], ones), layers.active()]
            self.up.append(nn.Sequential(*convs))
            # Without deep supervision only the finest level is scored.
            scored = plan.network.deep_supervision or not level
            self.scores.append(layers.score(width, num_outputs) if scored else nn.Identity())
        self.deep_supervision = plan.network.deep_supervision

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits; while training with deep supervision all levels', finest first."""
        x = self.stem(x)
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        levels = []
        for grow, up in zip(self.grow, self.up, strict=True):
            x = up(torch.cat([grow(x), skips.pop()], dim=1))
            levels.append(x)
        if self.training and self.deep_supervision:
            scored = [score(level) for score, level in zip(self.scores, levels, strict=True)]
            return tuple(reversed(scored))
        logits: Tensor = self.scores[-1](x)
        return logits
