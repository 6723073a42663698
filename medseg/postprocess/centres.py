"""Voxels grouped by the centre they point at (Panoptic-DeepLab: Cheng et al., CVPR 2020).

Axes: A spatial axis, IJK voxel, M centre, N voxel of a thing. All of it runs where the maps are.
"""

from collections.abc import Sequence

import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from medseg.core.objects import Centres
from medseg.postprocess.smoothing import smooth

# Distances between voxels and centres held at once, 64 MB.
_MOST_DISTANCES = 2**24


def group_by_centres(
    heat_IJK: Tensor, offset_AIJK: Tensor, mask_IJK: Tensor, *, way: Centres, edges: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Give each voxel of a thing to the centre nearest to where it points.

    Args:
        heat_IJK: how much a voxel is a centre, about 0 to 1.
        offset_AIJK: from a voxel to its centre, in `way.unit_vox`; two axes for pictures.
        mask_IJK: voxels of things.
        way: see there.
        edges: of a voxel along i, j, k, in any unit.

    Returns:
        Ids (I, J, K), int32, 0 where no thing is or no centre was found; and the heat of each
        object's centre before the blur, M numbers.
    """
    blurred_IJK = smooth(heat_IJK, sigma_vox=way.smooth_vox, edges=edges)
    peaks_M3 = find_peaks(blurred_IJK, way=way, edges=edges)
    ids_IJK = torch.zeros(heat_IJK.shape, dtype=torch.int32, device=heat_IJK.device)
    if not len(peaks_M3):
        return ids_IJK, heat_IJK.new_zeros(0)
    voxels_N3 = mask_IJK.nonzero()
    size = torch.tensor(edges, dtype=torch.float32, device=heat_IJK.device)
    at_N3 = voxels_N3.float() * size
    num_axes = len(offset_AIJK)
    at_N3[:, :num_axes] += offset_AIJK[:, mask_IJK].T * way.unit_vox * size.min()
    ids_IJK[mask_IJK] = _nearest(at_N3, peaks_M3.float() * size) + 1
    return ids_IJK, heat_IJK[tuple(peaks_M3.T)]


def find_peaks(heat_IJK: Tensor, *, way: Centres, edges: Sequence[float]) -> Tensor:
    """Return the voxels (M, 3) that are hotter than all others within `way.apart_vox`."""
    finest = min(edges)
    reach = [
        0 if size == 1 else max(1, round(way.apart_vox * finest / edge))
        for size, edge in zip(heat_IJK.shape, edges, strict=True)
    ]
    peak_IJK = (heat_IJK == highest_within(heat_IJK, reach)) & (heat_IJK > way.least_heat)
    # Of equally hot neighbours the last one counts; float64 holds every index exactly.
    order_IJK = torch.arange(1, heat_IJK.numel() + 1, device=heat_IJK.device, dtype=torch.float64)
    order_IJK = order_IJK.reshape(heat_IJK.shape) * peak_IJK
    return (peak_IJK & (order_IJK == highest_within(order_IJK, reach))).nonzero()


def highest_within(values_IJK: Tensor, reach: Sequence[int]) -> Tensor:
    """Return the largest value within a box about each voxel, an axis after the other."""
    pooled = values_IJK[None, None]
    for axis, far in enumerate(reach):
        edge, border = [1, 1, 1], [0, 0, 0]
        edge[axis], border[axis] = 2 * far + 1, far
        pooled = functional.max_pool3d(pooled, edge, stride=1, padding=border)
    return pooled[0, 0]


def _nearest(at_N3: Tensor, centres_M3: Tensor) -> Tensor:
    """Return for each position the number of the nearest centre, int32."""
    if at_N3.device.type == "cpu":
        # Not every centre is looked at for every voxel; on a GPU looking at all of them is faster.
        _, nearest = cKDTree(centres_M3.numpy()).query(at_N3.numpy())
        return torch.from_numpy(nearest).int()
    step = max(1, _MOST_DISTANCES // len(centres_M3))
    parts = [
        # The faster way by matrix products is off by more than a voxel far from the origin.
        torch.cdist(part, centres_M3, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        for part in torch.split(at_N3, step)
    ]
    return torch.cat(parts).int()
