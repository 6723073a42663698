"""Fully convolutional networks (Long et al., CVPR 2015) on a residual encoder.

`32s`, `16s` and `8s` add up logits of the last one, two or three stages, as in the paper; `dilated`
keeps the encoder at `output_stride` and scores its last stage alone, which is what most libraries
call FCN.
"""

from typing import Literal

from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.dense import LastStage, dense_network, fully_convolutional
from medseg.models.encoder import GROUP_NORM, Encoder, Shape, Style
from medseg.models.registry import Layer, register_model
from medseg.models.resize import enlarge

_NUM_STAGES = {"32s": 1, "16s": 2, "8s": 3}
_FULL_STRIDE = 32


@register_model("fcn")
def fcn(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    variant: Literal["32s", "16s", "8s", "dilated"] = "8s",
    encoder: Shape = "resnet50",
    output_stride: int = 8,
    norm: Layer = GROUP_NORM,
    dropout: float = 0.1,
) -> nn.Module:
    """Build an FCN."""
    if variant not in (*_NUM_STAGES, "dilated"):
        raise ValueError(f"variant {variant!r}; expected 32s, 16s, 8s or dilated")
    style = Style(dims=plan.spatial_dims, norm=norm)
    stages = Encoder(
        plan,
        num_inputs=num_inputs,
        shape=encoder,
        output_stride=output_stride if variant == "dilated" else _FULL_STRIDE,
        style=style,
    )
    deepest = fully_convolutional(style, stages.widths[-1], num_outputs, dropout=dropout)
    if variant == "dilated":
        head: nn.Module = LastStage(deepest)
    else:
        shallower = stages.widths[-_NUM_STAGES[variant] : -1]
        head = SummedScores(
            deepest, [style.score(width, num_outputs) for width in reversed(shallower)]
        )
    return dense_network(plan, encoder=stages, head=head, num_outputs=num_outputs)


class SummedScores(nn.Module):
    """Logits of the deepest stage, refined by those of shallower ones.

    Args:
        deepest: from the deepest stage's features to logits.
        shallower: the same for the stages before it, the deepest first.
    """

    def __init__(self, deepest: nn.Module, shallower: list[nn.Module]) -> None:
        super().__init__()
        self.deepest = deepest
        self.shallower = nn.ModuleList(shallower)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits at the resolution of the shallowest stage that is scored."""
        logits: Tensor = self.deepest(features[-1])
        for score, stage in zip(self.shallower, reversed(features[:-1]), strict=False):
            finer = score(stage)
            logits = enlarge(logits, finer.shape[2:]) + finer
        return logits
