"""Any loss over overlapping regions: each is a question of its own, inside or not.

Axes: B batch, L label (0 is background), R region, IJK voxels (2D: IJ).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.losses.registry import Loss

# What a voxel gets, in the question of a region, when nobody labelled it.
REGION_IGNORE_INDEX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionLoss:
    """The mean over regions of a loss of two classes.

    A network has one logit z a region. The softmax of (0, z) is the sigmoid of z, so cross entropy
    becomes binary cross entropy and Dice the region's own, and every loss of two classes serves.

    Attributes:
        losses: one a region, of two outputs, made to ignore `REGION_IGNORE_INDEX`.
        members: indices of the classes of each region.
        ignore_index: label of voxels that nobody labelled; None where there is no such label.
    """

    losses: tuple[Loss, ...]
    members: tuple[tuple[int, ...], ...]
    ignore_index: int | None

    def __call__(
        self, logits_BRIJK: Tensor, label_BIJK: Tensor, annotated_BL: Tensor | None = None
    ) -> Tensor:
        """Return the loss as a float32 scalar.

        Args:
            logits_BRIJK: of any floating type.
            label_BIJK: indices of classes, and the ignore index.
            annotated_BL: bool, False where a class was not annotated in a scan; a region counts
                only where all its classes were.
        """
        parts = [
            loss(
                _against_nothing(logits_BRIJK[:, place]),
                self._target(label_BIJK, members),
                _annotated(annotated_BL, members),
            )
            for place, (loss, members) in enumerate(zip(self.losses, self.members, strict=True))
        ]
        return torch.stack(parts).mean()

    def _target(self, label_BIJK: Tensor, members: Sequence[int]) -> Tensor:
        inside = torch.isin(label_BIJK, torch.tensor(members).to(label_BIJK)).long()
        if self.ignore_index is None:
            return inside
        return torch.where(label_BIJK == self.ignore_index, REGION_IGNORE_INDEX, inside)


def _against_nothing(logit_BIJK: Tensor) -> Tensor:
    """Set a logit beside one that is always 0, (B, 2, I, J, K)."""
    return torch.stack([torch.zeros_like(logit_BIJK), logit_BIJK], dim=1)


def _annotated(annotated_BL: Tensor | None, members: Sequence[int]) -> Tensor | None:
    if annotated_BL is None:
        return None
    known_B = annotated_BL[:, list(members)].bool().all(dim=1)
    return torch.stack([torch.ones_like(known_B), known_B], dim=1)
