"""From what a network says to probabilities, and from those to one label a voxel.

Axes: L output, IJK voxel.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from medseg.core.labels import LabelMap, LabelSet
from medseg.core.regions import classes_written

# A region is where it is more probable than not.
_INSIDE = 0.5


def probabilities_of(logits_LIJK: torch.Tensor, labels: LabelSet) -> torch.Tensor:
    """Return the probability of each output: classes exclude each other, regions may overlap."""
    if labels.outputs == "regions":
        return logits_LIJK.sigmoid()
    return logits_LIJK.softmax(dim=0)


def label_map_of(probabilities_LIJK: torch.Tensor, labels: LabelSet) -> LabelMap:
    """Return the label of every voxel, indices 0..N.

    Args:
        probabilities_LIJK: of classes, background first: the most probable one is taken. Of
            regions: they are written one after the other, see `classes_written`.
        labels: say which.
    """
    kind = np.uint8 if labels.num_indices <= 256 else np.uint16
    if labels.outputs == "classes":
        best: NDArray[np.int64] = probabilities_LIJK.argmax(dim=0).cpu().numpy()
        return best.astype(kind)
    inside_LIJK = (probabilities_LIJK > _INSIDE).cpu().numpy()
    label_map = np.zeros(inside_LIJK.shape[1:], dtype=kind)
    for inside_IJK, index in zip(
        inside_LIJK, classes_written(labels.regions, labels.names), strict=True
    ):
        label_map[inside_IJK] = index
    return label_map
