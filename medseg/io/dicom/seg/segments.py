"""Segments of a DICOM SEG: what they are called, coded and coloured, to and from a label set."""

from collections.abc import Sequence

from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

from medseg import __version__
from medseg.core.errors import LabelError
from medseg.core.labels import CodedTerm, LabelSet
from medseg.io.dicom.class_names import MAX_NAME, ClassFinder
from medseg.io.dicom.headers.attributes import UNPARSABLE, item, items, text, whole

# SNOMED CT codes of DICOM PS3.16 CID 7150 (categories) and CID 7166 (a property of last resort).
_ANATOMY = CodedConcept("123037004", "SCT", "Anatomical Structure")
_ABNORMAL = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
_TISSUE = CodedConcept("85756007", "SCT", "Tissue")
# Terms that name something abnormal rather than a part of the body (PS3.16 CID 7159).
_ABNORMAL_TERMS = frozenset(
    {
        "108369006", "86049000", "14799000", "4147007", "52988006", "27925004", "79654002",
        "6574001", "41146007", "50960005", "367651003", "1240414004", "125489001", "34823008",
    }
)  # fmt: skip
# What a name that another segment has already is told apart by.
_REPEATED = " ({})"


def describe_segments(labels: LabelSet) -> list[SegmentDescription]:
    """Return what a SEG says of each class: number (its index), name, code and colour."""
    algorithm = AlgorithmIdentificationSequence(
        name="medseg", family=codes.cid7162.ArtificialIntelligence, version=__version__
    )
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=label.name[:MAX_NAME].strip(),
            segmented_property_category=category_of(label.code),
            segmented_property_type=concept_of(label.code),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            display_color=CIELabColor.from_rgb(*label.colour),
        )
        for number, label in enumerate(labels.labels, start=1)
    ]


def segments_of(dataset: Dataset, *, name: str) -> LabelSet:
    """Return the segments of a SEG as a label set whose stored values are the segment numbers.

    A segment 0 (the background of a LABELMAP) is left out; names that repeat get their number.

    Raises:
        LabelError: the SEG describes no segment.
    """
    entries: list[dict[str, object]] = []
    taken = {"background"}
    for segment in items(dataset, "SegmentSequence"):
        number = whole(segment, "SegmentNumber", name=name) or 0
        if number == 0:
            continue
        label = text(segment, "SegmentLabel") or f"segment {number}"
        if label.lower() in taken:
            label += _REPEATED.format(number)
        taken.add(label.lower())
        entries.append(
            {
                "name": label,
                "values": number,
                "colour": _colour(segment),
                "code": _code_of(item(segment, "SegmentedPropertyTypeCodeSequence")),
            }
        )
    if not entries:
        raise LabelError(
            f"{name}: describes no segment",
            code="DCM-042",
            hint="export the SEG again from where it was drawn",
        )
    return LabelSet.from_json({"labels": entries})


def match_segments(segments: LabelSet, labels: LabelSet, *, name: str) -> dict[int, int]:
    """Return, for every segment number, the index of the class it belongs to.

    A class is found by its name, else by its code, else by the segment number among its values,
    unless another segment was found for it by name or code. Segments of one name are one class.

    Raises:
        LabelError: LBL-003, a segment that belongs to no class.
    """
    finder = ClassFinder(labels)
    found: dict[int, int] = {}
    for segment in segments.labels:
        number = int(segment.values[0])
        once = segment.name.removesuffix(_REPEATED.format(number))
        found[number] = finder.index(segment.name, None) or finder.index(once, segment.code)
    taken = set(found.values())
    for segment in segments.labels:
        number = int(segment.values[0])
        by_number = _by_value(labels, number)
        if not found[number] and by_number not in taken:
            found[number] = by_number
        if not found[number]:
            raise LabelError(
                f"{name}: segment {number} {segment.name!r} belongs to no class of "
                f"{', '.join(labels.names)}",
                code="LBL-003",
                hint="name the class as the segment is named, or list its number in the values",
            )
    return found


def concept_of(code: CodedTerm | None) -> CodedConcept:
    """Return a class's code for a DICOM file; without one, a generic tissue."""
    return _TISSUE if code is None else CodedConcept(code.value, code.scheme, code.meaning)


def category_of(code: CodedTerm | None) -> CodedConcept:
    """Return what kind of thing a code names: anatomy, something abnormal, or tissue."""
    if code is None:
        return _TISSUE
    return _ABNORMAL if code.value in _ABNORMAL_TERMS else _ANATOMY


def _by_value(labels: LabelSet, number: int) -> int:
    for index, label in enumerate(labels.labels, start=1):
        if label.values == ">0" or number in label.values:
            return index
    return 0


def _code_of(concept: Dataset | None) -> dict[str, str] | None:
    """Return a coded term as JSON; the generic tissue that stands for "no code" becomes None."""
    if concept is None or text(concept, "CodeValue") in ("", _TISSUE.value):
        return None
    return {
        "value": text(concept, "CodeValue"),
        "scheme": text(concept, "CodingSchemeDesignator"),
        "meaning": text(concept, "CodeMeaning"),
    }


def _colour(segment: Dataset) -> Sequence[int] | None:
    try:
        stored = segment.get("RecommendedDisplayCIELabValue")
        return CIELabColor.from_dicom_value(stored).to_rgb(clip=True) if stored else None
    except UNPARSABLE:
        return None
