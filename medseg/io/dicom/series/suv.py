"""Standardised uptake: PET activity divided by the injected dose per gram of body weight.

Source of the formula: QIBA FDG-PET/CT profile, "SUV body weight, vendor-neutral pseudo-code"
(2012), for images in Bq/ml that are corrected for decay.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydicom import Dataset, dcmread

from medseg.core.errors import ReadError
from medseg.io.dicom.headers.attributes import item, number, text, unspoken
from medseg.io.dicom.headers.scan import BROKEN
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.series.frames import Frame

_TAGS = [
    "AcquisitionDate", "AcquisitionTime", "DecayCorrection", "PatientWeight",
    "RadiopharmaceuticalInformationSequence", "SeriesDate", "SeriesTime", "Units",
]  # fmt: skip
# Beyond these a header is in another unit (grams; MBq, mCi); a mouse is given about 5e6 Bq.
_HEAVIEST_KG = 1000.0
_LEAST_DOSE_BQ = 1e5


def suv_factor(frames: Sequence[Frame], *, name: str) -> float:
    """Return what Bq/ml is multiplied by to become SUV by body weight (g/ml).

    Args:
        frames: of one PET series.
        name: the series, for messages.

    Raises:
        ReadError: DCM-040, the series is not in decay-corrected Bq/ml, or lacks weight, dose,
            half-life or a time, or has weight or dose in another unit than kg and Bq.
    """
    with unspoken():
        headers = [_header(file) for file in dict.fromkeys(frame.file for frame in frames)]
        first = headers[0]
        units = text(first, "Units")
        if units == "GML":
            return 1.0
        if units != "BQML":
            raise _refusal(name, f"values are in {units or 'an undeclared unit'}, expected BQML")
        weight_kg = _required(first, "PatientWeight", name)
        tracer = item(first, "RadiopharmaceuticalInformationSequence") or Dataset()
        dose_bq = _required(tracer, "RadionuclideTotalDose", name)
        _require_units(weight_kg, dose_bq, name)
        weight_g = 1000 * weight_kg
        half_life_s = _required(tracer, "RadionuclideHalfLife", name)
        correction = text(first, "DecayCorrection")
        if correction == "ADMIN":
            return weight_g / dose_bq
        if correction != "START":
            raise _refusal(name, f"DecayCorrection is {correction or 'absent'}, expected START")
        waited_s = (_scan_start(headers, name) - _injection(first, tracer, name)).total_seconds()
        if waited_s < 0:
            raise _refusal(name, "the scan begins before the injection")
        return float(weight_g / (dose_bq * 2 ** (-waited_s / half_life_s)))


def _header(file: DicomFile) -> Dataset:
    try:
        with file.open() as stream:
            return dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS, force=True)
    except BROKEN as fault:
        raise ReadError(f"{file.name}: its header cannot be parsed", code="DCM-039") from fault


def _scan_start(headers: Sequence[Dataset], name: str) -> datetime:
    """The series' time, unless it was stamped after the scan; then the earliest acquisition."""
    series = _moment(headers[0], "SeriesDate", "SeriesTime", name)
    acquired = [_moment(entry, "AcquisitionDate", "AcquisitionTime", name) for entry in headers]
    return min(series, *acquired)


def _injection(first: Dataset, tracer: Dataset, name: str) -> datetime:
    if text(tracer, "RadiopharmaceuticalStartDateTime"):
        stamp = text(tracer, "RadiopharmaceuticalStartDateTime")
        return _parsed(stamp[:8], stamp[8:], "RadiopharmaceuticalStartDateTime", name)
    clock = text(tracer, "RadiopharmaceuticalStartTime")
    scanned = _moment(first, "SeriesDate", "SeriesTime", name)
    injected = _parsed(text(first, "SeriesDate"), clock, "RadiopharmaceuticalStartTime", name)
    # A clock time alone names no day: an injection after the scan was the evening before.
    return injected - timedelta(days=1) if injected > scanned else injected


def _moment(header: Dataset, day: str, clock: str, name: str) -> datetime:
    return _parsed(text(header, day), text(header, clock), clock, name)


def _parsed(day: str, clock: str, keyword: str, name: str) -> datetime:
    # Offsets from UTC are the same for all times of one series and cancel out.
    digits, _, fraction = clock.split("+")[0].split("-")[0].partition(".")
    # Minutes and seconds may be left out (PS3.5 6.2); strptime would read 1030 as 10:03:00.
    whole = digits.ljust(6, "0") if len(digits) in (2, 4, 6) else ""
    try:
        return datetime.strptime(f"{day}{whole}.{fraction or 0}", "%Y%m%d%H%M%S.%f")
    except ValueError as fault:
        raise _refusal(name, f"{keyword} is missing or no time of day") from fault


def _required(dataset: Dataset, keyword: str, name: str) -> float:
    found = number(dataset, keyword, name=name)
    if found is None or found <= 0:
        raise _refusal(name, f"{keyword} is missing or not positive")
    return found


def _require_units(weight_kg: float, dose_bq: float, name: str) -> None:
    if weight_kg > _HEAVIEST_KG:
        raise _refusal(name, f"PatientWeight is {weight_kg:g}, expected kilograms")
    if dose_bq < _LEAST_DOSE_BQ:
        raise _refusal(name, f"RadionuclideTotalDose is {dose_bq:g}, expected becquerels")


def _refusal(name: str, why: str) -> ReadError:
    return ReadError(
        f"{name}: no SUV: {why}",
        code="DCM-040",
        hint="read the series without SUV, or export it with its dose and times",
    )
