"""Regions of an RTSTRUCT: their names, codes and colours, and their contours as points in space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medseg.core.errors import LabelError, ReadError
from medseg.core.findings import Finding, Severity
from medseg.core.labels import CodedTerm, LabelSet
from medseg.io.dicom.class_names import ClassFinder
from medseg.io.dicom.headers.attributes import UNPARSABLE, item, items, text, words

# Contours that bound an area (PS3.3 C.8.8.6.1); points and open lines bound none.
_CLOSED = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Roi:
    """One region of interest.

    Attributes:
        number: ROINumber, as the file writes it.
        name: ROIName, without outer blanks.
        colour: red, green, blue; None where the file gives none.
        code: what a coding scheme calls it; None where the file does not say.
        contours: items of its ContourSequence; none where the region is empty.
    """

    number: str
    name: str
    colour: tuple[int, int, int] | None
    code: CodedTerm | None
    contours: Sequence[Dataset]

    @property
    def closed(self) -> list[Dataset]:
        """Contours that bound an area."""
        return [one for one in self.contours if text(one, "ContourGeometricType") in _CLOSED]

    @property
    def kinds_without_area(self) -> list[str]:
        """Geometric types of the other contours, sorted."""
        kinds = {text(one, "ContourGeometricType") or "no type" for one in self.contours}
        return sorted(kinds - _CLOSED)


def rois_of(dataset: Dataset, *, name: str) -> list[Roi]:
    """Return the regions of a structure set, in the order of the file.

    Raises:
        LabelError: DCM-042, it describes none, or several of one number.
    """
    drawn = {text(one, "ReferencedROINumber"): one for one in items(dataset, "ROIContourSequence")}
    seen = {
        text(one, "ReferencedROINumber"): one for one in items(dataset, "RTROIObservationsSequence")
    }
    rois: list[Roi] = []
    for described in items(dataset, "StructureSetROISequence"):
        number = text(described, "ROINumber")
        if any(roi.number == number for roi in rois):
            raise LabelError(
                f"{name}: several regions have the number {number}, so nobody can tell whose the "
                "contours are",
                code="DCM-042",
                hint="export the structure set again, with a ROINumber for each region",
            )
        contours = drawn.get(number, Dataset())
        rois.append(
            Roi(
                number=number,
                name=text(described, "ROIName") or f"region {number}",
                colour=_colour(contours),
                code=_code(seen.get(number, Dataset())),
                contours=items(contours, "ContourSequence"),
            )
        )
    if not rois:
        raise LabelError(
            f"{name}: describes no region of interest",
            code="DCM-042",
            hint="export the structure set again, with its regions",
        )
    return rois


def points_of(contour: Dataset, *, name: str) -> NDArray[np.float64]:
    """Return the points of a contour in the patient, RAS mm, N x 3.

    Raises:
        ReadError: DCM-037, its data are no whole number of finite points.
    """
    try:
        numbers = _numbers(contour)
    except UNPARSABLE:
        numbers = np.array([np.nan])
    if len(numbers) % 3 or not np.isfinite(numbers).all():
        raise ReadError(
            f"{name}: ContourData is not a list of finite x, y, z",
            code="DCM-037",
            hint="export the structure set again from where it was drawn",
        )
    return np.asarray(numbers.reshape(-1, 3) * _LPS_TO_RAS)


def label_set_of(rois: Sequence[Roi]) -> LabelSet:
    """Return the regions as a label set whose stored values count up from 1.

    Names that repeat, in whatever case, are one class: its regions are united.
    """
    first: dict[str, Roi] = {}
    for roi in rois:
        first.setdefault(roi.name.lower(), roi)
    entries: list[dict[str, Any]] = [
        {
            "name": f"{roi.name} (region)" if roi.name == "background" else roi.name,
            "values": value,
            "colour": roi.colour,
            "code": roi.code
            and {"value": roi.code.value, "scheme": roi.code.scheme, "meaning": roi.code.meaning},
        }
        for value, roi in enumerate(first.values(), start=1)
    ]
    return LabelSet.from_json({"labels": entries})


def match_rois(
    rois: Sequence[Roi], labels: LabelSet, *, name: str
) -> tuple[dict[int, list[Roi]], list[Finding]]:
    """Return the regions of every class, by its index, and what was noticed.

    A class is found by its name, in any case, else by its code. Regions of no class (a couch, the
    body's outline) are left out with a finding. Numbers mean nothing here: planning systems number
    regions as they come. Where both sides have a single one with anything drawn, these two belong
    together, whatever they are called, and a finding says so.

    Raises:
        LabelError: LBL-003, no region belongs to any class.
    """
    finder = ClassFinder(labels)
    found: dict[int, list[Roi]] = {}
    left: list[Roi] = []
    for roi in rois:
        index = finder.index(roi.name, roi.code)
        if not index:
            left.append(roi)
        else:
            found.setdefault(index, []).append(roi)
    if found:
        return found, _unmatched(left, found, labels, name)
    drawn = [roi for roi in rois if roi.closed]
    if len(labels) == 1 and len(drawn) == 1:
        message = f"its only region {drawn[0].name!r} is read as {labels.names[0]!r}"
        return {1: drawn}, [_finding("DCM-074", "note", name, message)]
    raise LabelError(
        f"{name}: regions {', '.join(repr(roi.name) for roi in rois)} belong to no class of "
        f"{', '.join(labels.names)}",
        code="LBL-003",
        hint="name the classes as the regions are named",
    )


def _unmatched(
    left: Sequence[Roi], found: dict[int, list[Roi]], labels: LabelSet, name: str
) -> list[Finding]:
    findings = []
    if left:
        listed = ", ".join(repr(roi.name) for roi in left)
        message = f"regions of no class are left out: {listed}"
        findings.append(_finding("DCM-074", "note", name, message))
    missing = [label for index, label in enumerate(labels.names, start=1) if index not in found]
    if missing:
        message = f"has no region for {', '.join(missing)}, which is read as empty"
        hint = "list the class as not annotated if nobody looked for it"
        findings.append(_finding("DCM-074", "warning", name, message, hint))
    return findings


def _finding(code: str, severity: Severity, name: str, message: str, hint: str = "") -> Finding:
    return Finding(code=code, severity=severity, subject=name, message=message, hint=hint)


def _numbers(contour: Dataset) -> NDArray[np.float64]:
    """Return the numbers of ContourData; bytes not yet parsed are parsed all at once."""
    element = contour.get_item("ContourData")
    stored = None if element is None else element.value
    if isinstance(stored, bytes):
        stored = [one for one in stored.strip(b" \0").split(b"\\") if one.strip()]
    if stored is None or len(stored) == 0:
        return np.empty(0)
    return np.array([float(one) for one in stored], dtype=np.float64)


def _colour(contours: Dataset) -> tuple[int, int, int] | None:
    try:
        red, green, blue = (int(part) for part in words(contours, "ROIDisplayColor"))
    except ValueError:
        return None
    return (red, green, blue) if all(0 <= part <= 255 for part in (red, green, blue)) else None


def _code(observation: Dataset) -> CodedTerm | None:
    concept = item(observation, "RTROIIdentificationCodeSequence")
    if concept is None or not text(concept, "CodeValue"):
        return None
    return CodedTerm(
        value=text(concept, "CodeValue"),
        scheme=text(concept, "CodingSchemeDesignator"),
        meaning=text(concept, "CodeMeaning"),
    )
