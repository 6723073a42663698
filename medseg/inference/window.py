"""Sliding windows: a network's answer for a volume of any size, patch by patch, blended.

Axes: B window, C channel, L output, IJK voxel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import torch
from torch.nn import functional

from medseg.core.errors import ConfigError

Network = Callable[[torch.Tensor], torch.Tensor]
Start = tuple[int, int, int]
Triple = tuple[int, int, int]

# Deviation of the Gaussian weights as a share of the patch, as nnU-Net has it (Isensee et al.,
# Nature Methods 2021): predictions are best in the middle of a patch.
_SIGMA_SHARE = 1 / 8
# The rim of a window still counts, or voxels at the scan's border would be divided by nothing.
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """How windows are laid and weighed.

    Attributes:
        patch_vox: size of a window along i, j, k.
        overlap: share of a window that the next one repeats, 0 up to (not including) 1.
        batch_size: windows that go through the network together.
        mirror_axes: axes (0, 1, 2) along which windows are also predicted mirrored, and averaged.
        sided_axis: the axis that runs between left and right.
        mirror_order: for each output, the output a mirror along that axis turns it into (left and
            right partners); None when no classes are partners.
        vector_outputs: outputs that are a vector's components along axes 0, 1 (and 2): a mirror
            turns the sign of its own.
    """

    patch_vox: Triple
    overlap: float = 0.5
    batch_size: int = 1
    mirror_axes: tuple[int, ...] = ()
    sided_axis: int = 0
    mirror_order: tuple[int, ...] | None = None
    vector_outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"overlap={self.overlap}: expected 0 up to (not including) 1")
        if self.batch_size < 1:
            raise ConfigError(f"window batch size {self.batch_size}: expected at least 1")


@torch.inference_mode()
def predict_logits(
    image_CIJK: torch.Tensor, network: Network, *, settings: WindowSettings, device: torch.device
) -> torch.Tensor:
    """Predict a whole volume by overlapping windows with Gaussian weights.

    Args:
        image_CIJK: the prepared scan, on any device.
        network: maps (B, C, I, J, K) to logits (B, L, I, J, K); in evaluation mode.
        settings: see there.
        device: where the network is; windows are blended there too.

    Returns:
        Logits (L, I, J, K), float32, on `device`.
    """
    shape = tuple(image_CIJK.shape[1:])
    padded, offset = _pad(image_CIJK.to(device), settings.patch_vox)
    starts = list(window_starts(tuple(padded.shape[1:]), settings))
    weight_IJK = gaussian_weights(settings.patch_vox, device=device)
    total: torch.Tensor | None = None
    weights = torch.zeros(padded.shape[1:], device=device)
    for first in range(0, len(starts), settings.batch_size):
        chosen = starts[first : first + settings.batch_size]
        windows = torch.stack([padded[_box(s, settings.patch_vox)] for s in chosen])
        logits_BLIJK = _mirrored(windows, network, settings).float()
        if total is None:
            total = torch.zeros((logits_BLIJK.shape[1], *padded.shape[1:]), device=device)
        for start, logits_LIJK in zip(chosen, logits_BLIJK, strict=True):
            box = _box(start, settings.patch_vox)
            total[box] += logits_LIJK * weight_IJK
            weights[box] += weight_IJK
    if total is None:
        raise ConfigError(f"a scan of shape {shape} holds no window")
    total /= weights
    return total[_box(offset, shape)]


def window_starts(shape: Sequence[int], settings: WindowSettings) -> Iterator[Start]:
    """Yield the first voxel of every window; windows cover the shape and never leave it.

    Args:
        shape: of a volume at least as large as the patch along every axis.
        settings: patch and overlap.
    """
    axes = []
    for size, patch in zip(shape, settings.patch_vox, strict=True):
        step = max(1, int(patch * (1 - settings.overlap)))
        count = 1 + -(-(size - patch) // step)
        # Spread evenly instead of bunching the last window against the end.
        span = (size - patch) / max(count - 1, 1)
        axes.append([round(n * span) for n in range(count)])
    yield from ((i, j, k) for i, j, k in product(*axes))


def gaussian_weights(patch_vox: Triple, *, device: torch.device) -> torch.Tensor:
    """Weights (I, J, K) of a window's voxels: about 1 in the middle, never below a thousandth."""
    profiles = []
    for size in patch_vox:
        distance = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
        profiles.append(torch.exp(-0.5 * (distance / max(size * _SIGMA_SHARE, 1e-6)) ** 2))
    i, j, k = profiles
    weight_IJK = i[:, None, None] * j[None, :, None] * k[None, None, :]
    return weight_IJK.clamp_min(_LEAST_WEIGHT)


def _mirrored(
    windows_BCIJK: torch.Tensor, network: Network, settings: WindowSettings
) -> torch.Tensor:
    """Average the predictions of the windows and of their mirror images."""
    axes = settings.mirror_axes
    flips = [flip for n in range(len(axes) + 1) for flip in combinations(axes, n)]
    total = network(windows_BCIJK)
    for flip in flips[1:]:
        dims = [axis + 2 for axis in flip]
        logits = network(windows_BCIJK.flip(dims)).flip(dims)
        if settings.sided_axis in flip and settings.mirror_order is not None:
            # A mirrored left kidney looks like a right one: give each back its side.
            logits = logits[:, list(settings.mirror_order)]
        for axis, output in enumerate(settings.vector_outputs):
            if axis in flip:
                logits[:, output].neg_()
        total = total + logits
    return total / len(flips)


def _pad(image_CIJK: torch.Tensor, patch_vox: Triple) -> tuple[torch.Tensor, Start]:
    """Pad with zeros up to one patch; return the padded image and where the scan begins in it."""
    missing = [max(0, p - n) for n, p in zip(image_CIJK.shape[1:], patch_vox, strict=True)]
    before = [m // 2 for m in missing]
    amounts = [(b, m - b) for b, m in zip(before, missing, strict=True)]
    flat = [amount for pair in reversed(amounts) for amount in pair]
    i, j, k = before
    return functional.pad(image_CIJK, flat), (i, j, k)


def _box(start: Sequence[int], size: Sequence[int]) -> tuple[Any, ...]:
    """Index of a box in the last three axes of a tensor, whatever axes come before."""
    return (..., *(slice(s, s + n) for s, n in zip(start, size, strict=True)))
