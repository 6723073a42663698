"""UNet++ (Zhou et al., DLMIA 2018): every skip is a row of convolutions, refined from below.

Its first level works at full resolution, and so do all nodes of its first row.
"""

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.convolutions import pair
from medseg.models.levels import kernels_of, strides_of
from medseg.models.registry import Layer, register_model
from medseg.models.resize import enlarge

_NORM = ("instance", {"affine": True})
_ACT = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})


@register_model("unetplusplus")
def unetplusplus(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    norm: Layer = _NORM,
    act: Layer = _ACT,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a UNet++; with the plan's deep supervision, every node of the first row is scored."""
    dims, widths = plan.spatial_dims, plan.network.widths

    def node(level: int, num_seen: int) -> nn.Sequential:
        return pair(
            dims,
            num_seen,
            widths[level],
            kernel=kernels_of(plan)[level],
            norm=norm,
            act=act,
            dropout=dropout,
        )

    nodes = nn.ModuleDict()
    for level, width in enumerate(widths):
        nodes[_key(level, 0)] = node(level, widths[level - 1] if level else num_inputs)
        for column in range(1, len(widths) - level):
            nodes[_key(level, column)] = node(level, column * width + widths[level + 1])
    num_scores = len(widths) - 1 if plan.network.deep_supervision else 1
    scores = [Conv[Conv.CONV, dims](widths[0], num_outputs, 1) for _ in range(num_scores)]
    pools = [Pool[Pool.MAX, dims](stride, stride) for stride in strides_of(plan)]
    return NestedUNet(nodes, nn.ModuleList(pools), nn.ModuleList(scores))


class NestedUNet(nn.Module):
    """A triangle of nodes; each sees all nodes before it in its row, and one of the row below.

    Args:
        nodes: by level (0 is the finest) and column, see `_key`.
        pools: from each level to the next.
        scores: logits of the last nodes of the first row, the last node last.
    """

    def __init__(self, nodes: nn.ModuleDict, pools: nn.ModuleList, scores: nn.ModuleList) -> None:
        super().__init__()
        self.nodes = nodes
        self.pools = pools
        self.scores = scores

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits; while training with deep supervision those of all depths."""
        found: list[list[Tensor]] = []
        for level in range(len(self.pools) + 1):
            if level:
                x = self.pools[level - 1](found[-1][0])
            found.append([self.nodes[_key(level, 0)](x)])
            # A new level lets each row above grow by one node, from the bottom up.
            for above in reversed(range(level)):
                seen = found[above]
                below = enlarge(found[above + 1][-1], seen[0].shape[2:])
                node = self.nodes[_key(above, len(seen))]
                seen.append(node(torch.cat([*seen, below], dim=1)))
        if not self.training or len(self.scores) == 1:
            logits: Tensor = self.scores[-1](found[0][-1])
            return logits
        nodes = found[0][-len(self.scores) :]
        levels = [score(node) for score, node in zip(self.scores, nodes, strict=True)]
        return tuple(reversed(levels))


def _key(level: int, column: int) -> str:
    return f"{level}_{column}"
