"""A patch blurred as a softer kernel or a thicker focus would have drawn it.

Axes: C channel, IJK voxel.
"""

import torch
from torch.nn import functional


def blurred(image_CIJK: torch.Tensor, sigma_vox: float) -> torch.Tensor:
    """Blur with a separable Gaussian of three deviations' reach."""
    reach = max(1, round(3 * sigma_vox))
    offsets = torch.arange(-reach, reach + 1, device=image_CIJK.device, dtype=image_CIJK.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma_vox) ** 2)
    kernel = kernel / kernel.sum()
    soft_C1IJK = image_CIJK[:, None]
    for axis in range(3):
        if image_CIJK.shape[axis + 1] == 1:
            continue
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[axis + 2], padding[axis] = len(offsets), reach
        edges = [amount for pad in reversed(padding) for amount in (pad, pad)]
        soft_C1IJK = functional.conv3d(
            functional.pad(soft_C1IJK, edges, mode="replicate"), kernel.reshape(shape)
        )
    return soft_C1IJK[:, 0]
