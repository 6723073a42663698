"""Stored values of frames: read from their place or decoded, cut to the bits that count.

Pixels that are not compressed are numbers in a file, and are read as such. Compressed ones pass
through native decoders, in a process of their own (`runtime.sandbox`).
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSTransferSyntaxes

from medseg.core.errors import ReadError
from medseg.io.dicom.headers.scan import BROKEN, read_header
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.pixels.decoders import require_decoder
from medseg.io.dicom.pixels.decoding import dataset_with_pixels, decode
from medseg.io.dicom.pixels.storage import Storage, bits_of, padding_of, storage_of, untiled
from medseg.runtime.sandbox import SandboxError, call

Pixels = NDArray[np.integer[Any]]

# What pydicom may raise on pixels that are damaged.
_UNDECODABLE = (*BROKEN, RuntimeError, ArithmeticError)
_tickets = count()
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_WORDS = (8, 16, 32)
# Processor time that a compressed frame may take, beyond what any may: far above any decoder's.
_BYTES_A_SECOND = 4e6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PixelFile:
    """The stored values of one file, a frame at a time.

    Attributes:
        storage: what its header says about them.
        limits: lowest and highest value that the stored bits can express.
        padding: lowest and highest stored value that mark "no measurement"; None when undeclared.
        read: returns a frame by its number from 0.
    """

    storage: Storage
    limits: tuple[int, int]
    padding: tuple[int, int] | None
    read: Callable[[int], Pixels]

    @property
    def name(self) -> str:
        """How messages call the file."""
        return self.storage.name

    def frame(self, index: int) -> Pixels:
        """Return one frame, counted from 0: (rows, columns), before any rescaling.

        Raises:
            ReadError: DCM-014 a stream that cannot be decoded, DCM-015 a file that ends early,
                DCM-044 a decoder that crashed or took too much time or memory.
        """
        pixels = self.read(index)
        expected = self.storage.rows, self.storage.columns
        if pixels.shape != expected:
            raise ReadError(
                f"{self.name} frame {index + 1}: decodes to {pixels.shape} pixels, expected "
                f"{expected}",
                code="DCM-014",
                hint="the header does not belong to these pixels",
            )
        return pixels


def open_pixels(file: DicomFile) -> PixelFile:
    """Look up how a file's pixels are stored, ready to be read.

    Raises:
        ReadError: DCM-037 to DCM-039 a header that makes no sense, and as `pixels_in`.
    """
    return pixels_in(storage_of(read_header(file)))


def pixels_in(storage: Storage) -> PixelFile:
    """Make the pixels of a file ready to be read.

    Raises:
        ReadError: DCM-010 bits that do not lie at the low end, DCM-013 a transfer syntax that
            cannot be decoded here, DCM-015 no or too few bytes of pixels.
    """
    bits = bits_of(storage)
    require_decoder(storage, bits)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if storage.signed else (0, (1 << bits) - 1)
    return PixelFile(
        storage=storage,
        limits=(low, high),
        padding=padding_of(storage, bits=bits),
        read=_way_to(storage, bits),
    )


def _way_to(storage: Storage, bits: int) -> Callable[[int], Pixels]:
    """Choose how frames are read."""
    if storage.tiles is not None:
        picture = pixels_in(untiled(storage, storage.tiles)).frame
        return partial(_cut_out, storage, storage.tiles.side, lru_cache(maxsize=1)(picture))
    if storage.syntax.is_encapsulated:
        _require_bytes(storage, found=storage.pixels.count if storage.pixels else 0, expected=1)
        return partial(_decoded, storage, next(_tickets))
    expected = -(-storage.frame_bits * storage.num_frames // 8)
    plain = storage.syntax in _NATIVE and storage.samples == 1
    if not plain or storage.allocated not in (1, *_WORDS):
        # Big-endian, deflated or packed in an odd way: rare, and left to pydicom, in this process:
        # nothing native but zlib is at work.
        return partial(_parsed, storage, _loaded(storage, expected))
    _require_bytes(storage, found=storage.pixels.count if storage.pixels else 0, expected=expected)
    _require_plain(storage, expected)
    content = None
    if storage.file.member is not None:
        with storage.file.open() as stream:
            content = stream.read()
    if storage.allocated == 1:
        return partial(_unpacked, storage, content)
    return partial(_plain, storage, content, bits)


def _cut_out(storage: Storage, side: int, picture: Callable[[int], Pixels], index: int) -> Pixels:
    """Return one tile of the only picture of a file."""
    row, column = divmod(index, side)
    top, left = row * storage.rows, column * storage.columns
    return picture(0)[top : top + storage.rows, left : left + storage.columns]


def _plain(storage: Storage, content: bytes | None, bits: int, index: int) -> Pixels:
    """Read one frame of words."""
    word = storage.allocated // 8
    kind = np.dtype(f"<{'i' if storage.signed else 'u'}{word}")
    count = storage.rows * storage.columns
    words = _at(storage, content, kind, first=index * count * word, count=count)
    spare = storage.allocated - bits
    if spare:
        # Up and down again: what lies above the stored bits goes, and the sign takes its place.
        words = np.left_shift(words, spare)
        np.right_shift(words, spare, out=words)
    return words.reshape(storage.rows, storage.columns)


def _unpacked(storage: Storage, content: bytes | None, index: int) -> Pixels:
    """Read one frame of bits; frames follow each other without a gap (PS3.5 8.1.1 and D)."""
    count = storage.rows * storage.columns
    first, last = index * count, (index + 1) * count
    start = first // 8
    # pydicom 3.0.2 loses bits of single frames that do not begin at a byte.
    data = _at(storage, content, np.dtype(np.uint8), first=start, count=-(-last // 8) - start)
    bits = np.unpackbits(data, bitorder="little")[first % 8 :][:count]
    return np.asarray(bits.reshape(storage.rows, storage.columns))


def _at(
    storage: Storage, content: bytes | None, kind: np.dtype[Any], *, first: int, count: int
) -> NDArray[Any]:
    """Read so many numbers, from a byte of the pixel data on."""
    place = first + (storage.pixels.first if storage.pixels else 0)
    if content is not None:
        return np.frombuffer(content, kind, count, place)
    try:
        found = np.fromfile(storage.file.path, kind, count, offset=place)
    except OSError as fault:
        raise ReadError(
            f"{storage.name}: cannot be read: {fault.strerror}", code="DCM-038"
        ) from fault
    _require_bytes(storage, found=found.nbytes, expected=count * kind.itemsize)
    return found


def _loaded(storage: Storage, expected_bytes: int) -> Dataset:
    """Let pydicom read the pixels of all frames."""
    try:
        dataset = dataset_with_pixels(storage.file)
        found = len(dataset.PixelData) if dataset.get("PixelData") else 0
    except BROKEN as fault:
        raise ReadError(
            f"{storage.name}: breaks off before the end of its pixels",
            code="DCM-015",
            hint="copy the file again",
        ) from fault
    _require_bytes(storage, found=found, expected=expected_bytes)
    return dataset


def _parsed(storage: Storage, dataset: Dataset, index: int) -> Pixels:
    try:
        return np.asarray(decode(dataset, index))
    except _UNDECODABLE as fault:
        raise _undecodable(storage, index) from fault


def _decoded(storage: Storage, ticket: int, index: int) -> Pixels:
    """Decode one compressed frame in a sandbox."""
    frame_bytes = storage.rows * storage.columns * storage.samples * 8
    file_bytes = storage.file.num_bytes()
    for work, arguments in _ways_to_decode(storage, ticket, index):
        try:
            return call(
                f"medseg.io.dicom.pixels.{work}",
                {"path": str(storage.file.path.absolute()), **arguments},
                result_bytes=frame_bytes,
                memory_bytes=4 * frame_bytes + 4 * file_bytes,
                cpu_s=(frame_bytes + file_bytes) / _BYTES_A_SECOND,
            )
        except SandboxError as fault:
            if str(fault) != "failed":
                raise ReadError(
                    f"{storage.name} frame {index + 1}: the decoder of {storage.syntax.name} "
                    f"{fault}",
                    code="DCM-044",
                    hint="copy the file again; the stream is damaged, or made to do this",
                ) from fault
    raise _undecodable(storage, index)


def _ways_to_decode(
    storage: Storage, ticket: int, index: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the work that decodes most files of their kind, then the one that decodes any."""
    file, place = storage.file, storage.pixels
    only_one = storage.num_frames == 1 and file.member is None
    if place is not None and only_one and storage.syntax in JPEGLSTransferSyntaxes:
        yield (
            "jpeg_ls_frame:decode_only_frame",
            {
                "first": place.first,
                "shape": [storage.rows, storage.columns],
                "allocated": storage.allocated,
                "stored": storage.stored,
                "signed": storage.signed,
            },
        )
    member = asdict(file.member) if file.member else None
    yield "decoding:decode_frame", {"member": member, "index": index, "ticket": ticket}


