"""U-Net as it was published, in 2D (Ronneberger et al., MICCAI 2015) and 3D (Cicek et al., 2016).

A level is a pair of convolutions; max pooling leads down, a transposed convolution up, and the
skip is concatenated. Its first level works at full resolution. Convolutions are padded, so that
logits have the input's size, and normalised unless `norm` is null. Both convolutions of a level
have its width, as in 2D; those of the 3D paper widen one convolution earlier.
"""

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.convolutions import pair
from medseg.models.levels import kernels_of, strides_of
from medseg.models.registry import Layer, register_model


@register_model("classic_unet")
def classic_unet(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    norm: Layer | None = "instance",
    act: Layer = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """Build the published U-Net with the plan's depth, widths, strides and kernels."""
    dims, widths = plan.spatial_dims, plan.network.widths

    def level(num_seen: int, number: int) -> nn.Sequential:
        return pair(
            dims,
            num_seen,
            widths[number],
            kernel=kernels_of(plan)[number],
            norm=norm,
            act=act,
            dropout=dropout,
        )

    down = [level(before, n) for n, before in enumerate((num_inputs, *widths[:-1]))]
    pools = [Pool[Pool.MAX, dims](stride, stride) for stride in strides_of(plan)]
    grow, up = [], []
    for number in reversed(range(len(widths) - 1)):
        width, below, stride = widths[number], widths[number + 1], strides_of(plan)[number]
        grow.append(Conv[Conv.CONVTRANS, dims](below, width, stride, stride))
        up.append(level(2 * width, number))
    return ClassicUNet(
        down=nn.ModuleList(down),
        pools=nn.ModuleList(pools),
        grow=nn.ModuleList(grow),
        up=nn.ModuleList(up),
        score=Conv[Conv.CONV, dims](widths[0], num_outputs, 1),
    )


class ClassicUNet(nn.Module):
    """A contracting and an expanding path.

    Args:
        down: the levels on the way down, the finest first.
        pools: from each level to the next.
        grow: from each level to the one above, the coarsest first.
        up: the levels on the way up, in the same order.
        score: from the finest features to logits.
    """

    def __init__(
        self,
        *,
        down: nn.ModuleList,
        pools: nn.ModuleList,
        grow: nn.ModuleList,
        up: nn.ModuleList,
        score: nn.Module,
    ) -> None:
        super().__init__()
        self.down = down
        self.pools = pools
        self.grow = grow
        self.up = up
        self.score = score

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the input's size, which the strides must divide."""
        skips = []
        for level, pool in zip(self.down, self.pools, strict=False):
            x = level(x)
            skips.append(x)
            x = pool(x)
        x = self.down[-1](x)
        for grow, level in zip(self.grow, self.up, strict=True):
            x = level(torch.cat([skips.pop(), grow(x)], dim=1))
        logits: Tensor = self.score(x)
        return logits
