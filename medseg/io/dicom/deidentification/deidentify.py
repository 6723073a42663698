"""A DICOM image without its patient: PS3.15 Basic Application Level Confidentiality Profile.

By allow list (`allowed`): what is not listed is left out, at every depth. The pixels themselves
are not looked at: a face, or text burned into them, stays where it is.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from medseg import __version__
from medseg.core.errors import ReadError
from medseg.io.dicom.deidentification import allowed
from medseg.io.dicom.deidentification.moments import moved, moved_datetime
from medseg.io.dicom.headers.attributes import UNPARSABLE, text, unspoken
from medseg.privacy import keyed_id, keyed_shift_s, keyed_uid

Treatment = Literal["dropped", "emptied", "replaced"]
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}")
_UID = re.compile(r"[0-9.]{1,64}")
_STANDARD_ROOT = "1.2.840.10008."
# Values of a code string hold their place by position; an odd one is replaced, not left out.
_POSITIONAL = frozenset({"ImageType", "FrameType"})
# The profile and the options of it that were followed (PS3.16 CID 7050).
_PROFILE = ("113100", "Basic Application Confidentiality Profile")
_CHARACTERISTICS = ("113108", "Retain Patient Characteristics Option")
_MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pseudonyms:
    """What stands in for who and when.

    Attributes:
        patient_id: written as PatientID and PatientName.
        key: from which UIDs and the shift of dates are drawn (`privacy.project_key`).
        keep_intervals: move all dates of a patient by the same time, so that the time between
            studies stays (option 113107); else every study is moved by a time of its own.
    """

    patient_id: str
    key: bytes = field(repr=False)
    keep_intervals: bool = False

    def shift_s(self, dataset: Dataset) -> int:
        """Return by how many seconds the dates of an image are moved."""
        if self.keep_intervals:
            return keyed_shift_s("patient", self.patient_id, key=self.key)
        return keyed_shift_s("study", text(dataset, "StudyInstanceUID"), key=self.key)


@dataclass(frozen=True, slots=True, eq=False)
class Deidentified:
    """An image without its patient, and what became of its attributes.

    Attributes:
        dataset: as `deidentify` makes it, without file meta information and pixels.
        treated: what was not kept as it was: tag, keyword ("private" or "unknown" where the
            standard has none) and treatment; never a value.
    """

    dataset: Dataset
    treated: tuple[tuple[str, str, Treatment], ...]


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms) -> Deidentified:
    """Make a new dataset of what an image may keep; the given one stays as it is.

    Args:
        dataset: an image; its pixels are passed over.
        pseudonyms: what takes the place of ids, UIDs and dates.
    """
    with unspoken():
        cleaning = _Cleaning(pseudonyms, pseudonyms.shift_s(dataset))
        clean = cleaning.of(dataset)
        cleaning.complete(clean)
    return Deidentified(clean, tuple(dict.fromkeys(cleaning.treated)))


def refuse_burned_in(dataset: Dataset, *, name: str) -> None:
    """Refuse an image that may show its patient's name in its pixels.

    Args:
        dataset: of the image.
        name: of the file, for the error.

    Raises:
        ReadError: PRV-003 it says so, or is of a kind that often does and says nothing.
    """
    declared = text(dataset, "BurnedInAnnotation").upper()
    captured = text(dataset, "SOPClassUID").startswith(allowed.SECONDARY_CAPTURES)
    modality = text(dataset, "Modality")
    suspect = captured or modality in allowed.BURNED_IN_MODALITIES
    if declared == "NO" or (not declared and not suspect):
        return
    kind = "a secondary capture" if captured else f"of modality {modality}"
    why = f"BurnedInAnnotation is {declared}" if declared == "YES" else f"it is {kind}"
    raise ReadError(
        f"{name}: may show who the patient is in its pixels: {why}, expected BurnedInAnnotation NO",
        code="PRV-003",
        hint="look at the images; burned_in=true copies them as they are",
    )


class _Cleaning:
    """Goes through one image at every depth, and notes what it does."""

    def __init__(self, pseudonyms: Pseudonyms, shift_s: int) -> None:
        self.pseudonyms, self.shift_s = pseudonyms, shift_s
        self.treated: list[tuple[str, str, Treatment]] = []

    def of(self, dataset: Dataset) -> Dataset:
        """Return what a dataset, or an item of a sequence, may keep."""
        clean = Dataset()
        # Elements after the pixels (padding, signatures) are dropped with the rest.
        for tag in sorted(dataset.keys()):
            keyword = "" if tag.is_private else keyword_for_tag(tag)
            if keyword == "PixelData":
                continue
            element = self._element(dataset, tag, keyword)
            if element is not None:
                clean.add(element)
        return clean

    def complete(self, clean: Dataset) -> None:
        """Add what every image needs, and what says how it was made."""
        for keyword in allowed.ALWAYS_EMPTY:
            setattr(clean, keyword, "")
        for keyword in ("StudyDate", "StudyTime"):
            if keyword not in clean:
                setattr(clean, keyword, "")
        if "SharedFunctionalGroupsSequence" in clean:
            clean.Manufacturer = allowed.DUMMY
        clean.SpecificCharacterSet = "ISO_IR 192"
        clean.PatientID = clean.PatientName = self.pseudonyms.patient_id
        clean.PatientIdentityRemoved = "YES"
        keeps = self.pseudonyms.keep_intervals
        clean.LongitudinalTemporalInformationModified = "MODIFIED" if keeps else "REMOVED"
        clean.DeidentificationMethod = f"medseg {__version__}, by allow list"
        codes = [_PROFILE]
        codes += [_CHARACTERISTICS] if "PatientWeight" in clean else []
        codes += [_MODIFIED_DATES] if keeps else []
        clean.DeidentificationMethodCodeSequence = [_code(*code) for code in codes]

    def _element(self, dataset: Dataset, tag: BaseTag, keyword: str) -> DataElement | None:
        treatment, value = self._value(dataset, tag, keyword)
        if treatment is not None:
            name = keyword or ("private" if tag.is_private else "unknown")
            self.treated.append((f"({tag.group:04X},{tag.element:04X})", name, treatment))
        if treatment == "dropped":
            return None
        return DataElement(tag, _vr_of(dataset, tag), value)

    def _value(self, dataset: Dataset, tag: BaseTag, keyword: str) -> tuple[Treatment | None, Any]:
        """Return what became of an attribute, and its new value."""
        if keyword in allowed.EMPTIED or keyword in allowed.ALWAYS_EMPTY:
            return "emptied", [] if dictionary_VR(tag) == VR.SQ else ""
        if keyword in allowed.DUMMIES:
            return "replaced", allowed.DUMMY
        if keyword in ("PatientID", "PatientName"):
            return "replaced", self.pseudonyms.patient_id
        if keyword == "PatientWeight" and "RadiopharmaceuticalInformationSequence" not in dataset:
            # Uptake is weighed by it; nothing else needs it.
            return "dropped", None
        try:
            found = _plain(dataset[tag]) if _is_listed(keyword) else None
        except UNPARSABLE:
            found = None
        if found is None:
            return "dropped", None
        if keyword in allowed.SEQUENCES:
            return None, [self.of(item) for item in found]
        return self._scalar(dataset, keyword, found)

    def _scalar(
        self, dataset: Dataset, keyword: str, found: Sequence[Any]
    ) -> tuple[Treatment | None, Any]:
        """Treat the values of an attribute that is no sequence."""
        texts = [str(entry).strip() for entry in found]
        if keyword in allowed.MOMENTS:
            stamp = self._moment(dataset, keyword, texts[0] if texts else "")
            return ("replaced" if stamp else "emptied"), stamp
        if keyword in allowed.UIDS:
            key = self.pseudonyms.key
            return "replaced", [keyed_uid(uid, key=key) for uid in texts if _UID.fullmatch(uid)]
        if keyword in allowed.HASHED:
            return "replaced", [keyed_id("text", word, key=self.pseudonyms.key) for word in texts]
        if keyword in allowed.TEXTS:
            known = allowed.TEXTS[keyword]
            return (None, texts) if set(texts) <= set(known) else ("replaced", known[-1])
        if keyword in _POSITIONAL:
            words = [word if _CODE.fullmatch(word) else "OTHER" for word in texts]
            return (None if words == texts else "replaced"), words
        return None, list(found) or None

    def _moment(self, dataset: Dataset, keyword: str, stamp: str) -> str:
        if keyword.endswith("DateTime"):
            return moved_datetime(stamp, self.shift_s)
        if keyword.endswith("Date"):
            return moved(stamp, text(dataset, f"{keyword[:-4]}Time"), self.shift_s)[0]
        return moved(text(dataset, f"{keyword[:-4]}Date"), stamp, self.shift_s)[1]


def _is_listed(keyword: str) -> bool:
    return any(
        keyword in some
        for some in (
            allowed.KEPT,
            allowed.TEXTS,
            allowed.HASHED,
            allowed.CLASS_UIDS,
            allowed.UIDS,
            allowed.MOMENTS,
            allowed.SEQUENCES,
        )
    )


def _plain(element: DataElement) -> list[Any] | None:
    """Return the values of a listed element; None unless they are what the standard says."""
    representation = element.VR
    if representation not in dictionary_VR(element.tag).split(" or "):
        return None
    if element.value is None or element.value == "":
        return []
    many = element.VM != 1 or representation == VR.SQ
    values: list[Any] = list(element.value) if many else [element.value]
    return values if all(_fits(value, element) for value in values) else None


def _fits(value: Any, element: DataElement) -> bool:
    """Tell whether a value is of its kind, so that no text hides in a number or a code."""
    match element.VR:
        case VR.CS:
            return element.keyword in _POSITIONAL or bool(_CODE.fullmatch(str(value)))
        case VR.DS | VR.IS | VR.FD | VR.FL:
            return math.isfinite(float(value))
        case VR.US | VR.SS | VR.UL | VR.SL | VR.AT:
            return isinstance(value, int)
        case VR.UI:
            standard = str(value).startswith(_STANDARD_ROOT)
            return bool(_UID.fullmatch(str(value))) and (
                standard or element.keyword not in allowed.CLASS_UIDS
            )
        case VR.SQ:
            return isinstance(value, Dataset)
        case _:
            # Dates and the few texts are replaced, or compared with a list.
            return isinstance(value, str)


def _vr_of(dataset: Dataset, tag: BaseTag) -> str:
    """Return the representation to write: the file's own where the standard leaves a choice."""
    known = dictionary_VR(tag)
    return str(dataset[tag].VR) if " or " in known else known


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
