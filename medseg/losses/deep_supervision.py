"""Deep supervision: coarser outputs are trained, too, each half as hard as the one before.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.losses.registry import LabelLoss


@dataclass(frozen=True, slots=True)
class DeepSupervision:
    """A loss over all outputs of a network (Lee et al., AISTATS 2015), weights 1/2^i, sum 1."""

    loss: LabelLoss

    def __call__(
        self,
        logits: Tensor | tuple[Tensor, ...],
        label_BIJK: Tensor,
        annotated_BL: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted mean of the loss; a single tensor of logits is taken as it is.

        Args:
            logits: finest first, each (B, L, I, J, K) at its own resolution.
            label_BIJK: at the finest resolution; coarser ones see its nearest voxels.
            annotated_BL: see `Loss`.
        """
        if isinstance(logits, Tensor):
            return self.loss(logits, label_BIJK, annotated_BL)
        weights = [0.5**level for level in range(len(logits))]
        losses = [
            self.loss(level, resize_labels(label_BIJK, level.shape[2:]), annotated_BL)
            for level in logits
        ]
        pairs = zip(weights, losses, strict=True)
        return torch.stack([weight * loss for weight, loss in pairs]).sum() / sum(weights)


def resize_labels(label_BIJK: Tensor, size: torch.Size) -> Tensor:
    """Return, for each voxel of a grid of another size, the label at its centre."""
    for axis, (coarse, fine) in enumerate(zip(size, label_BIJK.shape[1:], strict=True), start=1):
        if coarse != fine:
            # In whole numbers: the centre of voxel n lies at (n + 1/2) fine / coarse.
            steps = torch.arange(coarse, device=label_BIJK.device)
            label_BIJK = label_BIJK.index_select(axis, (2 * steps + 1) * fine // (2 * coarse))
    return label_BIJK
