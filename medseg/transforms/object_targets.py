"""What a network is to say about objects, made of the ids a batch is left with after augmentation.

A rotation turns offsets and a zoom stretches distances, so targets are made last, on the device.
Lengths are in edges of the finest voxel axis.

Axes: B patch, A spatial axis, IJK voxel (2D: IJ), M object of any patch (0: no object).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

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
    ids_BIJK: Tensor, *, edges: Sequence[float], sigma_share: float
) -> tuple[Tensor, Tensor]:
    """Return the heat of centres and the offset of each voxel to its own.

    A centre is the object's voxel nearest to its centroid, so that it lies inside whatever the
    shape. The deviation of the heat about it is `sigma_share` of the radius of a ball (disc) of the
    object's size.

    Args:
        ids_BIJK: object ids; what the patch cuts off of an object is not part of it.
        edges: of a voxel along the spatial axes, in any unit.
        sigma_share: see above.

    Returns:
        heat_BIJK, 1 at a centre, and offset_BAIJK; 0 outside objects.
    """
    number = number_objects(ids_BIJK)
    flat = number.flatten()
    num = int(flat.max()) + 1
    size = [edge / min(edges) for edge in edges]
    vox_M = torch.bincount(flat, minlength=num).clamp_min(1)
    at_A = [_positions(number, axis, edge) for axis, edge in enumerate(size, start=1)]
    away = torch.zeros(flat.shape, device=flat.device)
    for at in at_A:
        mean_M = torch.bincount(flat, at.double(), num) / vox_M
        away += (at - mean_M[flat]).float().square()
    centre_M = _lowest_place(flat, away, num)
    offset_A = [at[centre_M][flat] - at for at in at_A]
    sigma_M = sigma_share * _ball_radius(vox_M, size)
    squared = torch.stack(offset_A).square().sum(0)
    inside = flat > 0
    heat = torch.exp(-squared / (2 * sigma_M[flat].square())) * inside
    offset_BAIJK = torch.stack([(o * inside).reshape(number.shape) for o in offset_A], dim=1)
    return heat.reshape(number.shape), offset_BAIJK


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


def _positions(like: Tensor, axis: int, edge: float) -> Tensor:
    """Return where each voxel lies along an axis, flat."""
    shape = [1] * like.ndim
    shape[axis] = like.shape[axis]
    steps = torch.arange(like.shape[axis], device=like.device, dtype=torch.float32) * edge
    return steps.reshape(shape).expand(like.shape).flatten()


def _lowest_place(flat: Tensor, values: Tensor, num: int) -> Tensor:
    """Return for each object the first place where its value is lowest."""
    lowest_M = torch.full((num,), torch.inf, device=flat.device)
    lowest_M.scatter_reduce_(0, flat, values, "amin")
    places = torch.arange(len(flat), device=flat.device)
    candidates = torch.where(values == lowest_M[flat], places, len(flat) - 1)
    first_M = torch.full((num,), len(flat) - 1, device=flat.device)
    return first_M.scatter_reduce_(0, flat, candidates, "amin")


def _ball_radius(vox_M: Tensor, edges: Sequence[float]) -> Tensor:
    volume_M = vox_M.float()
    for edge in edges:
        volume_M = volume_M * edge
    if len(edges) == 2:
        return (volume_M / torch.pi).sqrt()
    return (volume_M * (3 / (4 * torch.pi))).pow(1 / 3)
