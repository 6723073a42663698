"""All object scores of one case: a row for every class.

Things are scored object by object. A stuff class is one segment an image, as panoptic quality takes
it (Kirillov et al., CVPR 2019). Voxels that the reference marks as ignored belong to no object. As
there (section 4.1), objects are matched without them first; of those left unmatched, one that lies
in ignored voxels for more than half is nobody's fault and left out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.labels import Label, LabelMap, LabelSet
from medseg.metrics.instances import Detection, detect, pooled
from medseg.metrics.lesions import Lesions, count_lesions
from medseg.metrics.matching import Ids, find_contacts, leave_out, match

# IoU thresholds of the tables of Schmidt et al. (MICCAI 2018).
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
# Panoptic quality is defined at this one.
_PANOPTIC_IOU = 0.5
# Share of a predicted object that may lie in ignored voxels.
_MOST_IGNORED = 0.5
_COUNTS = ("num_reference", "num_prediction", "num_found", "num_missed", "num_false")
_MEASURES = ("pq", "sq", "rq", "lesion_dice", "lesion_recall")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectScore:
    """Object scores of one class in one case.

    Attributes:
        class_name, kind: the class; `thing` or `stuff`.
        panoptic: matched at an IoU above 0.5.
        lesions: matched by touch.
        detections: threshold -> matched there.
    """

    class_name: str
    kind: str
    panoptic: Detection
    lesions: Lesions
    detections: Mapping[float, Detection]

    def to_row(self) -> dict[str, Any]:
        """Return the columns of object_scores.csv by name."""
        row: dict[str, Any] = {
            "class": self.class_name,
            "kind": self.kind,
            "num_reference": self.panoptic.num_reference,
            "num_prediction": self.panoptic.num_prediction,
            "num_found": self.lesions.num_found,
            "num_missed": self.lesions.num_missed,
            "num_false": self.lesions.num_false,
            "lesion_dice": self.lesions.dice,
            "lesion_recall": self.lesions.recall,
            "pq": self.panoptic.pq,
            "sq": self.panoptic.sq,
            "rq": self.panoptic.rq,
            "reference_empty": self.panoptic.num_reference == 0,
            "prediction_empty": self.panoptic.num_prediction == 0,
            "matched_iou": self.panoptic.iou_sum,
            "num_matched": self.panoptic.num_matched,
        }
        for threshold, detection in self.detections.items():
            percent = percent_of(threshold)
            row[f"ap_{percent}"] = detection.ap
            row[f"f1_{percent}"] = detection.f1
            row[f"num_matched_{percent}"] = detection.num_matched
        return row


def percent_of(threshold: float) -> int:
    """Return a threshold as columns are named after it: 0.5 is 50."""
    return round(100 * threshold)


def object_measures(thresholds: Sequence[float]) -> tuple[str, ...]:
    """Return the columns that are averaged over cases."""
    return (*_MEASURES, *(f"{n}_{percent_of(t)}" for n in ("ap", "f1") for t in thresholds))


def score_objects(
    prediction: tuple[LabelMap, Ids],
    reference: tuple[LabelMap, Ids],
    *,
    labels: LabelSet,
    thresholds: Sequence[float] = THRESHOLDS,
    annotated: Collection[str] | None = None,
) -> list[ObjectScore]:
    """Score the objects of every class of a case.

    Args:
        prediction: indices 0..N and object ids, both (I, J, K).
        reference: the same; N + 1 for voxels to ignore.
        labels: the classes.
        thresholds: IoU that a pair must exceed, one AP and F1 each.
        annotated: classes that were annotated in this case; None: all.
    """
    prediction_map, prediction_ids = prediction
    reference_map, reference_ids = reference
    ignored = np.zeros(reference_map.shape, dtype=bool)
    if labels.ignore_index is not None:
        ignored = reference_map == labels.ignore_index
    scores = []
    for index, label in enumerate(labels.labels, start=1):
        if annotated is not None and label.name not in annotated:
            continue
        predicted = _objects_of(label, prediction_map == index, prediction_ids)
        drawn = _objects_of(label, reference_map == index, reference_ids)
        contacts = find_contacts(np.where(ignored, 0, predicted), drawn)
        hidden = _mostly_ignored(predicted, ignored)
        touching, matched = (
            np.isin(np.arange(len(hidden)), contacts.predicted[pairs])
            for pairs in (slice(None), match(contacts, _PANOPTIC_IOU))
        )
        lesions = count_lesions(leave_out(contacts, hidden & ~touching))
        contacts = leave_out(contacts, hidden & ~matched)
        scores.append(
            ObjectScore(
                class_name=label.name,
                kind=label.kind,
                panoptic=detect(contacts, _PANOPTIC_IOU),
                lesions=lesions,
                detections={threshold: detect(contacts, threshold) for threshold in thresholds},
            )
        )
    return scores


def pool_objects(rows: Sequence[Row], thresholds: Sequence[float]) -> dict[str, float]:
    """Return what the rows of one class come to when all images are taken as one.

    Args:
        rows: `ObjectScore.to_row` of scored cases.
        thresholds: those the rows were made with.
    """
    whole = pooled(_detection(row, row["num_matched"], row["matched_iou"]) for row in rows)
    found: dict[str, float] = {name: sum(row[name] for row in rows) for name in _COUNTS}
    found |= {"pq": whole.pq, "sq": whole.sq, "rq": whole.rq}
    for percent in map(percent_of, thresholds):
        one = pooled(_detection(row, row[f"num_matched_{percent}"], 0.0) for row in rows)
        found |= {f"ap_{percent}": one.ap, f"f1_{percent}": one.f1}
    return found


def _detection(row: Row, num_matched: int, iou_sum: float) -> Detection:
    return Detection(
        num_prediction=row["num_prediction"],
        num_reference=row["num_reference"],
        num_matched=num_matched,
        iou_sum=iou_sum,
    )


def _objects_of(label: Label, mask: LabelMap, ids: Ids) -> Ids:
    return np.where(mask, ids, 0) if label.kind == "thing" else mask.astype(np.uint8)


def _mostly_ignored(ids: Ids, ignored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which objects lie in ignored voxels for more than half, of those not wholly there."""
    every, vox = np.unique(ids[ids > 0], return_counts=True)
    seen, seen_vox = np.unique(ids[(ids > 0) & ~ignored], return_counts=True)
    return np.asarray(seen_vox < (1 - _MOST_IGNORED) * vox[np.searchsorted(every, seen)])
