"""How much two masks share, and how much volume lies between them.

The rule for empty masks, which holds for every score of medseg: where a formula divides nothing by
nothing, or asks for a distance to a surface that is not there, the score is NaN and is counted
beside the mean. One empty mask of two is a complete miss (Dice, IoU and surface Dice are 0).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

UNDEFINED = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Voxels of a prediction, of its reference, and of both at once."""

    prediction_vox: int
    reference_vox: int
    common_vox: int

    @property
    def dice(self) -> float:
        """2 |P and R| / (|P| + |R|), 0 to 1 (Dice, Ecology 1945); NaN when both are empty."""
        total = self.prediction_vox + self.reference_vox
        return 2 * self.common_vox / total if total else UNDEFINED

    @property
    def iou(self) -> float:
        """|P and R| / |P or R|, 0 to 1 (Jaccard, 1912); NaN when both are empty."""
        union = self.prediction_vox + self.reference_vox - self.common_vox
        return self.common_vox / union if union else UNDEFINED

    @property
    def error_vox(self) -> int:
        """Voxels the prediction has too many (positive) or too few (negative)."""
        return self.prediction_vox - self.reference_vox


def measure_overlap(prediction: NDArray[Any], reference: NDArray[Any]) -> Overlap:
    """Count the voxels of two masks of one shape; anything but zero is inside."""
    return Overlap(
        prediction_vox=int(np.count_nonzero(prediction)),
        reference_vox=int(np.count_nonzero(reference)),
        common_vox=int(np.count_nonzero(np.logical_and(prediction, reference))),
    )


def dice(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the Dice of two masks of one shape, 0 to 1; NaN when both are empty."""
    return measure_overlap(prediction, reference).dice
