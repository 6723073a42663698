"""How the pixels of one file are stored, as its header says; nothing is decoded here."""

from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian

from medseg.core.errors import ReadError
from medseg.io.dicom.attributes import number, text, whole
from medseg.io.dicom.headers import Header, PixelBytes
from medseg.io.dicom.sources import DicomFile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Storage:
    """What it takes to find and understand the pixels of one file.

    Attributes:
        file: where they lie.
        syntax: transfer syntax; implicit little endian where the file names none.
        pixels: their bytes; None when the header shows none.
        rows: of every frame.
        columns: of every frame.
        num_frames: in the file.
        allocated: bits that a pixel takes.
        stored: bits of these that count; None where the file does not say.
        high: the highest bit that counts; None where the file does not say.
        signed: stored values are two's complement.
        samples: values a pixel; 3 for colours.
        inverted: the file is MONOCHROME1: the lowest value is the brightest.
        padding: one or two stored values that bound "no measurement"; None when undeclared.
    """

    file: DicomFile
    syntax: UID
    pixels: PixelBytes | None
    rows: int
    columns: int
    num_frames: int
    allocated: int
    stored: int | None
    high: int | None
    signed: bool
    samples: int
    inverted: bool
    padding: tuple[float, float] | None

    @property
    def name(self) -> str:
        """How messages call the file."""
        return self.file.name

    @property
    def frame_bits(self) -> int:
        """Bits of one frame, when it is not compressed."""
        return self.rows * self.columns * self.samples * self.allocated


def storage_of(header: Header) -> Storage:
    """Return how the pixels of a file are stored.

    Raises:
        ReadError: DCM-037 an attribute that is no number, DCM-039 no matrix.
    """
    dataset, name = header.dataset, header.file.name
    columns, rows = matrix_of(dataset, name)
    first = number(dataset, "PixelPaddingValue", name=name)
    last = number(dataset, "PixelPaddingRangeLimit", name=name)
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    return Storage(
        file=header.file,
        syntax=UID(syntax) if syntax else ImplicitVRLittleEndian,
        pixels=header.pixels,
        rows=rows,
        columns=columns,
        num_frames=whole(dataset, "NumberOfFrames", name=name) or 1,
        allocated=whole(dataset, "BitsAllocated", name=name) or 0,
        stored=whole(dataset, "BitsStored", name=name),
        high=whole(dataset, "HighBit", name=name),
        signed=bool(whole(dataset, "PixelRepresentation", name=name)),
        samples=whole(dataset, "SamplesPerPixel", name=name) or 1,
        inverted=text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
        padding=None if first is None else (first, first if last is None else last),
    )


def matrix_of(dataset: Dataset, name: str) -> tuple[int, int]:
    """Return the number of pixels along i and j.

    Raises:
        ReadError: DCM-037, DCM-039: Rows or Columns is no number, missing or not positive.
    """
    rows, columns = whole(dataset, "Rows", name=name), whole(dataset, "Columns", name=name)
    if not rows or not columns or min(rows, columns) < 1:
        raise ReadError(
            f"{name}: Rows {rows} and Columns {columns}, expected two positive numbers",
            code="DCM-039",
        )
    return columns, rows
