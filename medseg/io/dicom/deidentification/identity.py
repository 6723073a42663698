"""Ids of DICOM cases and patients that name nobody: keyed hashes of what the headers say."""

from medseg.io.dicom.series.grouping import Series
from medseg.privacy import keyed_id


def case_id_of(series: Series, *, key: bytes) -> str:
    """Return the id of a volume: the same for the same patient, series and part."""
    return keyed_id("case", series.patient_id, series.uid, series.part, key=key)


def patient_id_of(series: Series, *, key: bytes) -> str:
    """Return the id of a series' patient; empty where the headers name none."""
    return keyed_id("patient", series.patient_id, key=key) if series.patient_id else ""
