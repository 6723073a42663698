"""What a network is to say about objects, made of the ids a batch is left with after augmentation.

A rotation turns offsets and a zoom stretches distances, so targets are made last, on the device.
Lengths are in edges of the finest voxel axis.

What a patch holds of an object does not tell where its centre is; each patch brings along the
centres and sizes of the whole objects, `objects_BM5`: float32 rows of `OBJECT_COLUMNS`, the centre
in voxels of the patch (or beyond it), ids ascending, and rows left over with an infinite id. The
size is 0 where ignored voxels leave open how far an object goes.

Axes: B patch, A spatial axis, IJK voxel (2D: IJ), N voxel, M object of a patch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

OBJECT_COLUMNS = ("id", "centre_i", "centre_j", "centre_k", "size_vox")
# Farther than any surface in a patch; still finite, so that shares of it are numbers.
_FAR = 1e4


def number_objects(ids_BIJK: Tensor) -> Tensor:
    """Number the objects of a batch 1..M, those of every patch anew; int64, 0 stays 0."""
    patches = torch.arange(len(ids_BIJK), device=ids_BIJK.device)
    patches = patches.reshape(-1, *[1] * (ids_BIJK.ndim - 1))
    ids_BIJK = ids_BIJK.long()
    code = torch.where(ids_BIJK > 0, ids_BIJK + patches * (ids_BIJK.max() + 1), 0)
    values, number = torch.unique(code, return_inverse=True)
    return torch.as_tensor(number if values[0] == 0 else number + 1)


def centre_targets(
    ids_BIJK: Tensor, objects_BM5: Tensor, *, edges: Sequence[float], sigma_share: float
) -> tuple[Tensor, Tensor]:
    """Return the heat of centres and the offset of each voxel to its own.

    The deviation of the heat about a centre is `sigma_share` of the radius of a ball (disc) of the
    object's size.

    Args:
        ids_BIJK: object ids; 0 for none.
        objects_BM5: of the whole objects, see above.
        edges: of a voxel along the spatial axes, in any unit.
        sigma_share: see above.

    Returns:
        heat_BIJK, 1 at a centre, and offset_BAIJK; 0 outside objects.
    """
    size = [edge / min(edges) for edge in edges]
    row_BN, inside_BN = _rows(ids_BIJK, objects_BM5), ids_BIJK.flatten(1) > 0
    offset_BAN = torch.stack(
        [
            (objects_BM5[..., axis].gather(1, row_BN) * edge - _positions(ids_BIJK, axis, edge))
            * inside_BN
            for axis, edge in enumerate(size, start=1)
        ],
        dim=1,
    )
    sigma_BN = (sigma_share * _ball_radius(objects_BM5[..., 4], size)).gather(1, row_BN)
    squared_BN = offset_BAN.square().sum(1)
    heat_BN = torch.exp(-squared_BN / (2 * sigma_BN.square()).clamp_min(1e-6)) * inside_BN
    shape = ids_BIJK.shape
    return heat_BN.reshape(shape), offset_BAN.reshape(shape[0], len(size), *shape[1:])


def has_unknown_extent(ids_BIJK: Tensor, objects_BM5: Tensor) -> Tensor:
    """Tell which voxels are of an object that ignored voxels cut off, in the patch or beyond it."""
    vox_BN = objects_BM5[..., 4].gather(1, _rows(ids_BIJK, objects_BM5))
    return (vox_BN == 0).reshape(ids_BIJK.shape) & (ids_BIJK > 0)


def depth_targets(ids_BIJK: Tensor, *, edges: Sequence[float]) -> Tensor:
    """Return how deep each voxel lies in its object, 1 at the deepest, 0 outside.

    Args:
        ids_BIJK: object ids; the patch's border is nobody's surface.
        edges: of a voxel along the spatial axes, in any unit.
    """
    number = number_objects(ids_BIJK)
    distance = surface_distance(number, edges=[edge / min(edges) for edge in edges])
    flat = number.flatten()
    deepest_M = torch.zeros(int(flat.max()) + 1, device=flat.device)
    deepest_M.scatter_reduce_(0, flat, distance.flatten(), "amax")
    return distance / deepest_M.clamp_min(1e-6)[flat].reshape(number.shape)


def surface_distance(ids_BIJK: Tensor, *, edges: Sequence[float]) -> Tensor:
    """Return the distance from each object's voxel to the nearest voxel that is not of it.

    Exact, axis by axis (Felzenszwalb and Huttenlocher, 2012): along a further axis, a voxel of the
    same object n steps away passes on its own distance, one of another object none.
    """
    inside = ids_BIJK > 0
    squared = (_steps_to_another(ids_BIJK) * edges[0]).clamp_max(_FAR).square() * inside
    for axis, edge in enumerate(edges[1:], start=2):
        before, squared = squared, squared.clone()
        for step in range(1, ids_BIJK.shape[axis]):
            away = (step * edge) ** 2
            if away >= squared.amax():
                break
            _pass_on(ids_BIJK, before, squared, axis=axis, step=step, away=away)
    return squared.sqrt() * inside


def _steps_to_another(ids_BIJK: Tensor) -> Tensor:
    """Return how many steps along the first axis the nearest voxel of another id is away."""
    length = ids_BIJK.shape[1]
    shape = [1, length, *[1] * (ids_BIJK.ndim - 2)]
    place = torch.arange(length, device=ids_BIJK.device, dtype=torch.float32).reshape(shape)
    steps = []
    for ids in (ids_BIJK, ids_BIJK.flip(1)):
        begins = torch.full(ids.shape, -_FAR, device=ids.device)
        changes = ids[:, 1:] != ids[:, :-1]
        begins[:, 1:] = torch.where(changes, place[:, 1:], -_FAR)
        steps.append(place - begins.cummax(dim=1).values + 1)
    return torch.minimum(steps[0], steps[1].flip(1))


def _pass_on(
    ids: Tensor, before: Tensor, squared: Tensor, *, axis: int, step: int, away: float
) -> None:
    """Take the smaller of what is known and what a voxel `step` to either side has to say."""
    length = ids.shape[axis] - step
    low, high = ids.narrow(axis, 0, length), ids.narrow(axis, step, length)
    same = low == high
    for target, source in ((0, step), (step, 0)):
        said = torch.where(same, before.narrow(axis, source, length), 0) + away
        own = squared.narrow(axis, target, length)
        torch.minimum(own, said, out=own)


def _rows(ids_BIJK: Tensor, objects_BM5: Tensor) -> Tensor:
    """Return for each voxel the row of its object, (B, N); any row where there is none."""
    known_BM = objects_BM5[..., 0].contiguous()
    row_BN = torch.searchsorted(known_BM, ids_BIJK.flatten(1).to(known_BM.dtype))
    return row_BN.clamp_max(known_BM.shape[1] - 1)


def _positions(ids_BIJK: Tensor, axis: int, edge: float) -> Tensor:
    """Return where each voxel of a patch lies along an axis, N numbers."""
    shape = [1] * (ids_BIJK.ndim - 1)
    shape[axis - 1] = ids_BIJK.shape[axis]
    steps = torch.arange(ids_BIJK.shape[axis], device=ids_BIJK.device, dtype=torch.float32) * edge
    return steps.reshape(shape).expand(ids_BIJK.shape[1:]).flatten()


def _ball_radius(vox: Tensor, edges: Sequence[float]) -> Tensor:
    volume = vox.float()
    for edge in edges:
        volume = volume * edge
    if len(edges) == 2:
        return (volume / torch.pi).sqrt()
    return (volume * (3 / (4 * torch.pi))).pow(1 / 3)