def _undecodable(storage: Storage, index: int) -> ReadError:
    return ReadError(
        f"{storage.name} frame {index + 1}: the {storage.syntax.name} pixel stream cannot be "
        "decoded",
        code="DCM-014",
        hint="copy the file again; the stream is damaged",
    )


def _require_plain(storage: Storage, expected_bytes: int) -> None:
    """Refuse pixels that are no plain numbers, or too many for the matrix that the header names.

    A row or more beyond the last is no padding: with another matrix the picture would be sheared.
    """
    found = storage.pixels
    if found is None or not (found.fragments or _excess_rows(storage, expected_bytes)):
        return
    what = (
        "is a sequence of compressed fragments, though the transfer syntax says otherwise"
        if found.fragments
        else f"holds {found.count} bytes, expected {expected_bytes}"
    )
    raise ReadError(
        f"{storage.name}: pixel data {what}",
        code="DCM-015",
        hint="the header does not belong to these pixels; export the series again",
    )


def _excess_rows(storage: Storage, expected_bytes: int) -> bool:
    count = storage.pixels.count if storage.pixels else 0
    # A value is padded to an even number of bytes (PS3.5 7.1.1), which may be a row of a tiny mask.
    excess = count - expected_bytes - expected_bytes % 2
    return excess > 0 and excess * 8 >= storage.columns * storage.samples * storage.allocated


def _require_bytes(storage: Storage, *, found: int, expected: int) -> None:
    """Refuse missing and truncated pixel data; compressed streams are found out by decoding."""
    if not found:
        raise ReadError(
            f"{storage.name}: holds no pixel data", code="DCM-015", hint="copy the file again"
        )
    if found < expected:
        raise ReadError(
            f"{storage.name}: pixel data is cut short: {found} bytes, expected {expected}",
            code="DCM-015",
            hint="copy the file again",
        )
