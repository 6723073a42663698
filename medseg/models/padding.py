"""Inputs of any size: padded to what a network's strides need, and its logits cropped back.

Axes: B batch, C channel, L label, IJK voxels (2D: IJ).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class PaddedNetwork(nn.Module):
    """A network behind a door that takes any input size.

    The input's last voxels are repeated up to a multiple of the strides: zeros would be an edge
    that no training patch has. A patch of the planned size comes through as it is.

    Args:
        network: from x_BCIJK to logits_BLIJK of the same size, or a tuple of logits.
        multiple: what the network's input must be a multiple of, one number an axis.
    """

    def __init__(self, network: nn.Module, *, multiple: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, x_BCIJK: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits of the input's size; coarser ones are cropped to what they cover of it."""
        shape = x_BCIJK.shape[2:]
        padded = self._padded(shape)
        # By 0, too: `torch.export` keeps one way through a network, which must fit all sizes.
        logits = self.network(_fit(x_BCIJK, padded, mode="replicate"))
        if isinstance(logits, Tensor):
            return _crop(logits, list(shape))
        return tuple(
            _crop(
                level,
                [
                    -(-size * coarse // whole)
                    for size, coarse, whole in zip(shape, level.shape[2:], padded, strict=True)
                ],
            )
            for level in logits
        )

    def _padded(self, shape: torch.Size) -> list[int]:
        # Without negative numbers, of which `torch.export` finds no bounds.
        sizes = [(size + n - 1) // n * n for size, n in zip(shape, self.multiple, strict=True)]
        # Instance norm has no variance to divide by where the coarsest level is a single voxel.
        if sizes == list(self.multiple):
            sizes[0] *= 2
        return sizes


def _fit(x_BCIJK: Tensor, sizes: list[int], *, mode: str) -> Tensor:
    """Pad behind the last voxels along each axis, or crop there, to the given sizes."""
    ends = [size - had for size, had in zip(sizes, x_BCIJK.shape[2:], strict=True)]
    # torch counts axes from the last one, with a pair (before, after) each.
    pairs = [n for end in reversed(ends) for n in (0, end)]
    return functional.pad(x_BCIJK, pairs, mode=mode)


def _crop(logits_BLIJK: Tensor, sizes: list[int]) -> Tensor:
    if torch.compiler.is_exporting():
        # The strides of a view tell whether anything was cropped, and would bind the program to
        # that; elsewhere a view saves the memory of a copy.
        return _fit(logits_BLIJK, sizes, mode="constant")
    for axis, size in enumerate(sizes, start=2):
        logits_BLIJK = logits_BLIJK.narrow(axis, 0, size)
    return logits_BLIJK
