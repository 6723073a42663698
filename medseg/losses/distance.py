"""How far each voxel lies from the edge of a class, ignored voxels left out.

Axes: B batch, L foreground label, IJK voxels (2D: IJ).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medseg.losses.comparison import Comparison

Mask = NDArray[np.bool_]


def signed_distances(seen: Comparison, edges: Sequence[float] | None) -> Tensor:
    """Return, per foreground class, how far each voxel lies outside it (negative: inside).

    The distance runs from the voxel's centre to the nearest centre on the other side, so that
    every voxel has one: +1 and -1 voxel face each other across an edge. It is 0 everywhere for a
    class that a scan lacks or is filled by, since there is no edge to be far from.

    Args:
        seen: the batch.
        edges: lengths of a voxel's edges along i, j, k; None: 1 each. Coarser outputs of deep
            supervision are measured in their own voxels, as if these had the same edges.

    Returns:
        (B, L, I, J, K) float32 on the device of the batch, in the unit of `edges`.
    """
    inside_BLIJK = seen.labelled
    if seen.counted_BIJK is not None:
        inside_BLIJK = inside_BLIJK & seen.counted_BIJK[:, None]
    return _signed(inside_BLIJK, seen.counted_BIJK, edges)


def predicted_distances(seen: Comparison, edges: Sequence[float] | None) -> Tensor:
    """Return the same of the prediction, where a class is what is more probable than not."""
    inside_BLIJK = seen.logp_BLIJK.detach()[:, 1:] > np.log(0.5)
    if seen.counted_BIJK is not None:
        inside_BLIJK = inside_BLIJK & seen.counted_BIJK[:, None]
    return _signed(inside_BLIJK, seen.counted_BIJK, edges)


def _signed(
    inside_BLIJK: Tensor, counted_BIJK: Tensor | None, edges: Sequence[float] | None
) -> Tensor:
    masks = inside_BLIJK.cpu().numpy()
    counted = np.ones(masks.shape[:1] + masks.shape[2:], dtype=bool)
    if counted_BIJK is not None:
        counted = counted_BIJK.cpu().numpy()
    sampling = None if edges is None else tuple(edges)[: counted.ndim - 1]
    distances = np.zeros(masks.shape, dtype=np.float32)
    for scan, label in np.ndindex(masks.shape[:2]):
        distances[scan, label] = _signed_of(masks[scan, label], counted[scan], sampling)
    return torch.from_numpy(distances).to(inside_BLIJK.device)


def _signed_of(
    inside: Mask, counted: Mask, sampling: Sequence[float] | None
) -> NDArray[np.float32] | float:
    outside = counted & ~inside
    if not inside.any() or not outside.any():
        return 0.0
    # To the nearest voxel that is known to be on the other side, never to an ignored one.
    to_inside = ndimage.distance_transform_edt(~inside, sampling=sampling)
    to_outside = ndimage.distance_transform_edt(~outside, sampling=sampling)
    return np.asarray(np.where(inside, -to_outside, to_inside), dtype=np.float32)
