"""Learning without labels: parts of a patch are hidden, and the network says what was there.

Masked reconstruction, as in masked autoencoders (He et al., CVPR 2022; for volumes Tang et al.,
CVPR 2022), by any family that predicts voxels: it ends in the image's channels.

Axes: B patch, C channel, IJK voxel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.core.errors import ConfigError
from medseg.transforms.augment import Augment


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """What is hidden of a patch.

    Attributes:
        share: of the blocks, above 0 and below 1.
        block_vox: edge of a block, along every axis.

    Raises:
        ConfigError: a share or a size without meaning.
    """

    share: float = 0.6
    block_vox: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.block_vox < 1:
            raise ConfigError(
                f"training.pretrain: share {self.share}, block_vox {self.block_vox}; expected "
                "above 0 and below 1, and at least 1"
            )

    def hidden(self, image_BCIJK: Tensor, *, generator: torch.Generator) -> Tensor:
        """Draw which voxels are hidden, (B, I, J, K) bool: the same share of blocks a patch."""
        size = image_BCIJK.shape[2:]
        blocks = [-(-n // self.block_vox) for n in size]
        num_blocks = torch.Size(blocks).numel()
        num_hidden = min(max(1, round(self.share * num_blocks)), max(1, num_blocks - 1))
        rank_BN = torch.rand((len(image_BCIJK), num_blocks), generator=generator).argsort(1)
        hidden = (rank_BN < num_hidden).view(-1, *blocks)
        for axis, length in enumerate(size, start=1):
            hidden = hidden.repeat_interleave(self.block_vox, dim=axis).narrow(axis, 0, length)
        return hidden.to(image_BCIJK.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedAugment:
    """Augments a patch, keeps it as the target, and hides blocks of what the network sees."""

    augment: Augment
    masking: Masking

    def __call__(
        self, image_BCIJK: Tensor, *maps_BIJK: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Return the image with hidden blocks set to 0, the image itself, and what is hidden."""
        whole_BCIJK = self.augment(image_BCIJK, *maps_BIJK, generator=generator)[0]
        hidden_BIJK = self.masking.hidden(whole_BCIJK, generator=generator)
        seen_BCIJK = whole_BCIJK.masked_fill(hidden_BIJK[:, None], 0.0)
        return seen_BCIJK, whole_BCIJK, hidden_BIJK


def reconstruction_loss(
    predicted_BCIJK: Tensor | tuple[Tensor, ...],
    whole_BCIJK: Tensor,
    hidden_BIJK: Tensor,
    annotated_BL: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error over hidden voxels, of the finest output alone.

    Args:
        predicted_BCIJK: with deep supervision a tuple, the finest first.
        whole_BCIJK: what was there.
        hidden_BIJK: True where the network could not see it.
        annotated_BL: nobody annotated anything; not looked at.
    """
    del annotated_BL
    finest = predicted_BCIJK if isinstance(predicted_BCIJK, Tensor) else predicted_BCIJK[0]
    hidden_B1IJK = hidden_BIJK[:, None].expand_as(whole_BCIJK)
    return (finest.float() - whole_BCIJK.float())[hidden_B1IJK].square().mean()
