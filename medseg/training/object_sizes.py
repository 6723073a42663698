"""How large the drawn objects are: what is a speck beside them, and what no patch shows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.objects import Centres, Components
from medseg.data.cache import CachedCase
from medseg.postprocess.components import number_components
from medseg.training.job import Job

# Found objects come out somewhat smaller than drawn ones, and the smallest drawn may be slips.
_PERCENTILE = 1
_SHARE = 0.5
# Of a round object longer than this many patches, some see nothing but its inside.
_MOST_PATCHES = 1.5
# Of all objects; fewer are not worth a word.
_FEW = 0.02


def with_least_size(job: Job, cases: Sequence[CachedCase]) -> Job:
    """Fill in the least size where the user named none: half of what 99 % of objects exceed.

    Args:
        job: what to train; without objects it stays as it is.
        cases: prepared for training, on one spacing.
    """
    objects = job.choices.objects
    if objects is None:
        return job
    corners = objects.way.corners if isinstance(objects.way, Components) else True
    things = job.labels.things
    sizes = [size for case in cases for size in _sizes_vox(case, things, corners=corners)]
    if not sizes:
        return job
    least_vox = _SHARE * float(np.percentile(sizes, _PERCENTILE))
    sized = objects.or_least(least_vox, cases[0].geometry)
    return replace(job, choices=replace(job.choices, objects=sized))


def told_of_long_objects(job: Job, cases: Sequence[CachedCase]) -> str | None:
    """Return what to say where objects are too long for centres to be learnt from patches.

    Args:
        job: what to train; only `instance=centre` points at centres.
        cases: prepared for training.
    """
    objects = job.choices.objects
    if objects is None or not isinstance(objects.way, Centres):
        return None
    longest = [_MOST_PATCHES * size for size in job.plan.patch_vox[: job.plan.spatial_dims]]
    long, num = 0, 0
    for case in cases:
        for box in _boxes(case, flat=job.plan.spatial_dims == 2):
            num += 1
            long += any(
                side.stop - side.start > most for side, most in zip(box, longest, strict=False)
            )
    if not num or long / num <= _FEW:
        return None
    return (
        f"objects: {long / num:.0%} are longer than one and a half patches, which do not all show "
        "where the centre is; instance=components or distance do without centres, and "
        "overrides.patch_vox makes patches larger"
    )


def _boxes(case: CachedCase, *, flat: bool) -> Iterator[tuple[slice, ...]]:
    """Yield the box around every object of a case, or around what each slice holds of it."""
    ids = case.open_ids()
    if ids is None:
        return
    parts = np.moveaxis(ids, 2, 0) if flat else [np.asarray(ids)]
    for part in parts:
        yield from (box for box in ndimage.find_objects(part) if box is not None)


def _sizes_vox(case: CachedCase, things: Iterable[int], *, corners: bool) -> NDArray[np.int64]:
    """Return the size of every object of a case: by its ids, or piece by piece."""
    ids, label = case.open_ids(), case.open_label()
    if ids is not None:
        counts = np.bincount(ids.ravel())[1:]
    elif label is not None:
        pieces = [number_components(label == index, corners=corners) for index in things]
        counts = np.concatenate([np.bincount(own.ravel())[1:] for own in pieces])
    else:
        counts = np.zeros(0, np.int64)
    return np.asarray(counts[counts > 0], dtype=np.int64)
