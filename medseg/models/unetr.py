"""UNETR (Hatamizadeh et al., WACV 2022): a vision transformer as the encoder of a U-Net.

It sees patches of 16 voxels along every axis, whatever the plan's strides, and has widths of its
own. Its learned positions are for the plan's patch; inputs of other sizes get them interpolated.

Axes: B batch, P patch, C channel, IJK patches along each axis.
"""

from monai.networks.nets import UNETR
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.padding import PaddedNetwork
from medseg.models.registry import register_model
from medseg.models.resize import enlarge

_PATCH_VOX = 16


@register_model("unetr")
def unetr(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    feature_size: int = 16,
    hidden_size: int = 768,
    mlp_dim: int = 3072,
    num_heads: int = 12,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a UNETR."""
    grid = tuple(-(-size // _PATCH_VOX) for size in plan.patch_vox[: plan.spatial_dims])
    network = UNETR(
        spatial_dims=plan.spatial_dims,
        in_channels=num_inputs,
        out_channels=num_outputs,
        img_size=tuple(_PATCH_VOX * number for number in grid),
        feature_size=feature_size,
        hidden_size=hidden_size,
        mlp_dim=mlp_dim,
        num_heads=num_heads,
        dropout_rate=dropout,
    )
    for block in network.vit.blocks:
        # Made by MONAI, used by none of its networks without cross attention.
        block.norm_cross_attn = nn.Identity()
    embedding = network.vit.patch_embedding
    network.vit.patch_embedding = StretchedPatches(
        embedding.patch_embeddings,
        position_1PC=embedding.position_embeddings,
        grid=grid,
        dropout=dropout,
    )
    return PaddedNetwork(AnySize(network, hidden_size), multiple=(_PATCH_VOX,) * plan.spatial_dims)


class AnySize(nn.Module):
    """MONAI's UNETR, told the grid of patches of each input.

    Args:
        network: the UNETR, which folds its patches back into the grid it was built for.
        hidden_size: length of a patch's vector.
    """

    def __init__(self, network: UNETR, hidden_size: int) -> None:
        super().__init__()
        self.network = network
        self.hidden_size = hidden_size

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the input's size, which must be a multiple of 16."""
        grid = [size // _PATCH_VOX for size in x.shape[2:]]
        self.network.proj_view_shape = [*grid, self.hidden_size]
        logits: Tensor = self.network(x)
        return logits


class StretchedPatches(nn.Module):
    """Patches as vectors, each with the position it has within the input.

    Args:
        patch: from x_BCIJK to a vector a patch, (B, C, I, J, K).
        position_1PC: learned vectors of position.
        grid: patches along each axis that these were made for.
        dropout: share of the vectors' entries set to zero while training.
    """

    def __init__(
        self, patch: nn.Module, *, position_1PC: Tensor, grid: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.patch = patch
        self.position_1CIJK = nn.Parameter(position_1PC.detach().mT.reshape(1, -1, *grid))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, P, C) vectors."""
        patch_BCIJK = self.patch(x)
        position_1CIJK = enlarge(self.position_1CIJK, patch_BCIJK.shape[2:])
        vectors: Tensor = self.dropout((patch_BCIJK + position_1CIJK).flatten(2).mT)
        return vectors
