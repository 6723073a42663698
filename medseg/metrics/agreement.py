"""How far the raters of a case agree with each other, and a prediction with each of them.

Every pair is scored as a prediction is scored against its reference (`summary.score_case`), so that
what a model reaches can be held against what people reach. Voxels that either of the two marks as
ignored belong to neither mask.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet
from medseg.metrics.summary import Score, score_case

# What the prediction is called among the raters.
PREDICTION = "prediction"
_NO_TOLERANCES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScore:
    """One class in one case, as two of those who marked it see it.

    Attributes:
        first, second: who; the second is taken for the reference.
        score: of the first against the second.
    """

    first: str
    second: str
    score: Score

    def to_row(self) -> dict[str, Any]:
        """Return the columns of raters.csv by name."""
        return {"first": self.first, "second": self.second, **self.score.to_row()}


def score_agreement(
    prediction: LabelMap,
    raters: Mapping[str, LabelMap],
    *,
    geometry: Geometry,
    labels: LabelSet,
    surface_tolerance_mm: float | None = None,
    class_tolerance_mm: Mapping[str, float] = _NO_TOLERANCES,
    annotated: Collection[str] | None = None,
) -> list[PairScore]:
    """Score the prediction against every rater, then every two raters, class by class.

    Args:
        prediction: (I, J, K), indices 0..N.
        raters: label maps of the same shape, N + 1 for voxels to ignore, by the rater's name.
        geometry: the grid all lie on.
        labels: the classes.
        surface_tolerance_mm: as `score_case`.
        class_tolerance_mm: as `score_case`.
        annotated: as `score_case`.

    Raises:
        GeometryError: as `score_case`.
    """
    pairs = [(PREDICTION, name) for name in raters] + list(combinations(raters, 2))
    found = []
    for first, second in pairs:
        own = prediction if first == PREDICTION else raters[first]
        scores = score_case(
            own,
            _also_ignored(raters[second], own, labels),
            geometry=geometry,
            labels=labels,
            surface_tolerance_mm=surface_tolerance_mm,
            class_tolerance_mm=class_tolerance_mm,
            annotated=annotated,
        )
        found += [PairScore(first=first, second=second, score=score) for score in scores]
    return found


def _also_ignored(reference: LabelMap, other: LabelMap, labels: LabelSet) -> LabelMap:
    ignored = labels.ignore_index
    return reference if ignored is None else np.where(other == ignored, ignored, reference)
