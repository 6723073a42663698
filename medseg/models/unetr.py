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
# The blocks of the transformer whose vectors the decoder sees, as in the paper.
_SKIPPED_BLOCKS = (3, 6, 9)


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
    return PaddedNetwork(AnySize(network), multiple=(_PATCH_VOX,) * plan.spatial_dims)


class AnySize(nn.Module):
    """MONAI's UNETR on the grid of patches of each input, not on the one it was built for.

    Args:
        network: the UNETR, whose parts are used.
    """

    def __init__(self, network: UNETR) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the input's size, which must be a multiple of 16."""
        net = self.network
        grid = [size // _PATCH_VOX for size in x.shape[2:]]
        vectors_BPC, of_blocks = net.vit(x)
        fine = net.encoder1(x)
        first, second, third = (
            encode(_as_features(of_blocks[block], grid))
            for encode, block in zip(
                (net.encoder2, net.encoder3, net.encoder4), _SKIPPED_BLOCKS, strict=True
            )
        )
        features = net.decoder5(_as_features(vectors_BPC, grid), third)
        features = net.decoder3(net.decoder4(features, second), first)
        logits: Tensor = net.out(net.decoder2(features, fine))
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


def _as_features(vectors_BPC: Tensor, grid: list[int]) -> Tensor:
    """Lay a vector a patch on the grid of patches, (B, C, I, J, K)."""
    num_scans, _, num_features = vectors_BPC.shape
    return vectors_BPC.mT.reshape(num_scans, num_features, *grid).contiguous()
