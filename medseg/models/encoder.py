"""A residual encoder (He et al., CVPR 2016) whose deep stages widen their view instead of striding.

The shapes are those of ResNet-18, 34 and 50, in 2D and 3D. Strides follow the plan, axis by axis;
once an axis has reached its output stride, later stages dilate along it (Yu and Koltun, ICLR 2016;
Chen et al., 2017). Where the plan's kernels are flat, so are these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.levels import kernels_of, stride_of, strides_of
from medseg.models.registry import Layer

Shape = Literal["resnet18", "resnet34", "resnet50"]
GROUP_NORM = ("group", {"num_groups": 8})

_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
# A ResNet strides in its first convolution, its pooling, and its second to fourth stage.
_NUM_STRIDES = 5
_STRIDES_BEFORE_STAGES = 2
_OUTPUT_STRIDES = (8, 16, 32)
# Beyond the plan's own strides, features keep this many voxels along an axis of the patch.
_LEAST_FEATURES_VOX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What all layers of a network share: axes and normalisation (activation is ReLU)."""

    dims: int
    norm: Layer = GROUP_NORM

    def conv(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        kernel: Sequence[int] | int = 3,
        stride: Sequence[int] | int = 1,
        dilation: Sequence[int] | int = 1,
        groups: int = 1,
    ) -> nn.Module:
        """Return a convolution without bias that keeps the size where its stride is 1."""
        rates, sizes = self.of_axes(dilation), self.of_axes(kernel)
        layer: nn.Module = Conv[Conv.CONV, self.dims](
            num_inputs,
            num_outputs,
            sizes,
            stride=self.of_axes(stride),
            padding=tuple(rate * (size // 2) for rate, size in zip(rates, sizes, strict=True)),
            dilation=rates,
            groups=groups,
            bias=False,
        )
        return layer

    def of_axes(self, number: Sequence[int] | int) -> tuple[int, ...]:
        """Return one number an axis."""
        return (number,) * self.dims if isinstance(number, int) else tuple(number)

    def score(self, num_inputs: int, num_outputs: int) -> nn.Module:
        """Return the 1 x 1 convolution that ends in logits."""
        layer: nn.Module = Conv[Conv.CONV, self.dims](num_inputs, num_outputs, 1)
        return layer

    def normed(self, num_features: int) -> nn.Module:
        """Return a normalisation layer."""
        layer: nn.Module = get_norm_layer(self.norm, self.dims, num_features)
        return layer

    def active(self) -> nn.Module:
        """Return an activation layer."""
        return nn.ReLU(inplace=True)

    def unit(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        kernel: int = 3,
        dilation: Sequence[int] | int = 1,
    ) -> nn.Sequential:
        """Return convolution, normalisation and activation."""
        return nn.Sequential(
            self.conv(num_inputs, num_outputs, kernel=kernel, dilation=dilation),
            self.normed(num_outputs),
            self.active(),
        )

    def separable(
        self, num_inputs: int, num_outputs: int, *, dilation: Sequence[int] | int = 1
    ) -> nn.Sequential:
        """Return a 3 x 3 unit that sees each feature alone, and a 1 x 1 unit that sees all."""
        return nn.Sequential(
            self.conv(num_inputs, num_inputs, dilation=dilation, groups=num_inputs),
            self.normed(num_inputs),
            self.active(),
            *self.unit(num_inputs, num_outputs, kernel=1),
        )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, or a 3 x 3 one between two of size 1 (bottleneck), and a shortcut.

    Args:
        style: of the layers.
        num_inputs: features that come in.
        width: features of the inner convolutions; a bottleneck gives out four times as many.
        bottleneck: ResNet-50's block instead of ResNet-18's and 34's.
        kernel: of the 3 x 3 convolutions, one number an axis: 1 along thick slices.
        stride: of the 3 x 3 convolution (the first, without bottleneck), one number an axis.
        dilation: of the 3 x 3 convolutions, one number an axis.
    """

    def __init__(
        self,
        style: Style,
        *,
        num_inputs: int,
        width: int,
        bottleneck: bool,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        super().__init__()
        num_outputs = width * 4 if bottleneck else width
        if bottleneck:
            convs = [
                style.conv(num_inputs, width, kernel=1),
                style.conv(width, width, kernel=kernel, stride=stride, dilation=dilation),
                style.conv(width, num_outputs, kernel=1),
            ]
            widths = [width, width, num_outputs]
        else:
            convs = [
                style.conv(num_inputs, width, kernel=kernel, stride=stride, dilation=dilation),
                style.conv(width, width, kernel=kernel, dilation=dilation),
            ]
            widths = [width, width]
        layers: list[nn.Module] = []
        for conv, features in zip(convs, widths, strict=True):
            layers += [conv, style.normed(features), style.active()]
        # The last activation follows the sum.
        self.after = layers.pop()
        self.body = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if num_inputs != num_outputs or max(stride) > 1:
            self.shortcut = nn.Sequential(
                style.conv(num_inputs, num_outputs, kernel=1, stride=stride),
                style.normed(num_outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features."""
        features: Tensor = self.after(self.body(x) + self.shortcut(x))
        return features


class Encoder(nn.Module):
    """A dilated residual network without its classifier.

    Args:
        plan: gives axes, strides, kernels, and in `widths[0]` the features of the first convolution
            (64 in the paper), which the stages double.
        num_inputs: image channels.
        shape: whose blocks, and how many of them.
        output_stride: the most that any axis is strided in all, see `schedule`.
        style: of the layers.

    Attributes:
        style: of the layers.
        widths: features of the four stages.
        stride: of the last stage, one number an axis.

    Raises:
        ValueError: an unknown shape or output stride.
    """

    def __init__(
        self, plan: Plan, *, num_inputs: int, shape: Shape, output_stride: int, style: Style
    ) -> None:
        super().__init__()
        if shape not in _BLOCKS:
            raise ValueError(f"encoder {shape!r}; expected {', '.join(_BLOCKS)}")
        self.style = style
        base, bottleneck = plan.network.widths[0], shape == "resnet50"
        steps, dilations = schedule(plan, output_stride)
        self.stride = tuple(math.prod(of_axis) for of_axis in zip(*steps, strict=True))
        kernels = [*kernels_of(plan), *kernels_of(plan)[-1:] * _NUM_STRIDES]
        wide, pooled = (tuple(size if k > 1 else 1 for k in kernels[0]) for size in (7, 3))
        self.first = nn.Sequential(
            style.conv(num_inputs, base, kernel=wide, stride=steps[0]),
            style.normed(base),
            style.active(),
            Pool[Pool.MAX, style.dims](
                pooled, stride=steps[1], padding=tuple(size // 2 for size in pooled)
            ),
        )
        self.stages = nn.ModuleList()
        num_features = base
        # The first stage has no stride of its own.
        own = [(1,) * style.dims, *steps[_STRIDES_BEFORE_STAGES:]]
        for stage, num_blocks in enumerate(_BLOCKS[shape]):
            width = base * 2**stage
            blocks = []
            for block in range(num_blocks):
                # As in the reference implementations, a stage's first block keeps the dilation of
                # the stage before.
                before = dilations[max(stage - 1, 0)]
                blocks.append(
                    ResidualBlock(
                        style,
                        num_inputs=num_features,
                        width=width,
                        bottleneck=bottleneck,
                        kernel=kernels[_STRIDES_BEFORE_STAGES + stage],
                        stride=(1,) * style.dims if block else own[stage],
                        dilation=dilations[stage] if block else before,
                    )
                )
                num_features = width * 4 if bottleneck else width
            self.stages.append(nn.Sequential(*blocks))
        expansion = 4 if bottleneck else 1
        self.widths = tuple(base * 2**stage * expansion for stage in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the four stages, the shallowest first."""
        x = self.first(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def schedule(plan: Plan, output_stride: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Decide, axis by axis, where the encoder strides and where it dilates instead.

    Args:
        plan: its strides are taken in order, and 2 where it has fewer than five. An axis is strided
            by more than the plan does in all only as long as the patch has 4 voxels left along it;
            one that the plan never strides is neither strided nor dilated.
        output_stride: the most along any axis: 8, 16 or 32.

    Returns:
        The five strides of a ResNet, and the dilation of its four stages.

    Raises:
        ValueError: another output stride.
    """
    if output_stride not in _OUTPUT_STRIDES:
        raise ValueError(f"output_stride {output_stride}; expected 8, 16 or 32")
    totals = stride_of(plan)
    further = tuple(2 if total > 1 else 1 for total in totals)
    asked = [*strides_of(plan), *[further] * _NUM_STRIDES][:_NUM_STRIDES]
    most = [
        min(output_stride, max(total, size // _LEAST_FEATURES_VOX))
        for total, size in zip(totals, plan.patch_vox, strict=False)
    ]
    reached, dilation = [1] * plan.spatial_dims, [1] * plan.spatial_dims
    steps, dilations = [], [tuple(dilation)]
    for place, wanted in enumerate(asked):
        step = []
        for axis, stride in enumerate(wanted):
            taken = stride if reached[axis] * stride <= most[axis] else 1
            reached[axis] *= taken
            if taken < stride and place >= _STRIDES_BEFORE_STAGES:
                dilation[axis] *= stride
            step.append(taken)
        steps.append(tuple(step))
        if place >= _STRIDES_BEFORE_STAGES:
            dilations.append(tuple(dilation))
    return steps, dilations
