"""How well objects are told apart: AP, F1 and panoptic quality at an IoU threshold.

The rule for empty maps is that of `overlap`: with objects on one side only everything is missed or
false, and the scores are 0; with none on either side nothing was asked for, and they are NaN.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from medseg.metrics.matching import Contacts, match
from medseg.metrics.overlap import UNDEFINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Objects of a prediction and a reference, and those of them that are each other's.

    Attributes:
        num_prediction, num_reference: objects.
        num_matched: pairs whose IoU exceeds the threshold (TP).
        iou_sum: of these pairs.
    """

    num_prediction: int
    num_reference: int
    num_matched: int
    iou_sum: float

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN), 0 to 1 (Data Science Bowl 2018; Schmidt et al., MICCAI 2018)."""
        union = self.num_prediction + self.num_reference - self.num_matched
        return self.num_matched / union if union else UNDEFINED

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), 0 to 1."""
        total = self.num_prediction + self.num_reference
        return 2 * self.num_matched / total if total else UNDEFINED

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the pairs; NaN without any."""
        return self.iou_sum / self.num_matched if self.num_matched else UNDEFINED

    @property
    def rq(self) -> float:
        """Recognition quality, which is F1 (Kirillov et al., CVPR 2019)."""
        return self.f1

    @property
    def pq(self) -> float:
        """Panoptic quality: sum of IoU / (TP + FP / 2 + FN / 2), which is SQ x RQ."""
        total = self.num_prediction + self.num_reference
        return 2 * self.iou_sum / total if total else UNDEFINED


def detect(contacts: Contacts, threshold: float) -> Detection:
    """Match the objects at a threshold and count."""
    chosen = match(contacts, threshold)
    return Detection(
        num_prediction=len(contacts.prediction_vox),
        num_reference=len(contacts.reference_vox),
        num_matched=len(chosen),
        iou_sum=float(contacts.iou[chosen].sum()),
    )


def pooled(detections: Iterable[Detection]) -> Detection:
    """Return the counts of many images as if they were one, as PQ of a dataset is defined."""
    every = list(detections)
    return Detection(
        num_prediction=sum(one.num_prediction for one in every),
        num_reference=sum(one.num_reference for one in every),
        num_matched=sum(one.num_matched for one in every),
        iou_sum=sum(one.iou_sum for one in every),
    )
