"""Patches of scans that nobody labelled, drawn as labelled ones are: from seed and step alone.

Axes: B patch, C channel, IJK voxel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from medseg.core.errors import ManifestError
from medseg.data.cache import CachedCase
from medseg.data.patches import Batch, Sampler, Triple, cut, random_start

# Keeps the draws apart from those of labelled patches of the same seed and step.
_STREAM = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSampler:
    """Draws patches anywhere in a scan; their label maps are background throughout.

    Attributes:
        cases: prepared; every case comes once before any comes twice. Labels are not looked at.
        patch_vox, context_vox: as in `PatchSampler`.
        batch_size: patches a step.
        seed: of all draws.
    """

    cases: tuple[CachedCase, ...]
    patch_vox: Triple
    context_vox: Triple
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        require_scans(self.cases)

    def draw(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        rng = np.random.default_rng((self.seed, _STREAM, step))
        chosen = [self._case(step * self.batch_size + n) for n in range(self.batch_size)]
        images = [self._patch(case, rng) for case in chosen]
        image_BCIJK = torch.from_numpy(np.stack(images))
        return Batch(
            image_BCIJK=image_BCIJK,
            label_BIJK=torch.zeros_like(image_BCIJK[:, 0], dtype=torch.int64),
            annotated_BL=None,
            case_ids=tuple(case.case.case_id for case in chosen),
        )

    def _case(self, position: int) -> CachedCase:
        round_, place = divmod(position, len(self.cases))
        order = np.random.default_rng((self.seed, _STREAM, round_, 1)).permutation(len(self.cases))
        return self.cases[int(order[place])]

    def _patch(self, case: CachedCase, rng: np.random.Generator) -> np.ndarray:
        start = random_start(case.geometry.shape, self.patch_vox, rng)
        margin = [(c - p) // 2 for c, p in zip(self.context_vox, self.patch_vox, strict=True)]
        first = [s - m for s, m in zip(start, margin, strict=True)]
        return cut(case.open_image(), first, self.context_vox)


def require_scans(cases: Sequence[object]) -> None:
    """Refuse to learn without labels from no scan at all.

    Raises:
        ManifestError: MAN-008.
    """
    if not cases:
        raise ManifestError(
            "no scan to learn from without labels",
            code="MAN-008",
            hint="cases of split: unlabelled are taken for this",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSampler:
    """Draws labelled patches, and as many that nobody labelled beside them."""

    labelled: Sampler
    unlabelled: ImageSampler

    def draw(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0; its case ids are the labelled ones."""
        images_BCIJK = self.unlabelled.draw(step).image_BCIJK
        return replace(self.labelled.draw(step), unlabelled_BCIJK=images_BCIJK)
