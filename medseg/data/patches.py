"""Which patches a training step sees: a pure function of the seed and the step.

Nothing is remembered between steps, so a resumed run, or one with more loader processes, sees
exactly the batches an undisturbed one would have seen.

Axes: B patch, C channel, IJK voxel.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from traceback import clear_frames
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from medseg.core.errors import ManifestError, ReadError
from medseg.data.cache import CachedCase
from medseg.data.centres import Centres, Sampling, centres_of
from medseg.data.object_table import ObjectTable, stack_rows, table_of

Triple = tuple[int, int, int]
Value = TypeVar("Value", bound=np.generic)

# A patch centred on a class voxel is shifted by up to this share of its size, so that objects do
# not always sit in the middle.
_JITTER = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Patches of one step.

    Attributes:
        image_BCIJK: float32.
        label_BIJK: int64 indices.
        annotated_BL: whether each class (background first) was annotated in the patch's case;
            None when all of them were, in every case.
        case_ids: where the patches come from.
        ids_BIJK: ids of objects, 0 for none; None where they are not told apart.
        objects_BM5: where the whole objects have their centres, as in
            `transforms.object_targets`; None where nobody asks.
        unlabelled_BCIJK: patches of other scans that nobody labelled; None where none are drawn.
    """

    image_BCIJK: torch.Tensor
    label_BIJK: torch.Tensor
    annotated_BL: torch.Tensor | None
    case_ids: tuple[str, ...]
    ids_BIJK: torch.Tensor | None = None
    objects_BM5: torch.Tensor | None = None
    unlabelled_BCIJK: torch.Tensor | None = None

    @property
    def maps(self) -> tuple[torch.Tensor, ...]:
        """The label map, and the ids of objects where there are any."""
        return (self.label_BIJK,) if self.ids_BIJK is None else (self.label_BIJK, self.ids_BIJK)

    @property
    def of_patches(self) -> dict[str, torch.Tensor]:
        """What is known of patches as wholes, by the names augmentation and loss have for it."""
        known = {"objects_BM5": self.objects_BM5, "annotated_BL": self.annotated_BL}
        return {name: one for name, one in known.items() if one is not None}

    def pin_memory(self) -> "Batch":
        """Move the tensors to page-locked memory, from which a GPU copies without waiting."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        pinned: dict[str, Any] = {
            name: one.pin_memory() for name, one in held.items() if isinstance(one, torch.Tensor)
        }
        return replace(self, **pinned)


class Sampler(Protocol):
    """Draws the patches of a step: a pure function of its settings and the step."""

    def draw(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSampler:
    """Draws the patches of a step.

    Attributes:
        cases: prepared, labelled cases; every case comes once before any comes twice.
        classes: names of the classes, in the order of their indices 1..N.
        patch_vox: the region that must hold the chosen voxel.
        context_vox: what is cut out around it, at least as large (see `transforms.augment`);
            beyond the scan it is filled with zeros and background.
        batch_size: patches a step.
        foreground_share: probability of a patch placed on a voxel of a class.
        seed: of all draws.
        sampling: which voxel that is, see `centres`.
        object_dims: bring along where whole objects have their centres, 2: slice by slice, or 3;
            None: do not.
    """

    cases: tuple[CachedCase, ...]
    classes: tuple[str, ...]
    patch_vox: Triple
    context_vox: Triple
    batch_size: int
    foreground_share: float
    seed: int
    sampling: Sampling = "class"
    object_dims: int | None = None
    _centres: tuple[Centres, ...] = field(init=False, repr=False)
    _tables: tuple[ObjectTable, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.cases:
            raise ManifestError("no labelled case to train on")
        found = [
            centres_of(case, num_classes=len(self.classes), sampling=self.sampling)
            for case in self.cases
        ]
        object.__setattr__(self, "_centres", tuple(found))
        num, flat = len(self.classes), self.object_dims == 2
        measured = () if self.object_dims is None else self.cases
        tables = [table_of(case, num_classes=num, flat=flat) for case in measured]
        object.__setattr__(self, "_tables", tuple(tables))

    def draw(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        rng = np.random.default_rng((self.seed, step))
        places = [self._place(step * self.batch_size + n) for n in range(self.batch_size)]
        chosen = [self.cases[place] for place in places]
        drawn = [self._patch(place, rng) for place in places]
        ids = [one.ids_IJK for one in drawn if one.ids_IJK is not None]
        objects = [one.objects_M5 for one in drawn if one.objects_M5 is not None]
        return Batch(
            image_BCIJK=torch.from_numpy(np.stack([one.image_CIJK for one in drawn])),
            label_BIJK=torch.from_numpy(np.stack([one.label_IJK for one in drawn])),
            annotated_BL=self._annotated(chosen),
            case_ids=tuple(case.case.case_id for case in chosen),
            ids_BIJK=torch.from_numpy(np.stack(ids)) if ids else None,
            objects_BM5=torch.from_numpy(stack_rows(objects)) if objects else None,
        )

    def _place(self, position: int) -> int:
        """Which case comes at a position of the endless sequence of shuffled rounds."""
        round_, place = divmod(position, len(self.cases))
        order = np.random.default_rng((self.seed, 1, round_)).permutation(len(self.cases))
        return int(order[place])

    def _patch(self, place: int, rng: np.random.Generator) -> "_Patch":
        case, centres = self.cases[place], self._centres[place]
        shape = case.geometry.shape
        start = random_start(shape, self.patch_vox, rng)
        if rng.random() < self.foreground_share and centres.groups:
            start = _start_around(centres.draw(rng), self.patch_vox, shape=shape, rng=rng)
        margin = [(c - p) // 2 for c, p in zip(self.context_vox, self.patch_vox, strict=True)]
        first = [s - m for s, m in zip(start, margin, strict=True)]
        label, ids = case.open_label(), case.open_ids()
        if label is None:
            raise ManifestError(f"case {case.case.case_id}: has no label map to train on")
        ids_IJK = None if ids is None else cut(ids, first, self.context_vox)
        return _Patch(
            image_CIJK=cut(case.open_image(), first, self.context_vox),
            label_IJK=cut(label, first, self.context_vox).astype(np.int64),
            ids_IJK=ids_IJK,
            objects_M5=self._tables[place].within(ids_IJK, first)
            if self._tables and ids_IJK is not None
            else None,
        )

    def _annotated(self, cases: Sequence[CachedCase]) -> torch.Tensor | None:
        if all(case.case.annotated is None for case in self.cases):
            return None
        rows = [
            [True, *(c.case.annotated is None or n in c.case.annotated for n in self.classes)]
            for c in cases
        ]
        return torch.tensor(rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Patch:
    """What is cut out of one case; of objects, the rows that `object_table` has of them."""

    image_CIJK: NDArray[np.float32]
    label_IJK: NDArray[np.int64]
    ids_IJK: NDArray[np.int32] | None
    objects_M5: NDArray[np.float32] | None


def batches(
    sampler: Sampler, *, first: int, last: int, num_workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Yield the batches of steps `first` to `last` - 1, drawn ahead by worker processes if any."""
    loader: DataLoader[Batch] = DataLoader(
        _Steps(sampler, first, last),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=False,
        # A loader draws a seed for its workers; from torch's own generator it would move the
        # dropout of a resumed training, whose loader begins later.
        generator=torch.Generator(),
    )
    return iter(loader)


