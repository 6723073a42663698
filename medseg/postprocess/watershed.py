"""Touching objects parted along the valleys between them.

SimpleITK's watershed from markers (Beucher and Meyer, 1993); scipy's follows differences between
neighbours instead of heights, which is no watershed of a distance map.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.postprocess.components import Ids, Mask, number_components

# Height of everything outside, above any inside: objects are full before a flood could leave them.
_RIM = 2.0
# What a sharper map adds is deeper than the level by this, or it may be noise.
_CLEARLY = 0.1


def split_by_distance(
    distances: Sequence[NDArray[np.float32]], mask_IJK: Mask, *, seed_level: float
) -> Ids:
    """Part a mask into objects that grow from its deep places.

    Args:
        distances: depth below the object's surface, about 0 to 1, (I, J, K) each, the most blurred
            map first. A blur takes small objects away, so a sharper map adds those seeds that the
            ones before it lack and that rise clearly above the level. The sharpest is flooded.
        mask_IJK: voxels of things.
        seed_level: a seed is a piece of the mask that is deeper than this.

    Returns:
        Ids that cover the mask.
    """
    seeds = np.zeros(mask_IJK.shape, np.int32)
    for distance_IJK in distances:
        pieces = number_components(mask_IJK & (distance_IJK > seed_level))
        if seeds.any():
            clear = mask_IJK & (distance_IJK > seed_level + _CLEARLY)
            new = np.setdiff1d(pieces[clear], pieces[seeds > 0])
            pieces = np.where(np.isin(pieces, new), pieces, 0)
        seeds = np.where(pieces > 0, pieces + seeds.max(), seeds).astype(np.int32)
    return grow(seeds, mask_IJK, height_IJK=-np.clip(distances[-1], -1, 1))


def grow(seeds_IJK: Ids, mask_IJK: Mask, *, height_IJK: NDArray[np.float32] | None = None) -> Ids:
    """Grow seeds until they fill a mask; none leaves the piece of the mask it lies in.

    Args:
        seeds_IJK: 1..M inside the mask.
        mask_IJK: what to fill; a piece of it without any seed is an object of its own, M + 1 on.
        height_IJK: below 1; low places are filled first. None: those nearest to a seed.
    """
    import SimpleITK

    if not mask_IJK.any():
        return np.zeros(mask_IJK.shape, np.int32)
    seeds = seeds_IJK.copy()
    pieces = number_components(mask_IJK)
    bare = mask_IJK & ~np.isin(pieces, np.unique(pieces[seeds > 0]))
    own = np.unique(pieces[bare], return_inverse=True)[1]
    seeds[bare] = own + 1 + seeds.max()
    height = np.where(mask_IJK, 0 if height_IJK is None else height_IJK, _RIM)
    flooded = SimpleITK.MorphologicalWatershedFromMarkers(
        SimpleITK.GetImageFromArray(height.astype(np.float32)),
        SimpleITK.GetImageFromArray(seeds),
        markWatershedLine=False,
        fullyConnected=True,
    )
    ids = SimpleITK.GetArrayFromImage(flooded).astype(np.int32)
    return np.where(mask_IJK, ids, 0).astype(np.int32)
