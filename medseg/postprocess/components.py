"""Pieces that hang together, each an object with an id of its own.

Ids: int32 (I, J, K), 0 where there is no object.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]


def number_components(mask_IJK: Mask, *, corners: bool = True) -> Ids:
    """Number the pieces of a mask, 1..M.

    Args:
        mask_IJK: what to number.
        corners: voxels that touch at an edge or a corner hang together; else only at a face.
    """
    ids, _ = ndimage.label(mask_IJK, structure=_around(corners=corners))
    return np.asarray(ids, dtype=np.int32)


def largest_pieces(ids_IJK: Ids) -> Ids:
    """Take every piece of an object that lies apart from its largest one off the map."""
    kept = ids_IJK.copy()
    for number, box in enumerate(ndimage.find_objects(ids_IJK), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(ids_IJK[box] == number, structure=_around(corners=True))
        if count > 1:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            kept[box][(pieces > 0) & (pieces != sizes.argmax())] = 0
    return kept


def drop_small(ids_IJK: Ids, least_vox: float) -> Ids:
    """Take objects of fewer voxels off the map; the others keep their ids."""
    sizes = np.bincount(ids_IJK.ravel())
    kept = np.where(sizes >= least_vox, np.arange(len(sizes)), 0).astype(np.int32)
    return np.asarray(kept[ids_IJK], dtype=np.int32)


def number_consecutively(ids_IJK: Ids) -> tuple[Ids, NDArray[np.int64]]:
    """Return the map with ids 1..M in the order of the old ones, and the old id of each."""
    present = np.bincount(ids_IJK.ravel(), minlength=1) > 0
    present[0] = False
    number = np.cumsum(present, dtype=np.int32) * present
    return np.asarray(number[ids_IJK], dtype=np.int32), np.flatnonzero(present)


def _around(*, corners: bool) -> NDArray[np.bool_]:
    return np.asarray(ndimage.generate_binary_structure(3, 3 if corners else 1))
