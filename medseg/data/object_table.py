"""Where the objects of a prepared case have their centres, and how large they are.

A patch may hold a part of an object; what a network learns of it is the centre of the whole.

Axes: IJK voxel, M object, N voxel of an object in a slab. The columns of a row are those of
`OBJECT_COLUMNS`.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.errors import ManifestError, WriteError
from medseg.data.cache import CachedCase
from medseg.runtime.files import written_whole
from medseg.transforms.object_targets import OBJECT_COLUMNS

Voxels = NDArray[np.int64]

# Voxels looked at together, so that a large volume takes no memory of its own size.
_SLAB_VOX = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The objects of one case.

    Attributes:
        slices_M: in 2D, where what one slice holds of an object is an object, the slice of each
            row, ascending; in 3D 0.
        rows_M5: float32, ids ascending within a slice.
        flat: whether slices count.
    """

    slices_M: NDArray[np.int64]
    rows_M5: NDArray[np.float32]
    flat: bool

    @classmethod
    def of(
        cls,
        ids_IJK: NDArray[Any],
        *,
        edges: Sequence[float],
        flat: bool,
        ignored_IJK: NDArray[np.bool_] | None = None,
    ) -> "ObjectTable":
        """Measure every object of a case.

        A centre is the object's voxel nearest to its centroid, so that it lies inside whatever the
        shape. Of an object that touches ignored voxels nobody knows how far it goes: its size is 0.

        Args:
            ids_IJK: 1..M, 0 for no object.
            edges: of a voxel along i, j, k, in any unit.
            flat: slice by slice.
            ignored_IJK: voxels that nobody looked at.
        """
        parts = [slice(k, k + 1) for k in range(ids_IJK.shape[2])] if flat else [slice(None)]
        slices, rows = [], []
        for number, part in enumerate(parts):
            own = np.ascontiguousarray(ids_IJK[:, :, part])
            ignored = None if ignored_IJK is None else ignored_IJK[:, :, part]
            found = _rows(own, ignored, edges=edges)
            found[:, 3] += number
            slices.append(np.full(len(found), number))
            rows.append(found)
        return cls(np.concatenate(slices), np.concatenate(rows), flat)

    def within(self, ids_IJK: NDArray[Any], first: Sequence[int]) -> NDArray[np.float32]:
        """Return the rows of the objects that a patch holds any voxel of, ids ascending.

        Args:
            ids_IJK: of the patch; one slice where slices count.
            first: voxel of the case that the patch begins with, from which its centres count.
        """
        low, high = 0, len(self.rows_M5)
        if self.flat:
            low, high = np.searchsorted(self.slices_M, [first[2], first[2] + 1]).tolist()
        present = np.flatnonzero(np.bincount(ids_IJK.ravel()))
        rows_M5 = self.rows_M5[low:high]
        rows_M5 = rows_M5[np.isin(rows_M5[:, 0].astype(np.int64), present)]
        return rows_M5 - np.array([0, *first, 0], np.float32)


def table_of(case: CachedCase, *, num_classes: int, flat: bool) -> ObjectTable:
    """Measure the objects of a prepared case, or read what was measured; it is kept with the case.

    Args:
        case: labelled, with ids.
        num_classes: N of the indices 1..N; voxels of higher ones are ignored.
        flat: slice by slice.

    Raises:
        ManifestError: the case has no ids.
    """
    path = case.folder / f"objects_{'2d' if flat else '3d'}_{num_classes}.npz"
    if path.exists():
        with suppress(OSError, ValueError, KeyError), np.load(path) as kept:
            return ObjectTable(kept["slices"], kept["rows"], flat)
    ids_IJK, label_IJK = case.open_ids(), case.open_label()
    if ids_IJK is None or label_IJK is None:
        raise ManifestError(f"case {case.case.case_id}: has no ids of objects to train on")
    ignored_IJK = np.asarray(label_IJK) > num_classes
    table = ObjectTable.of(
        ids_IJK,
        edges=case.geometry.spacing_mm,
        flat=flat,
        ignored_IJK=ignored_IJK if ignored_IJK.any() else None,
    )
    # A cache that others share may forbid it; then the next training measures anew.
    with suppress(WriteError), written_whole(path) as stream:
        np.savez(stream, slices=table.slices_M, rows=table.rows_M5)
    return table


def stack_rows(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put the rows of a batch's patches together, (B, M, 5); rows left over have an infinite id."""
    longest = max(1, *(len(own) for own in rows))
    rows_BM5 = np.zeros((len(rows), longest, len(OBJECT_COLUMNS)), np.float32)
    rows_BM5[..., 0] = np.inf
    for patch, own in enumerate(rows):
        rows_BM5[patch, : len(own)] = own
    return rows_BM5


def _rows(
    ids_IJK: NDArray[Any], ignored_IJK: NDArray[np.bool_] | None, *, edges: Sequence[float]
) -> NDArray[np.float32]:
    """Return the rows of all objects, ids ascending."""
    num = int(ids_IJK.max(initial=0)) + 1
    vox_M, sum_M3 = np.zeros(num, np.int64), np.zeros((num, 3))
    for id_N, voxels in _slabs(ids_IJK):
        vox_M += np.bincount(id_N, minlength=num)
        for axis, at_N in enumerate(voxels):
            sum_M3[:, axis] += np.bincount(id_N, at_N, num)
    mean_M3 = sum_M3 / np.maximum(vox_M, 1)[:, None]
    centre_M3, nearest_M = np.zeros((num, 3)), np.full(num, np.inf)
    for id_N, voxels in _slabs(ids_IJK):
        away_N = sum(
            (edge * (at_N - mean_M3[id_N, axis])) ** 2
            for axis, (edge, at_N) in enumerate(zip(edges, voxels, strict=True))
        )
        before_M = nearest_M.copy()
        np.minimum.at(nearest_M, id_N, away_N)
        # Of several places written to one object the last stays: the first voxel, from behind.
        hit = np.flatnonzero((away_N == nearest_M[id_N]) & (away_N < before_M[id_N]))[::-1]
        centre_M3[id_N[hit]] = np.stack([at_N[hit] for at_N in voxels], axis=1)
    known_M = vox_M.copy()
    if ignored_IJK is not None:
        near_IJK = ndimage.binary_dilation(ignored_IJK, np.ones((3, 3, 3), bool))
        known_M[np.unique(ids_IJK[near_IJK])] = 0
    present = np.flatnonzero(vox_M[1:]) + 1
    table = np.column_stack([np.arange(num), centre_M3, known_M])
    return table[present].astype(np.float32)


def _slabs(ids_IJK: NDArray[Any]) -> Iterator[tuple[Voxels, tuple[Voxels, Voxels, Voxels]]]:
    """Yield the ids of a slab's voxels of objects, and where these lie along each axis."""
    thick = max(1, _SLAB_VOX // max(1, ids_IJK[0].size))
    for first in range(0, len(ids_IJK), thick):
        slab = ids_IJK[first : first + thick]
        i_N, j_N, k_N = np.nonzero(slab)
        if len(i_N):
            yield slab[i_N, j_N, k_N].astype(np.int64), (i_N + first, j_N, k_N)
