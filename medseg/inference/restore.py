"""Back onto the scan's own grid: what was predicted on the plan's grid, where it belongs.

Axes: L output, IJK voxel. The mapping is by affine alone, so oblique, flipped and sheared scans
need no case of their own.
"""

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from medseg.core.geometry import Geometry

# An index that is off by less than this is whole: header round-off, not a resampling.
_WHOLE_VOX = 1e-3
# Target slices resampled at once; bounds the memory of the sampling grid.
_SLAB_VOX = 2_000_000


def restore(scores_LIJK: torch.Tensor, geometry: Geometry, *, onto: Geometry) -> torch.Tensor:
    """Bring scores (logits or probabilities) onto another grid.

    Args:
        scores_LIJK: on `geometry`.
        geometry: the plan's grid of this scan.
        onto: the scan's own grid; voxels outside `geometry` take the nearest value on its border.

    Returns:
        Scores (L, I, J, K) on `onto`: moved exactly when the grids differ by flips and an order of
        axes only, else interpolated linearly.
    """
    return torch.cat([slab for _, slab in _slabs(scores_LIJK, geometry, onto=onto)], dim=3)


def restore_label_map(
    scores_LIJK: torch.Tensor,
    geometry: Geometry,
    *,
    onto: Geometry,
    decide: Callable[[torch.Tensor], NDArray[Any]],
) -> NDArray[Any]:
    """Return the label of every voxel of another grid, without holding all scores there.

    Args:
        scores_LIJK: logits or probabilities on `geometry`.
        geometry: the plan's grid of this scan.
        onto: the scan's own grid.
        decide: turns scores (L, I, J, K) into labels (I, J, K).

    Returns:
        Indices (I, J, K) on `onto`, of the type that `decide` returns.
    """
    slabs = _slabs(scores_LIJK, geometry, onto=onto)
    return np.concatenate([decide(slab) for _, slab in slabs], axis=2)


def restore_ids(ids_IJK: torch.Tensor, geometry: Geometry, *, onto: Geometry) -> NDArray[np.int32]:
    """Return ids of objects on another grid, each voxel the nearest one's; at most 2^24 objects."""
    slabs = _slabs(ids_IJK[None].float(), geometry, onto=onto, mode="nearest")
    whole = np.concatenate([slab[0].cpu().numpy() for _, slab in slabs], axis=2)
    return np.asarray(np.rint(whole), dtype=np.int32)


def is_moved_exactly(geometry: Geometry, *, onto: Geometry) -> bool:
    """Tell whether only flips and an order of axes lie between two grids."""
    nothing = torch.empty((0, *geometry.shape))
    return _reordered(nothing, np.linalg.inv(geometry.affine) @ onto.affine, onto) is not None


def _slabs(
    scores_LIJK: torch.Tensor, geometry: Geometry, *, onto: Geometry, mode: str = "bilinear"
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield pieces of the target along k: the first slice of each, and its scores."""
    to_source = np.linalg.inv(geometry.affine) @ onto.affine
    moved = _reordered(scores_LIJK, to_source, onto)
    if moved is not None:
        yield 0, moved
        return
    depth = max(1, _SLAB_VOX // (onto.shape[0] * onto.shape[1]))
    for first in range(0, onto.shape[2], depth):
        last = min(first + depth, onto.shape[2])
        yield first, _sampled(scores_LIJK, to_source, onto, k_range=(first, last), mode=mode)


def _reordered(
    scores_LIJK: torch.Tensor, to_source: NDArray[np.float64], onto: Geometry
) -> torch.Tensor | None:
    """Reorder and flip axes, when that is all that lies between the grids; else None."""
    for order in permutations(range(3)):
        # Axis a of the target runs along axis order[a] of the source.
        signs = np.array([to_source[order[a], a] for a in range(3)])
        expected = np.zeros((3, 3))
        expected[list(order), range(3)] = np.sign(signs)
        size = np.array([scores_LIJK.shape[1 + axis] for axis in order])
        if not np.array_equal(size, onto.shape):
            continue
        start = np.zeros(3)
        start[list(order)] = np.where(signs < 0, size - 1, 0)
        reach = np.asarray(onto.shape).max()
        if (
            np.abs(to_source[:3, :3] - expected).max() * reach < _WHOLE_VOX
            and np.abs(to_source[:3, 3] - start).max() < _WHOLE_VOX
        ):
            moved = scores_LIJK.permute(0, *(axis + 1 for axis in order))
            return moved.flip([a + 1 for a in range(3) if signs[a] < 0])
    return None


def _sampled(
    scores_LIJK: torch.Tensor,
    to_source: NDArray[np.float64],
    onto: Geometry,
    *,
    k_range: tuple[int, int],
    mode: str,
) -> torch.Tensor:
    """Interpolate the scores at the voxels of some target slices."""
    device = scores_LIJK.device
    axes = [
        torch.arange(n, device=device, dtype=torch.float64) for n in (onto.shape[0], onto.shape[1])
    ] + [torch.arange(*k_range, device=device, dtype=torch.float64)]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    matrix = torch.from_numpy(to_source).to(device)
    source = index @ matrix[:3, :3].T + matrix[:3, 3]
    size = torch.tensor(scores_LIJK.shape[1:], device=device, dtype=torch.float64)
    # grid_sample wants the last axis first, scaled so that -1 and 1 are the outer voxel edges.
    grid = ((2 * source + 1) / size - 1).flip(-1).to(scores_LIJK.dtype)
    return functional.grid_sample(
        scores_LIJK[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )[0]
