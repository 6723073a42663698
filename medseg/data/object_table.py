"""Where the objects of a prepared case have their centres, and how large they are.

A patch may hold a part of an object; what a network learns of it is the centre of the whole.

Axes: IJK voxel, M object, N voxel of an object. The columns of a row are those of `OBJECT_COLUMNS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.transforms.object_targets import OBJECT_COLUMNS

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The objects of one case.

    Attributes:
        ids_M, slices_M: id of each object, ascending within ascending slices; in 2D what one slice
            holds of an object is an object, in 3D all slices are 0.
        rows_M5: float32.
        flat: whether slices count.
    """

    ids_M: NDArray[np.int64]
    slices_M: NDArray[np.int64]
    rows_M5: NDArray[np.float32]
    flat: bool

    @classmethod
    def of(cls, ids_IJK: NDArray[Any], *, edges: Sequence[float], flat: bool) -> "ObjectTable":
        """Measure every object of a case.

        A centre is the object's voxel nearest to its centroid, so that it lies inside whatever the
        shape.

        Args:
            ids_IJK: 0 for no object.
            edges: of a voxel along i, j, k, in any unit.
            flat: slice by slice.
        """
        voxels_N3 = np.argwhere(ids_IJK)
        ids_N = ids_IJK[tuple(voxels_N3.T)].astype(np.int64)
        slices_N = voxels_N3[:, 2] if flat else np.zeros_like(ids_N)
        past = int(ids_N.max(initial=0)) + 1
        codes_M, object_N, vox_M = np.unique(
            slices_N * past + ids_N, return_inverse=True, return_counts=True
        )
        centre_M3 = _nearest_to_centroids(voxels_N3, object_N, vox_M, edges=edges)
        ids_M = codes_M % past
        rows_M5 = np.column_stack([ids_M, centre_M3, vox_M]).astype(np.float32)
        return cls(ids_M=ids_M, slices_M=codes_M // past, rows_M5=rows_M5, flat=flat)

    def within(self, ids_IJK: NDArray[Any], first: Sequence[int]) -> NDArray[np.float32]:
        """Return the rows of the objects that a patch holds any voxel of, ids ascending.

        Args:
            ids_IJK: of the patch; one slice where slices count.
            first: voxel of the case that the patch begins with, from which its centres count.
        """
        low, high = 0, len(self.ids_M)
        if self.flat:
            low, high = np.searchsorted(self.slices_M, [first[2], first[2] + 1]).tolist()
        present = np.flatnonzero(np.bincount(ids_IJK.ravel()))
        rows_M5 = self.rows_M5[low:high][np.isin(self.ids_M[low:high], present)]
        return rows_M5 - np.array([0, *first, 0], np.float32)


def stack_rows(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put the rows of a batch's patches together, (B, M, 5); rows left over have an infinite id."""
    longest = max(1, *(len(own) for own in rows))
    rows_BM5 = np.zeros((len(rows), longest, len(OBJECT_COLUMNS)), np.float32)
    rows_BM5[..., 0] = np.inf
    for patch, own in enumerate(rows):
        rows_BM5[patch, : len(own)] = own
    return rows_BM5


def _nearest_to_centroids(
    voxels_N3: NDArray[np.int64],
    object_N: NDArray[np.int64],
    vox_M: NDArray[np.int64],
    *,
    edges: Sequence[float],
) -> NDArray[np.int64]:
    """Return for each object its voxel nearest to its centroid, the first of several."""
    num = len(vox_M)
    away_N = np.zeros(len(object_N))
    for axis, edge in enumerate(edges):
        mean_M = np.bincount(object_N, voxels_N3[:, axis], num) / np.maximum(vox_M, 1)
        away_N += (edge * (voxels_N3[:, axis] - mean_M[object_N])) ** 2
    nearest_M = np.full(num, np.inf)
    np.minimum.at(nearest_M, object_N, away_N)
    candidates = np.flatnonzero(away_N == nearest_M[object_N])[::-1]
    first_M = np.zeros(num, np.int64)
    # Of several places written to one object the last stays: the first voxel, from behind.
    first_M[object_N[candidates]] = candidates
    return voxels_N3[first_M]
