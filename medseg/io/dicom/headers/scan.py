"""The header scan: every DICOM file of a folder or .zip without its pixels, several at a time."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medseg.core.errors import ReadError
from medseg.core.findings import Finding, finding_of
from medseg.io.dicom.headers.attributes import UNPARSABLE, text, unspoken
from medseg.io.dicom.headers.common import parse_common, wanted
from medseg.io.dicom.headers.sources import DicomFile, find_files, has_preamble, looks_bare
from medseg.runtime.hardware import num_cores

_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
# Nothing else of a header is parsed: names, dates of birth and comments never enter memory.
# Patient and study ids are kept so that cases can be grouped by patient (by a keyed hash).
_KEYWORDS = [
    "AcquisitionNumber", "BitsAllocated", "BitsStored", "Columns", "DiffusionBValue",
    "DiffusionGradientOrientation", "DimensionIndexSequence", "EchoNumbers", "EchoTime",
    "FrameOfReferenceUID", "FrameReferenceTime",
    "HighBit", "ImageOrientationPatient", "ImagePositionPatient", "ImageType",
    "ImagerPixelSpacing", "InversionTime", "Modality", "ModalityLUTSequence", "NumberOfFrames",
    "PatientID", "PerFrameFunctionalGroupsSequence", "PhotometricInterpretation",
    "PixelPaddingRangeLimit", "PixelPaddingValue", "PixelRepresentation", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "Rows", "SOPClassUID", "SOPInstanceUID",
    "SamplesPerPixel", "SeriesDescription", "SeriesInstanceUID",
    "SharedFunctionalGroupsSequence", "SliceThickness", "SpacingBetweenSlices",
    "StudyInstanceUID", "TemporalPositionIdentifier", "TriggerTime",
]  # fmt: skip
# Looked up once, not once a file.
_TAGS = [Tag(keyword) for keyword in _KEYWORDS]
_WANTED = wanted(_TAGS)
# The part of a file that nearly always holds the whole header.
_HEADER_BYTES = 2**16
_PIXEL_GROUP, _PIXEL_DATA = 0x7FE0, 0x0010
_UNDEFINED_LENGTH = b"\xff\xff\xff\xff"
# Representations whose length takes four bytes, after two empty ones (PS3.5 7.1.2).
_LONG_FORMS = (b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV")
# What pydicom raises on bytes that are not what their header claims.
BROKEN = (*UNPARSABLE, InvalidDicomError, MemoryError)


@dataclass(frozen=True, slots=True)
class PixelBytes:
    """Where the value of the pixel data lies in its file.

    Attributes:
        first: byte at which it begins.
        count: bytes of it that are there.
        fragments: it is a sequence of fragments, as compressed pixels are, and not plain numbers.
    """

    first: int
    count: int
    fragments: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """The attributes of one file that decide where it belongs; see the list in this module.

    Attributes:
        file: where it was read.
        dataset: the attributes.
        pixels: where the pixel data lie; None when there are none, or the file is deflated.
    """

    file: DicomFile
    dataset: Dataset
    pixels: PixelBytes | None = None


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


def read_header(file: DicomFile) -> Header:
    """Read one header, and find where its pixels begin.

    Raises:
        ReadError: DCM-038 the file cannot be opened, DCM-039 it cannot be parsed.
    """
    try:
        with file.open(first_bytes=_HEADER_BYTES) as stream:
            header = _parsed(file, stream)
            whole = len(stream.getbuffer()) if isinstance(stream, io.BytesIO) else None
        if header.pixels is None and whole is not None and whole < file.num_bytes():
            # A longer header than most: its end lies beyond what was unpacked.
            with file.open() as stream:
                header = _parsed(file, stream)
    except BROKEN as fault:
        raise ReadError(
            f"{file.name}: begins as DICOM, but its header breaks off or cannot be parsed",
            code="DCM-039",
            hint="copy the file again",
        ) from fault
    return header


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
        head = file.head(_HEADER_BYTES)
        if not head:
            return None, _empty(file)
        if not _is_dicom_head(head):
            return None, _ignored(file, "it is not DICOM")
        header = _common(file, head) or read_header(file)
    except ReadError as refusal:
        finding = finding_of(refusal, file.name)
        return None, replace(finding, message=refusal.message.removeprefix(f"{file.name}: "))
    dataset = header.dataset
    if text(dataset.file_meta, "MediaStorageSOPClassUID") == _DICOMDIR_CLASS:
        return None, _ignored(file, "it is a DICOMDIR, an index of other files")
    if not text(dataset, "SOPClassUID") and "Rows" not in dataset:
        return None, _broken(file)
    return header, None if has_preamble(head) else _bare(file)


def _common(file: DicomFile, start: bytes) -> Header | None:
    try:
        found = parse_common(start, _WANTED)
    except BROKEN:
        # A value that makes no sense: whatever it is, the parser for all files has the last word.
        return None
    if found is None:
        return None
    dataset, at = found
    return Header(file, dataset, _pixel_bytes(file, at, start[at : at + 12], dataset))


def _parsed(file: DicomFile, stream: IO[bytes]) -> Header:
    dataset = dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS, force=True)
    if text(dataset.file_meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return Header(file, dataset)
    return Header(file, dataset, _pixel_bytes(file, stream.tell(), stream.read(12), dataset))


def _pixel_bytes(file: DicomFile, start: int, head: bytes, dataset: Dataset) -> PixelBytes | None:
    """Understand the head of the pixel data, before which the parser has stopped (PS3.5 7.1)."""
    implicit, little = dataset.original_encoding
    order: Literal["little", "big"] = "little" if little else "big"
    tag = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)
    if len(head) < 8 or tag != (_PIXEL_GROUP, _PIXEL_DATA):
        return None
    if implicit:
        size, length = 8, head[4:8]
    elif head[4:6] in _LONG_FORMS:
        size, length = 12, head[8:12]
    else:
        size, length = 8, head[6:8]
    there = file.num_bytes() - start - size
    count = max(0, min(int.from_bytes(length, order), there))
    return PixelBytes(start + size, count, fragments=length == _UNDEFINED_LENGTH)


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
        message="begins as DICOM, but holds neither a class of object nor an image",
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
