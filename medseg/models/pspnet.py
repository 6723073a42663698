"""PSPNet (Zhao et al., CVPR 2017) on a residual encoder."""

from collections.abc import Sequence

from torch import nn

from medseg.core.plan import Plan
from medseg.models.context import MeanPyramid
from medseg.models.dense import LastStage, dense_network
from medseg.models.encoder import GROUP_NORM, Encoder, Shape, Style
from medseg.models.registry import Layer, register_model

_PARTS = (1, 2, 3, 6)


@register_model("pspnet")
def pspnet(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    encoder: Shape = "resnet50",
    output_stride: int = 8,
    parts: Sequence[int] = _PARTS,
    norm: Layer = GROUP_NORM,
    dropout: float = 0.1,
) -> nn.Module:
    """Build a PSPNet."""
    style = Style(dims=plan.spatial_dims, norm=norm)
    stages = Encoder(
        plan, num_inputs=num_inputs, shape=encoder, output_stride=output_stride, style=style
    )
    deepest = stages.widths[-1]
    pyramid = MeanPyramid(style, deepest, parts=parts)
    head = nn.Sequential(
        pyramid,
        style.unit(pyramid.num_outputs, deepest // 4),
        nn.Dropout(dropout),
        style.score(deepest // 4, num_outputs),
    )
    return dense_network(plan, encoder=stages, head=LastStage(head), num_outputs=num_outputs)
