"""Objects and classes made to agree, voxel by voxel, on the grid they are written on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.labels import LabelMap
from medseg.postprocess.components import Ids, number_consecutively
from medseg.postprocess.objects import Objects


def fuse(
    label_map_IJK: LabelMap,
    objects: Objects,
    *,
    things: Sequence[int],
    reach: float = 0.0,
    edges: Sequence[float] = (1.0, 1.0, 1.0),
) -> tuple[LabelMap, Objects]:
    """Let every voxel of a thing belong to one object and take its class; stuff stays.

    Both maps came onto this grid in their own way, so their rims differ a little. A voxel of a
    thing without an object joins the nearest one within reach, and else becomes background; an
    object's voxel that is no thing leaves it.

    Args:
        label_map_IJK: indices of classes.
        objects: on the same grid.
        things: indices of the classes whose objects are counted.
        reach: how far a voxel may be from the object it joins; 0 where both maps are still as they
            were made.
        edges: of a voxel along i, j, k, in the unit of `reach`.

    Returns:
        Both, agreeing; objects without a voxel are gone and the others numbered anew.
    """
    is_thing = np.isin(label_map_IJK, np.asarray(things))
    ids = np.where(is_thing, objects.ids_IJK, 0)
    if reach:
        ids = _joined(ids, is_thing, reach=reach, edges=edges)
    ids, old = number_consecutively(ids)
    class_M = objects.class_M[old - 1]
    of_id = np.concatenate([[0], class_M]).astype(label_map_IJK.dtype)
    return np.where(is_thing, of_id[ids], label_map_IJK), Objects(
        ids_IJK=ids, class_M=class_M, confidence_M=objects.confidence_M[old - 1]
    )


def _joined(
    ids: NDArray[np.int32], is_thing: NDArray[np.bool_], *, reach: float, edges: Sequence[float]
) -> Ids:
    loose = is_thing & (ids == 0)
    if not loose.any() or not ids.any():
        return ids
    box = ndimage.find_objects(is_thing.astype(np.uint8))[0]
    distance, nearest = ndimage.distance_transform_edt(
        ids[box] == 0, sampling=edges, return_indices=True
    )
    near = loose[box] & (distance <= reach)
    joined = ids.copy()
    joined[box][near] = ids[box][tuple(nearest)][near]
    return joined
