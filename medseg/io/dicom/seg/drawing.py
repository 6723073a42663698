"""Segments of a DICOM SEG drawn onto a grid: one label map, or a mask each where they overlap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medseg.core.geometry import Geometry
from medseg.io.dicom.headers.attributes import number, text
from medseg.io.dicom.pixels.stored import PixelFile
from medseg.io.dicom.seg.frames import SegmentFrame, place

# MaximumFractionalValue where a file leaves it out (PS3.3 C.8.20.2.3 allows up to this).
_MAX_FRACTION = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The frames of a SEG on their way onto a grid.

    Attributes:
        frames: where they lie, and which segment they draw.
        pixels: their stored values.
        grid: what they are drawn on.
        numbers: for every segment number, the number to draw it with; others are background.
        cutoff: the stored value from which a voxel is marked (1 where pixels are not fractional).
    """

    frames: Sequence[SegmentFrame]
    pixels: PixelFile
    grid: Geometry
    numbers: dict[int, int]
    cutoff: float

    def merged(self) -> NDArray[Any] | None:
        """Draw all segments into one label map, (I, J, K); None when two of them overlap.

        Raises:
            GeometryError: DCM-043, a frame off the grid.
            ReadError: DCM-014, pixels that cannot be decoded.
        """
        kind = np.uint8 if max(self.numbers.values()) < 256 else np.uint16
        drawn = np.zeros(self.grid.shape, dtype=kind)
        for index, values in self._marks():
            place_IJK = tuple(index.T)
            before = drawn[place_IJK]
            if ((before != 0) & (before != values)).any():
                return None
            drawn[place_IJK] = values
        return drawn

    def apart(self, order: Sequence[int]) -> NDArray[np.uint8]:
        """Draw one mask of 0 and 1 for every number of `order`, (C, I, J, K).

        Raises:
            MedsegError: as `merged`.
        """
        drawn = np.zeros((len(order), *self.grid.shape), dtype=np.uint8)
        channel = {number: position for position, number in enumerate(order)}
        for index, values in self._marks():
            for value in np.unique(values).tolist():
                drawn[(channel[value], *index[values == value].T)] = 1
        return drawn

    def _marks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        """Go through the frames: voxels that are marked, and the number each is marked with."""
        for frame in self.frames:
            stored = self.pixels.frame(frame.index)
            if frame.segment is not None:
                stored = (stored >= self.cutoff).astype(np.uint16) * frame.segment
            index, segment = place(stored, frame, self.grid, name=self.pixels.name)
            table = np.zeros(int(segment.max(initial=0)) + 1, dtype=np.uint16)
            for described, meant in self.numbers.items():
                table[described : described + 1] = meant
            meant_by = table[segment]
            # In a LABELMAP, numbers nobody describes are padding or background (PS3.3 C.8.20.2.3).
            yield index[meant_by > 0], meant_by[meant_by > 0]


def cutoff_of(dataset: Dataset, threshold: float, *, name: str) -> float:
    """Return the stored value from which a voxel is marked, for a share of the largest value."""
    if text(dataset, "SegmentationType") != "FRACTIONAL":
        return 1.0
    largest = number(dataset, "MaximumFractionalValue", name=name)
    return max(threshold * (largest or _MAX_FRACTION), 1.0)
