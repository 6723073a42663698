"""The area of a surface between eight voxels, for each of the 256 ways in which they can be filled.

Marching cubes (Lorensen and Cline, SIGGRAPH 1987) on a binary mask: all vertices are midpoints of
edges between neighbouring voxel centres, so the surface of every filling consists of a few planar
patches. They are derived here from the shape of the filling; no table is stored.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Voxel = tuple[int, int, int]

# Bit n of a code tells whether the n-th of these voxels of a 2 x 2 x 2 block is in the mask.
AROUND: tuple[Voxel, ...] = tuple((i, j, k) for i, j, k in product((0, 1), repeat=3))


def element_areas(spacing_mm: Floats) -> Floats:
    """Return the area in mm2 of the surface element of each code, 256 numbers."""
    i, j, k = spacing_mm
    return np.asarray(np.linalg.norm(_unit_patches() * (j * k, i * k, i * j), axis=2).sum(axis=1))


@cache
def _unit_patches() -> Floats:
    """Area vectors (absolute components) of the planar patches on unit voxels, 256 x 4 x 3."""
    patches = np.zeros((256, 4, 3))
    for code in range(1, 255):
        inside = {voxel for bit, voxel in enumerate(AROUND) if code >> bit & 1}
        # A filling and its complement have one surface; the smaller is simpler to describe.
        fewer = inside if len(inside) <= 4 else set(AROUND) - inside
        found = [patch for piece in _pieces(fewer) for patch in _cut(piece)]
        patches[code, : len(found)] = found
    return patches


def _cut(piece: frozenset[Voxel]) -> list[Floats]:
    """Patches that cut off a piece of one to four voxels that hang together by faces.

    Such a piece has one of six shapes, told apart by its size and its links.
    """
    links = list(_links(piece))
    num_links = np.bincount([axis for _, _, axis in links], minlength=3)
    across = (num_links == 0).astype(np.float64)
    if len(piece) == 1:  # a triangle
        return [np.full(3, 1 / 8)]
    if len(piece) == 2:  # a rectangle along the link
        return [across / 2]
    if len(piece) == 3:  # an L: a triangle in its plane, and a trapezoid
        return [across / 2, np.full(3, 3 / 8)]
    if len(links) == 4:  # a full face: a square
        return [across]
    inner = {voxel for voxel in piece if sum(voxel in link for link in links) == 2}
    if not inner:  # a voxel and its three neighbours: a regular hexagon
        return [np.full(3, 3 / 4)]
    # A chain that turns twice: a trapezoid, and two triangles that lean to either side.
    middle = next(axis for a, b, axis in links if {a, b} == inner)
    unit = np.eye(3)
    ears = [(unit[middle] + unit[axis]) / 4 for axis in range(3) if axis != middle]
    return [np.full(3, 1 / 2), *ears]


def _links(piece: frozenset[Voxel]) -> Iterator[tuple[Voxel, Voxel, int]]:
    """Pairs of neighbouring voxels, each with the axis along which the second follows the first."""
    for a, b in product(piece, repeat=2):
        step = np.subtract(b, a)
        if step.min() == 0 and step.sum() == 1:
            yield a, b, int(step.argmax())


def _pieces(voxels: set[Voxel]) -> Iterator[frozenset[Voxel]]:
    """Split voxels into those that hang together by faces."""
    block = np.zeros((2, 2, 2), dtype=bool)
    block[tuple(np.array(sorted(voxels)).T)] = True
    labelled, count = ndimage.label(block)
    for piece in range(1, count + 1):
        yield frozenset(voxel for voxel in AROUND if labelled[voxel] == piece)
