"""A skeleton that gradients pass through, by minima and maxima of neighbours.

Axes: B batch, L label, IJK voxels (2D: IJ).
"""

import torch
from torch import Tensor
from torch.nn import functional


def soft_skeleton(p_BLIJK: Tensor, counted_BIJK: Tensor | None, *, iterations: int) -> Tensor:
    """Return how much each voxel belongs to the skeleton (Shit et al., CVPR 2021, algorithm 1).

    What an opening removes is thin; it is collected while the shape is eroded. Ignored voxels are
    treated like the world beyond the border: they neither erode nor grow anything.

    Args:
        p_BLIJK: probabilities, or a mask as 0 and 1.
        counted_BIJK: False where a voxel is ignored; None where all count.
        iterations: erosions, as many as the widest tube's radius in voxels.

    Returns:
        (B, L, I, J, K), 0 to 1, 0 at ignored voxels.
    """
    ignored_B1IJK = None if counted_BIJK is None else ~counted_BIJK[:, None]
    skeleton = torch.zeros_like(p_BLIJK)
    for _ in range(iterations + 1):
        eroded = _erode(p_BLIJK, ignored_B1IJK)
        thin = functional.relu(p_BLIJK - _dilate(eroded, ignored_B1IJK))
        # Both at once: union of two soft sets, a + b - ab.
        skeleton = skeleton + functional.relu(thin - skeleton * thin)
        p_BLIJK = eroded
    return _filled(skeleton, ignored_B1IJK, 0.0)


def _erode(p_BLIJK: Tensor, ignored_B1IJK: Tensor | None) -> Tensor:
    """Return the least of each voxel and its neighbours across faces."""
    p_BLIJK = _filled(p_BLIJK, ignored_B1IJK, 1.0)
    least = p_BLIJK
    for axis in range(p_BLIJK.ndim - 2):
        # Pooling pads with the lowest number, so that the border erodes nothing.
        least = torch.minimum(least, -_largest(-p_BLIJK, axis))
    return least


def _dilate(p_BLIJK: Tensor, ignored_B1IJK: Tensor | None) -> Tensor:
    """Return the largest of each voxel and all its neighbours, an axis after the other."""
    largest = _filled(p_BLIJK, ignored_B1IJK, 0.0)
    for axis in range(p_BLIJK.ndim - 2):
        largest = _largest(largest, axis)
    return largest


def _largest(values: Tensor, axis: int) -> Tensor:
    dims = values.ndim - 2
    size = [3 if own == axis else 1 for own in range(dims)]
    pool = functional.max_pool3d if dims == 3 else functional.max_pool2d
    largest: Tensor = pool(values, size, stride=1, padding=[n // 2 for n in size])
    return largest


def _filled(p_BLIJK: Tensor, ignored_B1IJK: Tensor | None, value: float) -> Tensor:
    return p_BLIJK if ignored_B1IJK is None else p_BLIJK.masked_fill(ignored_B1IJK, value)
