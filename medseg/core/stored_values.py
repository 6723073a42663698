"""Label values as files store them: found, checked and translated without great detours."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import LabelError

Index = TypeVar("Index", bound=np.generic)

# A label saved through a floating-point header may be off by round-off, never by more.
_INTEGER_TOLERANCE = 1e-3
# Stored values spread wider than this are searched for instead of looked up.
_LONGEST_TABLE = 2**20
# Voxels translated at once, so that a scan's indices never need eight bytes a voxel.
_CHUNK_VOX = 2**20


def values_in(stored: NDArray[Any]) -> NDArray[Any]:
    """The values an array holds, sorted; slice by slice, since sorting a whole scan is slow."""
    if stored.ndim < 2 or not stored.size:
        return np.unique(stored)
    return np.unique(np.concatenate([np.unique(plane) for plane in stored]))


def looked_up(stored: NDArray[Any], values: NDArray[Any], index: NDArray[Index]) -> NDArray[Index]:
    """Replace each value by its index: through a table, unless the values lie far apart."""
    if not len(values):
        return np.empty(stored.shape, dtype=index.dtype)
    lowest, highest = int(values[0]), int(values[-1])
    if highest - lowest >= _LONGEST_TABLE:
        return np.asarray(index[np.searchsorted(values, stored)])
    table = np.zeros(highest - lowest + 1, dtype=index.dtype)
    table[[int(value) - lowest for value in values]] = index
    flat = stored.reshape(-1)
    out = np.empty(flat.shape, dtype=index.dtype)
    for first in range(0, len(flat), _CHUNK_VOX):
        part = slice(first, first + _CHUNK_VOX)
        out[part] = table[flat[part].astype(np.int64) - lowest]
    return out.reshape(stored.shape)


def whole_numbers(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Round label values that are whole up to round-off; `name` is the file, for the error.

    Raises:
        LabelError: LBL-001 NaN or infinite, LBL-002 not whole.
    """
    if not np.isfinite(values).all():
        raise LabelError(
            f"{name}: the mask holds NaN or infinite values",
            code="LBL-001",
            hint="export it again as integers",
        )
    whole = np.rint(values)
    # Beyond 2^53 every number is whole, and none is a label.
    off = (np.abs(values - whole) > _INTEGER_TOLERANCE) | (np.abs(values) > 2**53)
    if off.any():
        raise LabelError(
            f"{name}: the mask holds {values[off][0]:.6g}, which is not a whole number",
            code="LBL-002",
            hint="is it a probability map, or a mask resampled with interpolation?",
        )
    return np.asarray(whole.astype(np.int64))
