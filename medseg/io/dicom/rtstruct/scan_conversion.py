"""Scan conversion: which pixels of a grid lie inside closed contours.

A pixel is inside when its centre is. Several contours of a plane are combined by exclusive or, and
points on the path of a contour belong to the region (PS3.3 C.8.8.6.3); a contour that crosses
itself is filled by the even-odd rule, so that keyholes show.

Points are in pixels, (i, j), the centre of the first pixel at (0, 0).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Polygon = NDArray[np.float64]

# How near to a path a centre counts as on it: the round-off of positions written in decimals.
_ON_PATH_PX = 1e-4


def fill(polygons: Sequence[Polygon], shape: tuple[int, int]) -> Mask:
    """Fill the polygons of one plane, combined by exclusive or.

    Args:
        polygons: corners of each, N x 2, the last joined to the first.
        shape: pixels along i and j.

    Returns:
        True inside, (I, J); what lies beyond the grid is cut off.
    """
    edges = np.concatenate([_edges(polygon) for polygon in polygons])
    # A ray from every centre towards smaller i crosses an odd number of edges if it is inside; an
    # edge holds its lower end along j and not its upper one, so that no crossing counts twice.
    lower = np.ceil(np.minimum(edges[:, 1], edges[:, 3]))
    upper = np.ceil(np.maximum(edges[:, 1], edges[:, 3])) - 1
    i, j = _crossings(edges, lower, upper, shape[1])
    place = np.clip(np.ceil(i), 0, shape[0]).astype(np.intp), j
    toggles = np.zeros((shape[0] + 1, shape[1]), dtype=np.uint8)
    np.bitwise_xor.at(toggles, place, 1)
    inside = np.bitwise_xor.accumulate(toggles, axis=0)[:-1].astype(bool)
    inside[_on_path(edges, shape)] = True
    return inside


def crossing_pairs(
    polygons: Sequence[Polygon], shape: tuple[int, int]
) -> Iterator[tuple[int, int, int]]:
    """Find contours that are neither apart nor one within the other, and those that fill the same.

    Exclusive or is right for holes and islands, and surely not what somebody meant here.

    Yields:
        Two positions in `polygons`, and how many pixels lie in both.
    """
    if len(polygons) < 2:
        return
    # The first and last centre along i and j that each could hold.
    low = np.array([np.ceil(polygon.min(axis=0)) for polygon in polygons])
    high = np.array([np.floor(polygon.max(axis=0)) for polygon in polygons])
    low, high = np.clip(low, 0, shape), np.clip(high, -1, np.subtract(shape, 1))
    order = np.argsort(low[:, 0], kind="stable")
    ends = np.searchsorted(low[order, 0], high[order, 0], side="right")
    masks: dict[int, Mask] = {}
    for position, (one, end) in enumerate(zip(order.tolist(), ends.tolist(), strict=True)):
        others = order[position + 1 : end]
        first, last = np.maximum(low[others], low[one]), np.minimum(high[others], high[one])
        for other in others[(first <= last).all(axis=1)].tolist():
            for n in (one, other):
                if n not in masks:
                    size = (high[n] - low[n] + 1).astype(np.intp)
                    masks[n] = fill([polygons[n] - low[n]], (int(size[0]), int(size[1])))
            both = _num_shared(masks[one], masks[other], low[other] - low[one])
            counts = int(masks[one].sum()), int(masks[other].sum())
            if both and (both < min(counts) or counts[0] == counts[1]):
                yield min(one, other), max(one, other), both


def _num_shared(mask: Mask, other: Mask, offset: NDArray[np.float64]) -> int:
    """Count pixels in both of two masks, of which the second begins `offset` after the first."""
    i, j = offset.astype(np.intp).tolist()
    near = mask[max(i, 0) : max(i + other.shape[0], 0), max(j, 0) : max(j + other.shape[1], 0)]
    far = other[max(-i, 0) :, max(-j, 0) :][: near.shape[0], : near.shape[1]]
    return int((near[: far.shape[0], : far.shape[1]] & far).sum())


def without_copies(polygons: Sequence[Polygon]) -> list[Polygon]:
    """Return the polygons, of equal ones the first; two equal ones would cancel each other."""
    kept = {polygon.tobytes(): polygon for polygon in reversed(polygons)}
    return list(kept.values())[::-1]


def _edges(polygon: Polygon) -> NDArray[np.float64]:
    """Return the edges of a polygon, N x 4: from (i, j) to (i, j)."""
    return np.hstack([polygon, np.roll(polygon, -1, axis=0)])


def _crossings(
    edges: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    num_rows: int,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return where edges meet the rows `lower` to `upper`, both included: i, and the row j."""
    first = np.clip(lower, 0, num_rows).astype(np.intp)
    last = np.clip(upper, -1, num_rows - 1).astype(np.intp)
    count = np.maximum(last - first + 1, 0)
    edge = np.repeat(np.arange(len(edges)), count)
    within = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    j = np.repeat(first, count) + within
    i0, j0, i1, j1 = edges[edge].T
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(j1 == j0, 0.0, np.clip((j - j0) / (j1 - j0), 0, 1))
    return i0 + share * (i1 - i0), j


def _on_path(
    edges: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pixels whose centre lies on an edge: i and j."""
    lower, upper = np.minimum(edges[:, :2], edges[:, 2:]), np.maximum(edges[:, :2], edges[:, 2:])
    level = upper[:, 1] - lower[:, 1] <= _ON_PATH_PX
    i, j = _crossings(
        edges[~level],
        np.ceil(lower[~level, 1] - _ON_PATH_PX),
        np.floor(upper[~level, 1] + _ON_PATH_PX),
        shape[1],
    )
    near = (np.abs(i - np.rint(i)) <= _ON_PATH_PX) & (i > -0.5) & (i < shape[0] - 0.5)
    found_i, found_j = [np.rint(i[near]).astype(np.intp)], [j[near]]
    # Of edges along a row, those that run through centres are few.
    row = np.rint(lower[:, 1])
    level &= (np.abs(lower[:, 1] - row) <= _ON_PATH_PX) & (row >= 0) & (row < shape[1])
    for n in np.flatnonzero(level):
        start = np.clip(np.ceil(lower[n, 0] - _ON_PATH_PX), 0, shape[0])
        stop = np.clip(np.floor(upper[n, 0] + _ON_PATH_PX), -1, shape[0] - 1)
        found_i.append(np.arange(int(start), int(stop) + 1))
        found_j.append(np.full(len(found_i[-1]), int(row[n])))
    return np.concatenate(found_i), np.concatenate(found_j)
