"""Lesions found, missed and invented, however well they are drawn."""

from dataclasses import dataclass

import numpy as np

from medseg.metrics.matching import Contacts
from medseg.metrics.overlap import UNDEFINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesions:
    """Objects that touch one of the other map, and those that do not.

    Attributes:
        num_found, num_missed: reference objects that share a voxel with the prediction, or do not.
        num_false: predicted objects that share none with the reference.
        dice_sum: over the found ones, of each against all predicted objects that touch it.
    """

    num_found: int
    num_missed: int
    num_false: int
    dice_sum: float

    @property
    def dice(self) -> float:
        """Lesion-wise Dice, 0 to 1: missed and false lesions count 0; NaN when there is none.

        Sum of Dice / (found + missed + false), as in the BraTS 2023 challenge (Moawad et al.,
        2023), without its dilation.
        """
        total = self.num_found + self.num_missed + self.num_false
        return self.dice_sum / total if total else UNDEFINED

    @property
    def recall(self) -> float:
        """Share of the reference's lesions that were found; NaN when it has none."""
        total = self.num_found + self.num_missed
        return self.num_found / total if total else UNDEFINED


def count_lesions(contacts: Contacts) -> Lesions:
    """Count the lesions of two maps by whether they touch."""
    num_reference, num_prediction = len(contacts.reference_vox), len(contacts.prediction_vox)
    touching_vox = contacts.prediction_vox[contacts.predicted]
    common_vox = np.bincount(contacts.referenced, contacts.common_vox, minlength=num_reference)
    joined_vox = np.bincount(contacts.referenced, touching_vox, minlength=num_reference)
    dice = 2 * common_vox / (contacts.reference_vox + joined_vox)
    num_found = len(np.unique(contacts.referenced))
    return Lesions(
        num_found=num_found,
        num_missed=num_reference - num_found,
        num_false=num_prediction - len(np.unique(contacts.predicted)),
        dice_sum=float(dice.sum()),
    )
