"""Whole volumes of the validation fold, through the same predictor the user will run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet
from medseg.data.cache import CachedCase
from medseg.inference.predictor import Predictor
from medseg.metrics.overlap import measure_overlap
from medseg.transforms.chains import Prepared

Reference = tuple[LabelMap, Geometry]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScore:
    """Dice of one case per class or region; NaN where neither mask nor reference has any."""

    case_id: str
    dice: dict[str, float]


def validate(
    predictor: Predictor,
    cases: Iterable[CachedCase],
    *,
    reference_of: Callable[[CachedCase], Reference],
) -> list[CaseScore]:
    """Segment prepared cases and score them on their scans' own grids.

    Args:
        predictor: holds the network under training.
        cases: prepared; classes a case was not annotated for are left out of its score.
        reference_of: the reference of a case and the grid of its scan.
    """
    scores = []
    for case in cases:
        reference, geometry = reference_of(case)
        image = torch.from_numpy(np.array(case.open_image()))
        prepared = Prepared(image, None, case.geometry)
        found = predictor.segment_prepared(prepared, onto=geometry).label_map
        # Voxels that nobody labelled (an index past the last class) count for neither side.
        known = reference <= len(predictor.labels)
        known_classes = _annotated_indices(case, predictor.labels)
        scores.append(
            CaseScore(
                case_id=case.case.case_id,
                dice={
                    name: measure_overlap(
                        np.isin(found, members) & known, np.isin(reference, members)
                    ).dice
                    for name, members in predictor.labels.targets
                    if known_classes is None or known_classes.issuperset(members)
                },
            )
        )
    return scores


def _annotated_indices(case: CachedCase, labels: LabelSet) -> set[int] | None:
    if case.case.annotated is None:
        return None
    return {n for n, name in enumerate(labels.names, start=1) if name in case.case.annotated}


def mean_dice(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Mean over cases per class, and `mean` over the classes; NaN where nothing is defined."""
    names = dict.fromkeys(name for score in scores for name in score.dice)
    means = {
        name: _mean([score.dice[name] for score in scores if name in score.dice]) for name in names
    }
    return {**means, "mean": _mean(list(means.values()))}


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if value == value]
    return float(np.mean(defined)) if defined else float("nan")
