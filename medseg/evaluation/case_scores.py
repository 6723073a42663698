"""One case scored in every way it can be: its classes, its objects, its raters.

Works on a pair that is still on disk, so that a process is sent little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medseg.core.errors import MedsegError
from medseg.data.pairs import Pair
from medseg.metrics.agreement import score_agreement
from medseg.metrics.objects import score_objects
from medseg.metrics.score_table import Row
from medseg.metrics.summary import score_case


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScores:
    """The rows of one case.

    Attributes:
        rows: against its reference, one a class and region.
        objects: of classes of things, against the objects of the reference.
        agreement: between its raters and of the prediction with each, where there are several.
    """

    rows: tuple[Row, ...]
    objects: tuple[Row, ...] = ()
    agreement: tuple[Row, ...] = ()


def score_pair(
    pair: Pair,
    *,
    surface_tolerance_mm: float | None,
    class_tolerance_mm: Mapping[str, float],
    iou_thresholds: Sequence[float],
) -> CaseScores:
    """Read a pair and score it.

    Raises:
        MedsegError: a mask is missing or unreadable, or both do not lie on one grid.
    """
    masks = pair.read()
    scores = score_case(
        masks.prediction,
        masks.reference,
        geometry=masks.geometry,
        labels=pair.labels,
        surface_tolerance_mm=surface_tolerance_mm,
        class_tolerance_mm=class_tolerance_mm,
        annotated=pair.annotated,
    )
    objects = (
        ()
        if masks.ids is None
        else score_objects(
            (masks.prediction, masks.ids[0]),
            (masks.reference, masks.ids[1]),
            labels=pair.labels,
            thresholds=iou_thresholds,
            annotated=pair.annotated,
        )
    )
    agreement = score_agreement(
        masks.prediction,
        masks.raters,
        geometry=masks.geometry,
        labels=pair.labels,
        surface_tolerance_mm=surface_tolerance_mm,
        class_tolerance_mm=class_tolerance_mm,
        annotated=pair.annotated,
    )
    who = _who(pair)
    return CaseScores(
        rows=tuple({**who, **one.to_row(), "error": ""} for one in scores),
        objects=tuple({**who, **one.to_row(), "error": ""} for one in objects),
        agreement=tuple({**who, **one.to_row(), "error": ""} for one in agreement),
    )


def rows_of_refusal(pair: Pair, refusal: MedsegError) -> CaseScores:
    """Return the rows of a pair that was not scored: one a class, which say why."""
    error = f"case {pair.case_id}: {refusal}"
    asked = pair.labels.names if pair.annotated is None else pair.annotated
    rows = tuple({**_who(pair), "class": name, "error": error} for name in asked)
    return CaseScores(rows=rows, objects=rows if pair.labels.things else ())


def _who(pair: Pair) -> dict[str, str]:
    return {"case_id": pair.case_id, "patient_id": pair.patient_id, "stratum": pair.stratum}
