"""Context around each voxel: parallel dilated convolutions, or means over ever larger parts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.models.encoder import Style
from medseg.models.resize import enlarge


class MeanPool(nn.Module):
    """Means over equal parts of the features, enlarged again to their size.

    Args:
        style: of the layers.
        num_inputs: features that come in.
        num_outputs: features that go out.
        num_parts: into how many each axis is divided; 1 is the mean over all.
    """

    def __init__(
        self, style: Style, num_inputs: int, num_outputs: int, *, num_parts: int = 1
    ) -> None:
        super().__init__()
        pool = nn.AdaptiveAvgPool2d if style.dims == 2 else nn.AdaptiveAvgPool3d
        self.pool = pool(num_parts)
        self.unit = style.unit(num_inputs, num_outputs, kernel=1)
        if num_parts == 1 and isinstance(self.unit[1], nn.modules.instancenorm._InstanceNorm):
            # Over a single voxel a scan has no variance to divide by.
            self.unit[1] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the input's size."""
        return enlarge(self.unit(self.pool(x)), x.shape[2:])


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling with the mean over all (Chen et al., 2017, DeepLabV3).

    Args:
        style: of the layers.
        num_inputs: features that come in.
        num_outputs: features of each branch, and of their fusion.
        rates: dilation of each 3 x 3 branch, one number or one an axis.
        dropout: share of the fused features dropped while training.
        separable: whether those branches are separable convolutions (DeepLabV3+).
    """

    def __init__(
        self,
        style: Style,
        num_inputs: int,
        num_outputs: int,
        *,
        rates: Sequence[Sequence[int] | int],
        dropout: float,
        separable: bool = False,
    ) -> None:
        super().__init__()
        widened = style.separable if separable else style.unit
        self.branches = nn.ModuleList(
            [
                style.unit(num_inputs, num_outputs, kernel=1),
                *(widened(num_inputs, num_outputs, dilation=rate) for rate in rates),
                MeanPool(style, num_inputs, num_outputs),
            ]
        )
        self.fuse = nn.Sequential(
            style.unit(num_outputs * len(self.branches), num_outputs, kernel=1),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return fused features of the input's size."""
        features: Tensor = self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))
        return features


class MeanPyramid(nn.Module):
    """Pyramid pooling (Zhao et al., CVPR 2017): the features, and their means over parts.

    Args:
        style: of the layers.
        num_inputs: features that come in; a pyramid of n levels gives out n times 1/n more.
        parts: into how many each axis is divided, one number a level.
    """

    def __init__(self, style: Style, num_inputs: int, *, parts: Sequence[int]) -> None:
        super().__init__()
        width = num_inputs // len(parts)
        self.levels = nn.ModuleList(
            MeanPool(style, num_inputs, width, num_parts=number) for number in parts
        )
        self.num_outputs = num_inputs + width * len(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and the levels behind one another, of the input's size."""
        return torch.cat([x, *(level(x) for level in self.levels)], dim=1)
