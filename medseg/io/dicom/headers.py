"""The header scan: every DICOM file of a folder or .zip without its pixels, several at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from medseg.core.errors import ReadError
from medseg.core.findings import Finding, finding_of
from medseg.io.dicom.attributes import UNPARSABLE, text, unspoken
from medseg.io.dicom.sources import DicomFile, find_files, has_preamble, looks_bare
from medseg.runtime.hardware import num_cores

_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
# Nothing else of a header is parsed: names, dates of birth and comments never enter memory.
# Patient and study ids are kept so that cases can be grouped by patient (by a keyed hash).
_TAGS = [
    "AcquisitionNumber", "BitsAllocated", "Columns", "DiffusionBValue",
    "DiffusionGradientOrientation", "DimensionIndexSequence", "EchoTime", "FrameOfReferenceUID",
    "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "ImagerPixelSpacing",
    "InversionTime", "Modality", "ModalityLUTSequence", "NumberOfFrames", "PatientID",
    "PerFrameFunctionalGroupsSequence", "PhotometricInterpretation", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "Rows", "SOPClassUID", "SOPInstanceUID",
    "SamplesPerPixel", "SeriesDescription", "SeriesInstanceUID",
    "SharedFunctionalGroupsSequence", "SliceThickness", "SpacingBetweenSlices",
    "StudyInstanceUID", "TemporalPositionIdentifier", "TriggerTime",
]  # fmt: skip
# What pydicom raises on bytes that are not what their header claims.
BROKEN = (*UNPARSABLE, InvalidDicomError, MemoryError)


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """The attributes of one file that decide where it belongs; see the list in this module."""

    file: DicomFile
    dataset: Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What lies under a path: headers, and findings about files that are none.

    Attributes:
        path: what was scanned.
        headers: in the order of file names.
        noticed: files with a finding: DCM-027 ignored, DCM-028 empty (an error: an incomplete
            copy), DCM-029 without a preamble, DCM-039 broken off or senseless (an error).
    """

    path: Path
    headers: tuple[Header, ...]
    noticed: tuple[tuple[DicomFile, Finding], ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings alone."""
        return tuple(finding for _, finding in self.noticed)


def scan_headers(path: Path) -> Scan:
    """Read every DICOM header under a folder, in a .zip, or of one file.

    Raises:
        ReadError: DCM-030, no DICOM file there; DCM-038, an archive that cannot be read.
    """
    files = list(find_files(path))
    with unspoken(), ThreadPoolExecutor(num_cores()) as pool:
        outcomes = list(pool.map(_read_header, files))
    headers = tuple(found for found, _ in outcomes if found is not None)
    noticed = tuple(
        (file, finding)
        for file, (_, finding) in zip(files, outcomes, strict=True)
        if finding is not None
    )
    scan = Scan(path, headers, noticed)
    if not headers:
        raise _nothing_found(path, len(files), scan.findings)
    return scan


def holds_dicom(path: Path, *, recursive: bool) -> bool:
    """Tell whether a path holds any DICOM file, from the first bytes of its files."""
    return any(_is_dicom_head(head) for head in _heads(path, recursive=recursive))


def _heads(path: Path, *, recursive: bool) -> Iterator[bytes]:
    for file in find_files(path, recursive=recursive):
        try:
            yield file.head()
        except ReadError:
            continue


def _is_dicom_head(head: bytes) -> bool:
    return has_preamble(head) or looks_bare(head)


def _read_header(file: DicomFile) -> tuple[Header | None, Finding | None]:
    """Read one header; what is no DICOM image file becomes a finding instead."""
    try:
        head = file.head()
        if not head:
            return None, _empty(file)
        if not _is_dicom_head(head):
            return None, _ignored(file, "it is not DICOM")
        with file.open() as stream:
            dataset = dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS, force=True)
    except ReadError as refusal:
        return None, finding_of(refusal, file.name)
    except BROKEN:
        return None, _broken(file)
    if text(dataset.file_meta, "MediaStorageSOPClassUID") == _DICOMDIR_CLASS:
        return None, _ignored(file, "it is a DICOMDIR, an index of other files")
    if not text(dataset, "SOPClassUID") and "Rows" not in dataset:
        return None, _broken(file)
    return Header(file, dataset), None if has_preamble(head) else _bare(file)


def _empty(file: DicomFile) -> Finding:
    if Path(file.name).suffix.lower() not in ("", ".dcm", ".ima", ".dicom"):
        return _ignored(file, "it is empty")
    return Finding(
        code="DCM-028",
        severity="error",
        subject=file.name,
        message="0 bytes, expected a DICOM file; it looks like an incomplete copy",
        hint="copy the series again, or remove the file if nothing is missing",
    )


def _ignored(file: DicomFile, why: str) -> Finding:
    return Finding(code="DCM-027", severity="note", subject=file.name, message=f"ignored: {why}")


def _bare(file: DicomFile) -> Finding:
    return Finding(
        code="DCM-029",
        severity="warning",
        subject=file.name,
        message="has no DICM preamble; read as bare DICOM elements",
    )


def _broken(file: DicomFile) -> Finding:
    return Finding(
        code="DCM-039",
        severity="error",
        subject=file.name,
        message="begins as DICOM, but its header breaks off or cannot be parsed",
        hint="copy the file again",
    )


def _nothing_found(path: Path, num_files: int, findings: tuple[Finding, ...]) -> ReadError:
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = errors[0]
        return ReadError(
            f"{path}: no readable DICOM file; {first.subject}: {first.message}",
            code=first.code,
            hint=first.hint,
        )
    return ReadError(
        f"{path}: no DICOM files under it ({num_files} other files)",
        code="DCM-030",
        hint="give the folder that holds the slices of the series",
    )
