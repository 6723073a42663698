"""Cases made ready: prepared once on disk for training, and scored on their own grids."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.core.labels import LabelSet
from medseg.core.plan import Plan
from medseg.core.volume import Volume
from medseg.data.cache import CachedCase, prepare_cases
from medseg.data.manifest import Case, Manifest
from medseg.data.object_ids import read_ids
from medseg.data.scans import read_reference, read_scan
from medseg.inference.predictor import Predictor
from medseg.runtime.hardware import num_cores
from medseg.training.validate import Reference, mean_dice, validate
from medseg.transforms.chains import CHAIN_VERSION, PrepareChain, Prepared


@dataclass(frozen=True, slots=True)
class Preparation:
    """Prepares cases of a dataset as a plan says, and keeps them on disk.

    Attributes:
        manifest, plan: see there.
        folder: of all caches; each dataset has its own inside.
        zero_missing: fill a missing channel with zeros instead of refusing the case.
        ids_of: label set whose things have their objects numbered, too; None: nobody asks.
    """

    manifest: Manifest
    plan: Plan
    folder: Path
    zero_missing: bool = False
    ids_of: LabelSet | None = None

    def __call__(self, cases: Sequence[Case]) -> list[CachedCase]:
        """Prepare the cases that are not on disk yet, and open all of them."""
        recipe = {
            "chain": CHAIN_VERSION,
            "orientation": self.plan.orientation,
            "spacing_mm": self.plan.spacing_mm,
            "intensity": self.plan.to_json()["intensity"],
            "labels": self.manifest.labels.to_json(),
            "channels": [[c.name, c.modality] for c in self.manifest.channels],
            "reference_channel": self.manifest.reference_channel,
            "consensus": self.manifest.consensus,
        }
        if self.zero_missing:
            # A training that wants every channel must not find a case here that lacks one.
            recipe["zero_missing"] = True
        if self.ids_of is not None:
            recipe["ids_of"] = self.ids_of.to_json()
        return prepare_cases(
            cases,
            self._prepare,
            folder=self.folder / self.manifest.name,
            recipe=recipe,
            num_workers=num_cores(),
        )

    def _prepare(self, case: Case) -> Prepared:
        scan = read_scan(self.manifest, case, missing="zero" if self.zero_missing else "fail")
        if not case.labels:
            return PrepareChain(self.plan)(scan)
        reference = read_reference(self.manifest, case, scan.geometry)
        ids = None
        if self.ids_of is not None:
            numbered = read_ids(replace(self.manifest, labels=self.ids_of), case, reference)
            ids = Volume(numbered[np.newaxis], scan.geometry, ("ids",))
        return PrepareChain(self.plan)(scan, reference, ids)


@dataclass(slots=True)
class Validation:
    """Scores a predictor on the validation fold.

    Attributes:
        manifest: where the references come from.
        cases: of the fold, prepared.
        few: how many of them stand for all while training goes on.
    """

    manifest: Manifest
    cases: Sequence[CachedCase]
    few: int
    _references: dict[str, Reference] = field(default_factory=dict)

    def __call__(self, predictor: Predictor, *, whole: bool) -> dict[str, float]:
        """Return the mean Dice per class and `mean`; nothing where the fold is empty."""
        cases = self.cases if whole else self._evenly_spread()
        if not cases:
            return {}
        return mean_dice(validate(predictor, cases, reference_of=self._reference))

    def _evenly_spread(self) -> list[CachedCase]:
        count = min(self.few, len(self.cases))
        places = np.linspace(0, len(self.cases) - 1, count).round().astype(int)
        return [self.cases[place] for place in places]

    def _reference(self, case: CachedCase) -> Reference:
        """Read a reference once; label maps are small beside their scans."""
        known = self._references.get(case.case.case_id)
        if known is None:
            scan = read_scan(self.manifest, case.case, missing="zero")
            reference = read_reference(self.manifest, case.case, scan.geometry)
            known = reference.only_channel, scan.geometry
            self._references[case.case.case_id] = known
        return known
