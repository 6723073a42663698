"""The size below which a found object is taken for a speck, measured on the objects drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medseg.core.objects import Components
from medseg.data.cache import CachedCase
from medseg.postprocess.components import number_components
from medseg.training.job import Job

# Found objects come out somewhat smaller than drawn ones, and the smallest drawn may be slips.
_PERCENTILE = 1
_SHARE = 0.5


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
