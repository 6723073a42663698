"""A map that a network draws is rough from voxel to voxel; what is sought in it is larger.

Axes: IJK voxel. It runs where the map is.
"""

from collections.abc import Sequence

import torch
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.layers.simplelayers import separable_filtering
from torch import Tensor


def smooth(map_IJK: Tensor, *, sigma_vox: float, edges: Sequence[float]) -> Tensor:
    """Return a map blurred by a Gaussian, in float32; beyond its border it goes on as it ends.

    Args:
        map_IJK: of any precision.
        sigma_vox: deviation, in edges of the finest voxel axis; 0 leaves the map as it is.
        edges: of a voxel along i, j, k, in any unit.
    """
    # What networks draw on a GPU may be bfloat16, which NumPy does not know.
    map_IJK = map_IJK.float()
    if not sigma_vox:
        return map_IJK
    finest = min(edges)
    kernels = [
        _kernel(sigma_vox * finest / edge if size > 1 else 0.0)
        for size, edge in zip(map_IJK.shape, edges, strict=True)
    ]
    blurred: Tensor = separable_filtering(map_IJK[None, None], kernels, mode="replicate")[0, 0]
    return blurred


def _kernel(sigma: float) -> Tensor:
    if not sigma:
        return torch.ones(1)
    kernel: Tensor = gaussian_1d(torch.tensor(sigma), approx="sampled", normalize=True)
    return kernel