@contextmanager
def workers_named() -> Iterator[None]:
    """Say what happened when a process that draws patches dies while the block runs.

    PyTorch notices by a signal, and raises wherever the block happens to be; a batch that was just
    being handed over breaks off even before that.

    Raises:
        ReadError: RUN-001.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as fault:
        if isinstance(fault, RuntimeError) and not str(fault).startswith("DataLoader worker"):
            raise
        # The loader goes with the frames that hold it. While it stands, a signal still to come
        # would be raised wherever this process has got to by then.
        clear_frames(fault.__traceback__)
        raise ReadError(
            f"a process that draws patches died: {' '.join(str(fault).split())}",
            code="RUN-001",
            hint="out of memory? go on with training.resume=true and fewer training.num_workers",
        ) from fault


class _Steps(Dataset[Batch]):
    """Steps as a dataset, the way PyTorch's loader wants them."""

    def __init__(self, sampler: Sampler, first: int, last: int) -> None:
        self.sampler, self.first, self.last = sampler, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, position: int) -> Batch:
        return self.sampler.draw(self.first + position)


def cut(array: NDArray[Value], start: Sequence[int], size: Sequence[int]) -> NDArray[Value]:
    """Copy a box out of the last three axes; what lies outside the array is zero."""
    out = np.zeros((*array.shape[:-3], *size), dtype=array.dtype)
    source: list[Any] = [...]
    target: list[Any] = [...]
    for first, length, have in zip(start, size, array.shape[-3:], strict=True):
        low, high = max(first, 0), min(first + length, have)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - first, max(low, high) - first))
    out[tuple(target)] = array[tuple(source)]
    return out


def random_start(shape: Triple, patch_vox: Triple, rng: np.random.Generator) -> list[int]:
    """Place a patch anywhere inside the scan, or the scan anywhere inside a larger patch."""
    return [
        int(rng.integers(min(0, n - p), max(0, n - p) + 1))
        for n, p in zip(shape, patch_vox, strict=True)
    ]


def _start_around(
    voxel: NDArray[np.int32], patch_vox: Triple, *, shape: Triple, rng: np.random.Generator
) -> list[int]:
    """Place a patch so that it holds the voxel, near its middle, without leaving the scan."""
    start = []
    for centre, patch, size in zip(voxel, patch_vox, shape, strict=True):
        reach = int(patch * _JITTER)
        first = int(centre) - patch // 2 + int(rng.integers(-reach, reach + 1))
        if size >= patch:
            first = min(max(first, 0), size - patch)
        else:
            first = int(rng.integers(size - patch, 1))
        start.append(first)
    return start
