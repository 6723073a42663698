"""Touching objects parted along the valleys between them.

SimpleITK's watershed from markers (Beucher and Meyer, 1993); scipy's follows differences between
neighbours instead of heights, which is no watershed of a distance map.
"""

import numpy as np
from numpy.typing import NDArray

from medseg.postprocess.components import Ids, Mask, number_components

# Height of everything outside, above any inside: objects are full before a flood could leave them.
_RIM = 2.0


def split_by_distance(
    distance_IJK: NDArray[np.float32], mask_IJK: Mask, *, seed_level: float
) -> Ids:
    """Part a mask into objects that grow from its deep places.

    Args:
        distance_IJK: depth below the object's surface, about 0 to 1.
        mask_IJK: voxels of things.
        seed_level: a seed is a piece of the mask that is deeper than this; a piece of the mask
            without any is one object.

    Returns:
        Ids that cover the mask.
    """
    import SimpleITK

    if not mask_IJK.any():
        return np.zeros(mask_IJK.shape, np.int32)
    seeds = number_components(mask_IJK & (distance_IJK > seed_level), corners=False)
    pieces = number_components(mask_IJK, corners=False)
    seeded = np.unique(pieces[seeds > 0])
    bare = mask_IJK & ~np.isin(pieces, seeded)
    seeds[bare] = pieces[bare] + seeds.max()
    height = np.where(mask_IJK, -np.clip(distance_IJK, -1, 1), _RIM).astype(np.float32)
    flooded = SimpleITK.MorphologicalWatershedFromMarkers(
        SimpleITK.GetImageFromArray(height),
        SimpleITK.GetImageFromArray(seeds),
        markWatershedLine=False,
        fullyConnected=False,
    )
    ids = SimpleITK.GetArrayFromImage(flooded).astype(np.int32)
    return np.where(mask_IJK, ids, 0).astype(np.int32)
