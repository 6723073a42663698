"""Outlines of a mask: closed polygons that run through the edges of its pixels.

A polygon through pixel edges passes no pixel centre, so whoever fills it, by whatever rule for
points on the path, gets the mask back. Holes are joined to the outline around them by a channel of
no width, the keyhole of PS3.3 C.8.8.6.3, which also runs through edges: the way of showing a hole
that every reader of CLOSED_PLANAR contours understands.

Points are in pixels, (i, j); the centre of the first pixel is (0, 0), its corner (-0.5, -0.5).
"""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Polygon = NDArray[np.float64]
_Point = tuple[int, int]

# Sides of a pixel in the order in which its outline runs: the first corner, the way along the
# side, and the way out of the pixel across it.
_CORNER = ((0, 0), (1, 0), (1, 1), (0, 1))
_ALONG = ((1, 0), (0, 1), (-1, 0), (0, -1))
_OUT = ((0, -1), (1, 0), (0, 1), (-1, 0))


def outlines_of(mask_IJ: Mask) -> list[Polygon]:
    """Return one polygon for every group of pixels that share sides; its holes are keyholes.

    Pixels that only touch at a corner get polygons of their own.

    Args:
        mask_IJ: True inside.

    Returns:
        Corners of each polygon, N x 2; the first is not repeated at the end.
    """
    marked = np.argwhere(mask_IJ)
    if not len(marked):
        return []
    first = marked.min(axis=0)
    last = marked.max(axis=0) + 1
    # A margin of one pixel, so that every side has a pixel beyond it.
    window = np.pad(mask_IJ[first[0] : last[0], first[1] : last[1]], 1)
    following = _following(window)
    corner_of = {edge: _corner_of(edge, window.shape[1]) for edge in following}
    starts = _join_holes(following, corner_of)
    polygons = (_walk(start, following, corner_of) for start in starts)
    return [polygon + (first - 1.5) for polygon in polygons]


def _following(window: Mask) -> dict[int, int]:
    """For every side between inside and outside, the side that the outline goes on with.

    A side is numbered 4 times its pixel (row by row) plus its place in `_ALONG`.
    """
    width = window.shape[1]
    following: dict[int, int] = {}
    for side in range(4):
        pixels = np.argwhere(window & ~_shifted(window, _OUT[side]))
        ahead = pixels + _ALONG[side]
        across = ahead + _OUT[side]
        straight, turned = window[tuple(ahead.T)], window[tuple(across.T)]
        # Where two pixels touch at a corner, the outline stays with its own.
        pixel = np.where((straight & turned)[:, None], across, ahead)
        pixel = np.where(straight[:, None], pixel, pixels)
        turn = np.where(straight, np.where(turned, -1, 0), 1)
        edges = (pixels @ (width, 1)) * 4 + side
        nexts = (pixel @ (width, 1)) * 4 + (side + turn) % 4
        following.update(zip(edges.tolist(), nexts.tolist(), strict=True))
    return following


def _shifted(window: Mask, way: _Point) -> Mask:
    """Return, for every pixel, the one that lies that way; the margin is outside."""
    return np.roll(window, (-way[0], -way[1]), axis=(0, 1))


def _corner_of(edge: int, width: int) -> _Point:
    pixel, side = divmod(edge, 4)
    i, j = divmod(pixel, width)
    return i + _CORNER[side][0], j + _CORNER[side][1]


def _join_holes(following: dict[int, int], corner_of: dict[int, _Point]) -> list[int]:
    """Join every hole to the loop around it, in place; return an edge of each outer loop.

    From the corner of a hole with the least i, the way along i to smaller i runs inside the mask
    until it meets a corner of the same group of pixels, on a loop that reaches further; so every
    chain of channels ends at an outer loop.
    """
    at_corner = {corner: edge for edge, corner in corner_of.items()}
    outer: list[int] = []
    holes: list[int] = []
    seen: set[int] = set()
    for edge in tuple(following):
        if edge in seen:
            continue
        loop = [edge]
        while (after := following[loop[-1]]) != edge:
            loop.append(after)
        seen.update(loop)
        corners = [corner_of[one] for one in loop]
        # Twice the area is positive for a loop that runs around its pixels.
        ends = zip(corners, [*corners[1:], corners[0]], strict=True)
        if sum(a[0] * b[1] - b[0] * a[1] for a, b in ends) > 0:
            outer.append(edge)
        else:
            holes.append(min(loop, key=lambda one: corner_of[one]))
    new = max(following, default=0)
    for hole in holes:
        i, j = corner_of[hole]
        i -= 1
        while (i, j) not in at_corner:
            i -= 1
        shore, back, across = at_corner[i, j], new + 1, new + 2
        new += 2
        # shore -> (over the channel) back -> around the hole -> hole -> (back over it) across -> on
        corner_of[back], corner_of[across] = corner_of[hole], corner_of[shore]
        following[back], following[across] = following[hole], following[shore]
        following[hole], following[shore] = across, back
    return outer


def _walk(start: int, following: dict[int, int], corner_of: dict[int, _Point]) -> Polygon:
    """Follow a loop once around, leaving out corners at which it goes straight on."""
    loop = [start]
    while (after := following[loop[-1]]) != start:
        loop.append(after)
    corners = np.array([corner_of[edge] for edge in loop], dtype=np.float64)
    onward = np.sign(np.roll(corners, -1, axis=0) - corners)
    turns = (onward != np.roll(onward, 1, axis=0)).any(axis=1)
    return np.asarray(corners[turns])
