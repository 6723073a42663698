"""DeepLabV3 (Chen et al., 2017) and DeepLabV3+ (Chen et al., ECCV 2018) on a residual encoder."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.context import AtrousPyramid
from medseg.models.dense import LastStage, dense_network
from medseg.models.encoder import GROUP_NORM, Encoder, Shape, Style
from medseg.models.registry import Layer, register_model
from medseg.models.resize import enlarge

# Dilations of the paper at output stride 16 and the crop, in pixels, that it trained on.
_RATES, _STRIDE, _CROP_VOX = (6, 12, 18), 16, 513
# The paper's head has 256 features where the encoder's first convolution has 64, and the decoder
# sees 48 of the first stage.
_HEAD_SHARE, _SHALLOW_SHARE = 256 / 64, 48 / 64
_NUM_GROUPS = 8


@register_model("deeplabv3")
def deeplabv3(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    encoder: Shape = "resnet50",
    output_stride: int = 16,
    rates: Sequence[int] | None = None,
    norm: Layer = GROUP_NORM,
    dropout: float = 0.5,
) -> nn.Module:
    """Build a DeepLabV3."""
    style = Style(dims=plan.spatial_dims, norm=norm)
    stages = Encoder(
        plan, num_inputs=num_inputs, shape=encoder, output_stride=output_stride, style=style
    )
    width = _width(plan, _HEAD_SHARE)
    head = nn.Sequential(
        AtrousPyramid(
            style,
            stages.widths[-1],
            width,
            rates=rates or atrous_rates(plan, stages.stride),
            dropout=dropout,
        ),
        style.unit(width, width),
        style.score(width, num_outputs),
    )
    return dense_network(plan, encoder=stages, head=LastStage(head), num_outputs=num_outputs)


@register_model("deeplabv3plus")
def deeplabv3plus(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    encoder: Shape = "resnet50",
    output_stride: int = 16,
    rates: Sequence[int] | None = None,
    norm: Layer = GROUP_NORM,
    dropout: float = 0.5,
) -> nn.Module:
    """Build a DeepLabV3+, separable convolutions in context and decoder."""
    style = Style(dims=plan.spatial_dims, norm=norm)
    stages = Encoder(
        plan, num_inputs=num_inputs, shape=encoder, output_stride=output_stride, style=style
    )
    width, shallow_width = _width(plan, _HEAD_SHARE), _width(plan, _SHALLOW_SHARE)
    head = ShallowAndDeep(
        shallow=style.unit(stages.widths[0], shallow_width, kernel=1),
        deep=AtrousPyramid(
            style,
            stages.widths[-1],
            width,
            rates=rates or atrous_rates(plan, stages.stride),
            dropout=dropout,
            separable=True,
        ),
        fuse=nn.Sequential(
            style.separable(width + shallow_width, width),
            style.separable(width, width),
            style.score(width, num_outputs),
        ),
    )
    return dense_network(plan, encoder=stages, head=head, num_outputs=num_outputs)


class ShallowAndDeep(nn.Module):
    """The decoder of DeepLabV3+: deep context, enlarged, beside the first stage's features.

    Args:
        shallow: narrows the first stage, so that it does not outweigh the context.
        deep: context of the last stage.
        fuse: from both to logits.
    """

    def __init__(self, *, shallow: nn.Module, deep: nn.Module, fuse: nn.Module) -> None:
        super().__init__()
        self.shallow = shallow
        self.deep = deep
        self.fuse = fuse

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits at the first stage's resolution."""
        fine = self.shallow(features[0])
        deep = enlarge(self.deep(features[-1]), fine.shape[2:])
        logits: Tensor = self.fuse(torch.cat([deep, fine], dim=1))
        return logits


def atrous_rates(plan: Plan, stride: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the dilations of the context's branches, one number an axis each.

    They are the paper's for the stride along an axis (twice as wide at 8), narrower where the patch
    is smaller than the paper's crop: else the widest would see nothing but padding.

    Args:
        plan: whose patch it is.
        stride: of these features, one number an axis.
    """
    of_axes = [
        [max(1, round(rate * _STRIDE / step * min(1, size / _CROP_VOX))) for rate in _RATES]
        for size, step in zip(plan.patch_vox, stride, strict=False)
    ]
    return list(zip(*of_axes, strict=True))


def _width(plan: Plan, share: float) -> int:
    """Return a share of the plan's first width, rounded up for the groups of a group norm."""
    return math.ceil(share * plan.network.widths[0] / _NUM_GROUPS) * _NUM_GROUPS
