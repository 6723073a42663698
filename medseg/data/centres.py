"""Which voxels patches are aimed at: every class, every lesion, or every voxel equally often."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.errors import ManifestError, ReadError, WriteError
from medseg.data.cache import CachedCase
from medseg.runtime.files import written_whole

Sampling = Literal["foreground", "class", "lesion"]
Voxels = NDArray[np.int32]

# Enough of one lesion to aim at any part of it.
_MAX_LESION_POINTS = 500
_LESIONS_FILE = "lesions.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Centres:
    """Voxels of one case that patches may be aimed at.

    Attributes:
        groups: voxels (N, 3) each; within a group all are equally likely.
        shares: probability of each group, summing to 1; None: all alike.
    """

    groups: tuple[Voxels, ...]
    shares: NDArray[np.float64] | None = None

    def draw(self, rng: np.random.Generator) -> Voxels:
        """Draw a group and a voxel of it; there must be a group."""
        if self.shares is None:
            group = self.groups[rng.integers(len(self.groups))]
        else:
            place = np.searchsorted(np.cumsum(self.shares), rng.random(), side="right")
            group = self.groups[min(int(place), len(self.groups) - 1)]
        voxel: Voxels = group[rng.integers(len(group))]
        return voxel


def centres_of(case: CachedCase, *, num_classes: int, sampling: Sampling) -> Centres:
    """Return where patches of a prepared case may be aimed.

    Args:
        case: labelled. Voxels to ignore, indices past the last class, are never aimed at.
        num_classes: N of the indices 1..N.
        sampling: `foreground` makes every voxel of any class equally likely, so that large
            objects get most patches; `class` the classes the case holds; `lesion` those classes,
            and within a class its connected components (across faces, edges and corners).

    Returns:
        No groups where the case holds no class.
    """
    present = [index for index in sorted(case.points) if index <= num_classes]
    if sampling == "class" or not present:
        return Centres(tuple(case.points[index] for index in present))
    label_IJK = case.open_label()
    if label_IJK is None:
        raise ManifestError(f"case {case.case.case_id}: has no label map to train on")
    if sampling == "foreground":
        num_vox = np.array([np.count_nonzero(label_IJK == index) for index in present])
        return Centres(tuple(case.points[index] for index in present), num_vox / num_vox.sum())
    return _lesion_centres(*_lesions(case, label_IJK, num_classes), present)


def _lesion_centres(
    voxels: Voxels, lesion: Voxels, class_of: Voxels, present: list[int]
) -> Centres:
    """Group voxels by lesion; a class's share is split evenly among its lesions."""
    groups, shares = [], []
    # Voxels lie lesion after lesion.
    parts = np.split(voxels, np.flatnonzero(np.diff(lesion)) + 1)
    for index, part in zip(class_of.tolist(), parts, strict=True):
        if index in present:
            groups.append(part)
            shares.append(1 / (len(present) * int((class_of == index).sum())))
    return Centres(tuple(groups), np.array(shares))


def _lesions(
    case: CachedCase, label_IJK: NDArray[Any], num_classes: int
) -> tuple[Voxels, Voxels, Voxels]:
    """Return voxels (N, 3), the lesion of each, and each lesion's class; kept with the case."""
    path = case.folder / _LESIONS_FILE
    if not path.exists():
        voxels, lesion, class_of = find_lesions(np.asarray(label_IJK), num_classes=num_classes)
        # A cache that others share may forbid it; then they are found anew by the next training.
        with suppress(WriteError), written_whole(path) as stream:
            np.savez(stream, voxels=voxels, lesion=lesion, class_of=class_of)
        return voxels, lesion, class_of
    try:
        with np.load(path) as kept:
            return kept["voxels"], kept["lesion"], kept["class_of"]
    except (OSError, ValueError, KeyError) as fault:
        raise ReadError(
            f"{path}: is damaged: {fault}", hint="delete it; it is made again"
        ) from fault


def find_lesions(label_IJK: NDArray[Any], *, num_classes: int) -> tuple[Voxels, Voxels, Voxels]:
    """Find the connected components of every class.

    Args:
        label_IJK: indices; 0 is background, those past the last class are nobody's lesions.
        num_classes: N of the indices 1..N.

    Returns:
        Voxels (N, 3), up to 500 a component, component after component; the number of the
        component of each, from 0; and the class of each component.
    """
    rng = np.random.default_rng(label_IJK.size)
    voxels: list[Voxels] = []
    class_of: list[int] = []
    for index in range(1, num_classes + 1):
        pieces, _ = ndimage.label(label_IJK == index, structure=np.ones((3, 3, 3)))
        for number, box in enumerate(ndimage.find_objects(pieces), start=1):
            found = np.argwhere(pieces[box] == number) + [side.start for side in box]
            if len(found) > _MAX_LESION_POINTS:
                found = found[np.sort(rng.choice(len(found), _MAX_LESION_POINTS, replace=False))]
            voxels.append(found.astype(np.int32))
            class_of.append(index)
    lesion = np.repeat(np.arange(len(voxels)), [len(v) for v in voxels]).astype(np.int32)
    stacked = np.concatenate([np.empty((0, 3), dtype=np.int32), *voxels])
    return stacked, lesion, np.array(class_of, dtype=np.int32)
