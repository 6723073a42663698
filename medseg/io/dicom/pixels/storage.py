"""How the pixels of one file are stored, as its header says; nothing is decoded here."""

from dataclasses import dataclass, replace

from pydicom import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian

from medseg.core.errors import ReadError
from medseg.io.dicom.headers.attributes import number, text, whole
from medseg.io.dicom.headers.scan import Header, PixelBytes
from medseg.io.dicom.headers.sources import DicomFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Slices tiled into one picture, row by row: so many, on a grid of `side` x `side`."""

    side: int
    num_slices: int


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
        tiles: how frames lie in the picture of a mosaic, whose `rows` and `columns` are those of a
            tile; None where frames are what the file says.
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
    tiles: Tiles | None = None

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


def tiled(storage: Storage, tiles: Tiles) -> Storage:
    """Return how the tiles of a picture are stored."""
    return replace(
        storage,
        rows=storage.rows // tiles.side,
        columns=storage.columns // tiles.side,
        num_frames=tiles.num_slices,
        tiles=tiles,
    )


def untiled(storage: Storage, tiles: Tiles) -> Storage:
    """Return how the picture of some tiles is stored."""
    return replace(
        storage,
        rows=storage.rows * tiles.side,
        columns=storage.columns * tiles.side,
        num_frames=1,
        tiles=None,
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


def bits_of(storage: Storage) -> int:
    """Return how many bits of a pixel count.

    Raises:
        ReadError: DCM-010, they do not lie at the low end.
    """
    allocated, high = storage.allocated, storage.high
    stored = storage.stored or allocated
    if not 1 <= stored <= allocated <= 32 or (high is not None and high != stored - 1):
        raise ReadError(
            f"{storage.name}: {stored} bits stored in {allocated} with high bit {high}, expected "
            "at most 32 bits at the low end of each word",
            code="DCM-010",
            hint="export the series again; BitsStored and HighBit do not fit BitsAllocated",
        )
    return stored


def padding_of(storage: Storage, *, bits: int) -> tuple[int, int] | None:
    """Return the range of stored values that stand for "no measurement" (PS3.3 C.7.5.1.1.2)."""
    if storage.padding is None:
        return None
    ends = [_as_stored(int(end), bits=bits, signed=storage.signed) for end in storage.padding]
    return min(ends), max(ends)


def _as_stored(value: int, *, bits: int, signed: bool) -> int:
    """Read a value as the pixels are read, whatever sign its own representation claims."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value
