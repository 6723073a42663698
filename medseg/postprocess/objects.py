"""From what a network says about every voxel to objects, each of one class.

Axes: L class (0 is background), H further channel of a way, IJK voxel, M object.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.core.objects import Centres, Components, Distances, ObjectPlan
from medseg.postprocess.centres import group_by_centres
from medseg.postprocess.components import (
    Ids,
    Mask,
    drop_small,
    largest_pieces,
    number_components,
    number_consecutively,
)
from medseg.postprocess.smoothing import smooth
from medseg.postprocess.watershed import grow, split_by_distance

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Objects:
    """Objects told apart on one grid.

    Attributes:
        ids_IJK: int32, 0 where there is no object, else 1..M.
        class_M: index of the class of each object.
        confidence_M: 0 to 1: mean probability of its class, times the heat of its centre where
            there is such a map.
    """

    ids_IJK: Ids
    class_M: NDArray[np.int64]
    confidence_M: Floats

    def __len__(self) -> int:
        return len(self.class_M)


def find_objects(
    probabilities_LIJK: Tensor,
    heads_HIJK: Tensor,
    *,
    plan: ObjectPlan,
    things: Sequence[int],
    edges: Sequence[float],
    least_vox: float,
) -> Objects:
    """Tell the objects of all thing classes apart.

    An object is one piece, and its class is the one with the largest mean probability among things.

    Args:
        probabilities_LIJK: of the classes.
        heads_HIJK: the way's own channels.
        plan: the way.
        things: indices of the classes whose objects are counted.
        edges: of a voxel along i, j, k, in any unit.
        least_vox: smaller objects are dropped.
    """
    best_IJK = probabilities_LIJK.argmax(dim=0)
    mask_IJK = torch.isin(best_IJK, torch.tensor(things, device=best_IJK.device))
    heat: Floats | None = None
    if isinstance(plan.way, Centres):
        grouped, heat_M = group_by_centres(
            heads_HIJK[0], heads_HIJK[1:], mask_IJK, way=plan.way, edges=edges
        )
        ids, heat = _in_one_piece(grouped.cpu().numpy(), mask_IJK.cpu().numpy(), heat_M)
    elif isinstance(plan.way, Distances):
        depths = [
            smooth(heads_HIJK[0], sigma_vox=sigma_vox, edges=edges).cpu().numpy()
            for sigma_vox in (plan.way.smooth_vox, plan.way.smooth_vox / 2)
        ]
        ids = split_by_distance(depths, mask_IJK.cpu().numpy(), seed_level=plan.way.seed_level)
    else:
        ids = _components_by_class(best_IJK.cpu().numpy(), plan.way, things)
    ids, old = number_consecutively(drop_small(ids, least_vox))
    class_M, confidence_M = _vote(ids, probabilities_LIJK, things)
    if heat is not None:
        confidence_M = confidence_M * heat[old - 1]
    return Objects(ids_IJK=ids, class_M=class_M, confidence_M=confidence_M)


def _components_by_class(
    best_IJK: NDArray[np.int64], way: Components, things: Sequence[int]
) -> Ids:
    ids = np.zeros(best_IJK.shape, np.int32)
    for index in things:
        pieces = number_components(best_IJK == index, corners=way.corners)
        ids = np.where(pieces > 0, pieces + ids.max(), ids).astype(np.int32)
    return ids


def _in_one_piece(grouped: Ids, mask_IJK: Mask, heat_M: Tensor) -> tuple[Ids, Floats]:
    """Give what points to a centre from afar to the object it touches.

    A piece of the mask where no object is left is one of its own, with no heat to its credit.
    """
    ids = grow(largest_pieces(grouped), mask_IJK)
    heat = np.zeros(max(int(ids.max()), len(heat_M)), np.float32)
    heat[: len(heat_M)] = heat_M.float().clamp(0, 1).cpu().numpy()
    return ids, heat


def _vote(
    ids: Ids, probabilities_LIJK: Tensor, things: Sequence[int]
) -> tuple[NDArray[np.int64], Floats]:
    """Return the class of each object, and its mean probability there."""
    num = int(ids.max(initial=0))
    inside = np.flatnonzero(ids)
    device = probabilities_LIJK.device
    place = torch.from_numpy(inside).to(device)
    number = torch.from_numpy(ids.ravel()[inside].astype(np.int64) - 1).to(device)
    sums = [
        torch.bincount(number, probabilities_LIJK[index].flatten()[place].double(), num)
        for index in things
    ]
    mean_TM = torch.stack(sums) / torch.bincount(number, minlength=num).clamp_min(1)
    best = mean_TM.max(dim=0)
    class_M = np.asarray(things, dtype=np.int64)[best.indices.cpu().numpy()]
    return class_M, best.values.float().cpu().numpy()
