"""Objects of a prediction set against those of a reference: who overlaps whom, and who is whose.

Ids: 0 is no object; any other whole number is one, wherever its voxels lie.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Ids = NDArray[np.integer[Any]]
Index = NDArray[np.int64]

# Two objects that each share more than half of their union with a third are one object: above this
# IoU no assignment has to be sought (Kirillov et al., CVPR 2019, section 4.1).
_UNIQUE_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contacts:
    """Objects of two maps, and every pair of them that shares a voxel.

    Attributes:
        prediction_vox, reference_vox: size of each object, in the order of their ids.
        predicted, referenced: the objects of each pair, as positions in these.
        common_vox: voxels each pair shares.
    """

    prediction_vox: Index
    reference_vox: Index
    predicted: Index
    referenced: Index
    common_vox: Index

    @property
    def iou(self) -> NDArray[np.float64]:
        """|P and R| / |P or R| of each pair, above 0 to 1."""
        total_vox = self.prediction_vox[self.predicted] + self.reference_vox[self.referenced]
        return np.asarray(self.common_vox / (total_vox - self.common_vox), dtype=np.float64)


def find_contacts(prediction: Ids, reference: Ids) -> Contacts:
    """Count the voxels of all objects and of all pairs that overlap, in maps of one shape."""
    predicted_ids, prediction_vox = np.unique(prediction[prediction > 0], return_counts=True)
    reference_ids, reference_vox = np.unique(reference[reference > 0], return_counts=True)
    both = (prediction > 0) & (reference > 0)
    predicted = np.searchsorted(predicted_ids, prediction[both])
    referenced = np.searchsorted(reference_ids, reference[both])
    width = max(1, len(reference_ids))
    pairs, common_vox = np.unique(predicted * width + referenced, return_counts=True)
    return Contacts(
        prediction_vox=prediction_vox.astype(np.int64),
        reference_vox=reference_vox.astype(np.int64),
        predicted=pairs // width,
        referenced=pairs % width,
        common_vox=common_vox.astype(np.int64),
    )


def leave_out(contacts: Contacts, gone: NDArray[np.bool_]) -> Contacts:
    """Return the contacts of a prediction without some of its objects.

    Args:
        contacts: of all of them.
        gone: which predicted objects are left out, in the order of `prediction_vox`.
    """
    place = np.cumsum(~gone) - 1
    kept = ~gone[contacts.predicted]
    return Contacts(
        prediction_vox=contacts.prediction_vox[~gone],
        reference_vox=contacts.reference_vox,
        predicted=place[contacts.predicted[kept]],
        referenced=contacts.referenced[kept],
        common_vox=contacts.common_vox[kept],
    )


def match(contacts: Contacts, threshold: float) -> Index:
    """Choose which pairs are one object seen twice; nobody is in two of them.

    Args:
        contacts: all pairs.
        threshold: IoU that a pair must exceed. From 0.5 on such pairs are unique; below, as many
            as possible are chosen, and among equal numbers those with the largest sum of IoU.

    Returns:
        Positions of the chosen pairs in `contacts`.
    """
    iou = contacts.iou
    close = np.flatnonzero(iou > threshold)
    if threshold >= _UNIQUE_IOU or not len(close):
        return close
    rows, row = np.unique(contacts.predicted[close], return_inverse=True)
    columns, column = np.unique(contacts.referenced[close], return_inverse=True)
    # One more pair outweighs any IoU: all of them together stay below 1.
    gain = np.zeros((len(rows), len(columns)))
    gain[row, column] = 1 + iou[close] / (min(gain.shape) + 1)
    chosen = np.zeros(gain.shape, dtype=bool)
    chosen[linear_sum_assignment(gain, maximize=True)] = True
    return np.asarray(close[chosen[row, column]])
