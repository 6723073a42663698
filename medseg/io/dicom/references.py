"""Objects drawn on a series, such as SEG and RTSTRUCT: found under a path, tied to their series."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread

from medseg.core.errors import GeometryError, ReadError
from medseg.core.geometry import Geometry
from medseg.io.dicom.headers.attributes import items, text
from medseg.io.dicom.headers.scan import BROKEN
from medseg.io.dicom.headers.sources import DicomFile, find_files, has_preamble
from medseg.io.dicom.reader import choose_series, find_series, geometry_of

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
RTSTRUCT_CLASSES = ("1.2.840.10008.5.1.4.1.1.481.3",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnOn:
    """What an object says it was drawn on.

    Attributes:
        series_uids: SeriesInstanceUID of each series it refers to.
        frames_of_reference: FrameOfReferenceUID of each coordinate system it lies in.
    """

    series_uids: frozenset[str]
    frames_of_reference: frozenset[str]


def find_object(path: Path, classes: Collection[str], *, what: str) -> tuple[DicomFile, Dataset]:
    """Return the only object of some SOP classes under a path, without its pixels.

    Args:
        path: a file, folder or .zip.
        classes: SOP class UIDs.
        what: how messages call such an object.

    Raises:
        ReadError: DCM-034 none or several; DCM-039 a header that cannot be parsed.
    """
    found = []
    for file in find_files(path):
        if has_preamble(file.head()):
            dataset = read_header(file)
            if text(dataset, "SOPClassUID") in classes:
                found.append((file, dataset))
    if len(found) != 1:
        raise ReadError(
            f"{path}: {len(found)} {what} files, expected one",
            code="DCM-034",
            hint=f"give the file of the {what} itself",
        )
    return found[0]


def read_header(file: DicomFile) -> Dataset:
    """Return a file's attributes, without its pixels.

    Raises:
        ReadError: DCM-039, they cannot be parsed.
    """
    try:
        with file.open() as stream:
            return dcmread(stream, stop_before_pixels=True)
    except BROKEN as fault:
        raise ReadError(
            f"{file.name}: begins as DICOM, but its header cannot be parsed", code="DCM-039"
        ) from fault


def drawn_on(dataset: Dataset) -> DrawnOn:
    """Return the series that a SEG or RTSTRUCT refers to, and the spaces it lies in."""
    series = [*items(dataset, "ReferencedSeriesSequence")]
    frames = {text(dataset, "FrameOfReferenceUID")}
    for space in items(dataset, "ReferencedFrameOfReferenceSequence"):
        frames.add(text(space, "FrameOfReferenceUID"))
        for study in items(space, "RTReferencedStudySequence"):
            series += items(study, "RTReferencedSeriesSequence")
    frames |= {
        text(roi, "ReferencedFrameOfReferenceUID")
        for roi in items(dataset, "StructureSetROISequence")
    }
    return DrawnOn(
        series_uids=frozenset(text(one, "SeriesInstanceUID") for one in series) - {""},
        frames_of_reference=frozenset(frames) - {""},
    )


def shares_space(on: DrawnOn, frame_of_reference: str) -> bool:
    """Tell whether an object lies in a frame of reference; what names none cannot disagree."""
    named = on.frames_of_reference
    return not named or not frame_of_reference or frame_of_reference in named


def grid_of_source(on: DrawnOn, source: Path, *, name: str, what: str) -> Geometry:
    """Return the grid of the series an object was drawn on, or of the only volume there.

    Args:
        on: what the object refers to.
        source: a folder, .zip or file of DICOM.
        name: of the object's file, for messages.
        what: how messages call it.

    Raises:
        GeometryError: DCM-033, the series lies in another frame of reference.
        ReadError: DCM-003 several volumes to choose from, and what `find_series` refuses.
    """
    found = find_series(source)
    known = sorted(on.series_uids & {series.uid for series in found})
    series = choose_series(found, source, series_uid=known[0] if len(known) == 1 else None)
    if not shares_space(on, series.frame_of_reference):
        raise _elsewhere(name, f"series {series.selector}", what)
    return geometry_of(series)


def require_same_space(on: DrawnOn, scan: Path, *, name: str, what: str) -> None:
    """Refuse an object that lies in no frame of reference of a DICOM scan.

    The files of the scan are read only until one agrees; a scan whose files name no frame of
    reference cannot disagree.

    Args:
        on: what the object refers to.
        scan: a folder, .zip or file of DICOM images.
        name: of the object's file, for messages.
        what: how messages call it.

    Raises:
        GeometryError: DCM-033.
    """
    known = False
    for file in find_files(scan) if on.frames_of_reference else ():
        if not has_preamble(file.head()):
            continue
        header = _space_of(file)
        if "Rows" not in header or text(header, "SOPClassUID") in SEG_CLASSES:
            continue
        if shares_space(on, text(header, "FrameOfReferenceUID")):
            return
        known = True
    if known:
        raise _elsewhere(name, scan.name, what)


def _space_of(file: DicomFile) -> Dataset:
    try:
        with file.open() as stream:
            return dcmread(
                stream,
                stop_before_pixels=True,
                specific_tags=["SOPClassUID", "FrameOfReferenceUID", "Rows"],
            )
    except BROKEN:
        # The reader of the scan says what is wrong with it.
        return Dataset()


def _elsewhere(name: str, other: str, what: str) -> GeometryError:
    return GeometryError(
        f"{name}: lies in another frame of reference than {other}",
        code="DCM-033",
        hint=f"give the series the {what} was drawn on",
    )
