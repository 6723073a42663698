"""Frames of enhanced multi-frame files, whose geometry lies in functional groups (PS3.3 C.7.6.16).

An attribute group stands either once for all frames (shared) or once a frame.
"""

from collections.abc import Iterator

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag

from medseg.core.errors import ReadError
from medseg.io.dicom.headers.attributes import UNPARSABLE, item, items, text, whole, words
from medseg.io.dicom.headers.scan import Header
from medseg.io.dicom.pixels.storage import storage_of
from medseg.io.dicom.series.frames import (
    Frame,
    is_localizer,
    plane_of,
    require_gray,
    rescale_of,
)

# Dimensions that say where a frame lies; the others tell volumes at one place apart.
_PLACES = frozenset(
    {"ImagePositionPatient", "InStackPositionNumber", "StackID", "ImageOrientationPatient"}
)


class FunctionalGroups:
    """The groups of one enhanced file, asked by frame."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        """Take the groups of a file.

        Raises:
            ReadError: DCM-016, the file does not hold one item of per-frame groups a frame.
        """
        self._shared = item(dataset, "SharedFunctionalGroupsSequence") or Dataset()
        self._per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
        self.num_frames = whole(dataset, "NumberOfFrames", name=name) or 1
        if len(self._per_frame) != self.num_frames:
            raise ReadError(
                f"{name}: {self.num_frames} frames with {len(self._per_frame)} items of per-frame "
                "functional groups, expected one each",
                code="DCM-016",
                hint="export the series again, as enhanced or as single frames",
            )

    def of(self, index: int, keyword: str) -> Dataset:
        """Return a group of one frame, its own before the shared one; empty when absent."""
        own = item(self._per_frame[index], keyword)
        return own or item(self._shared, keyword) or Dataset()


def enhanced_frames(header: Header) -> Iterator[Frame]:
    """Go through the frames of an enhanced file, in the order in which they are stored.

    Raises:
        ReadError: DCM-016 groups are missing, DCM-008, DCM-026, DCM-037 as for single frames.
        GeometryError: DCM-018, DCM-019, DCM-020 as for single frames.
    """
    dataset, name = header.dataset, header.file.name
    require_gray(dataset, name)
    groups = FunctionalGroups(dataset, name)
    storage = storage_of(header)
    dimensions = _dimensions(dataset)
    for index in range(groups.num_frames):
        where = f"{name} frame {index + 1}"
        slope, intercept = rescale_of(groups.of(index, "PixelValueTransformationSequence"), where)
        content = groups.of(index, "FrameContentSequence")
        yield Frame(
            storage=storage,
            index=index,
            sop_uid=text(dataset, "SOPInstanceUID"),
            plane=plane_of(
                groups.of(index, "PlanePositionSequence"),
                groups.of(index, "PlaneOrientationSequence"),
                groups.of(index, "PixelMeasuresSequence"),
                name=where,
            ),
            slope=slope,
            intercept=intercept,
            marks=_marks(groups, index, dimensions),
            stack=text(content, "StackID"),
            localizer=is_localizer(dataset),
        )


def is_enhanced(header: Header) -> bool:
    """Tell whether a file carries its geometry in functional groups."""
    return "PerFrameFunctionalGroupsSequence" in header.dataset


def _dimensions(dataset: Dataset) -> tuple[str, ...]:
    """Name every dimension of the file, in the order of the frames' index values."""
    try:
        sequence = items(dataset, "DimensionIndexSequence")
        return tuple(keyword_for_tag(entry.DimensionIndexPointer) for entry in sequence)
    except UNPARSABLE:
        return ()


def _marks(
    groups: FunctionalGroups, index: int, dimensions: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    content = groups.of(index, "FrameContentSequence")
    values = words(content, "DimensionIndexValues")
    by_dimension = tuple(
        (name, value)
        for name, value in zip(dimensions, values, strict=False)
        if name not in _PLACES
    )
    diffusion = groups.of(index, "MRDiffusionSequence")
    echo = groups.of(index, "MREchoSequence")
    frame_type = groups.of(index, "MRImageFrameTypeSequence")
    named = (
        ("t", text(content, "TemporalPositionIndex")),
        ("echo", text(echo, "EffectiveEchoTime")),
        ("b", text(diffusion, "DiffusionBValue")),
        ("type", "/".join(words(frame_type, "FrameType"))),
    )
    return tuple((mark, value) for mark, value in named if value) + by_dimension
