"""The bytes of a file, decompressed, read to their end and counted against its header's promise."""

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from medseg.core.errors import ReadError

GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot pack more than this many bytes into one (zlib's technical details, zlib.net).
_DEFLATE_RATIO = 1032
# LZW's longest string is shorter than its table of 4096, and takes 12 bits.
LZW_RATIO = 4096
# Some writers pad a file to whole disk blocks; more than a block of unknown data is not padding.
_PADDING_BYTES = 4096
_COPY_AGAIN = "copy or download the file again"


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file and unpack it if it is gzip, whatever it is called.

    Raises:
        ReadError: FIL-007 the stream ends early, FIL-008 its checksum or coding is damaged,
            FIL-012 the system cannot read it.
    """
    with damage_named(path), path.open("rb") as raw:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        else:
            yield raw


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Name the file when unpacking or reading fails, as a coded refusal."""
    try:
        yield
    except EOFError as fault:
        raise truncated(path, "the compressed stream ends early") from fault
    except (gzip.BadGzipFile, zlib.error) as fault:
        raise ReadError(
            f"{path}: the compressed data are damaged ({fault})", code="FIL-008", hint=_COPY_AGAIN
        ) from fault
    except OSError as fault:
        if fault.errno is None:
            # bz2 speaks of damage this way.
            raise ReadError(
                f"{path}: the compressed data are damaged ({fault})",
                code="FIL-008",
                hint=_COPY_AGAIN,
            ) from fault
        raise ReadError(
            f"{path}: cannot be read: {fault.strerror}",
            code="FIL-012",
            hint="check the path, the permissions and the disk",
        ) from fault


def truncated(path: Path, what: str) -> ReadError:
    """Return the refusal of a file that ends early."""
    return ReadError(f"{path}: truncated: {what}", code="FIL-007", hint=_COPY_AGAIN)


def require_room(
    path: Path, expected_bytes: int, *, best_ratio: int | None = _DEFLATE_RATIO
) -> None:
    """Refuse, before anything is allocated, a header that promises more than there can be.

    Args:
        path: the file that holds the voxels, packed or not.
        expected_bytes: bytes of voxels that the header promises.
        best_ratio: how many bytes of voxels a byte of the file can stand for; None: no bound.

    Raises:
        ReadError: FIL-009 more than this machine's memory, FIL-007 more than the file can hold.
    """
    memory_bytes = psutil.virtual_memory().total
    if expected_bytes > memory_bytes:
        raise ReadError(
            f"{path}: the header promises {expected_bytes} bytes of voxels, but this machine has "
            f"{memory_bytes} bytes of memory",
            code="FIL-009",
            hint="if the scan is not that large, its header is damaged",
        )
    with damage_named(path):
        size = path.stat().st_size
    if best_ratio is not None and expected_bytes > size * best_ratio:
        raise truncated(path, f"the header promises {expected_bytes} bytes, the file has {size}")


def read_numbers(
    stream: BufferedIOBase, count: int, *, kind: np.dtype[Any], path: Path
) -> NDArray[Any]:
    """Read that many numbers, in the byte order of `kind`; return them in the machine's order.

    Raises:
        ReadError: FIL-007 the stream holds fewer.
    """
    raw = np.empty(count * kind.itemsize, dtype=np.uint8)
    view, filled = memoryview(raw.data), 0
    while filled < len(raw):
        got = stream.readinto(view[filled:])
        if not got:
            raise truncated(path, f"found {filled} bytes of voxels, expected {len(raw)}")
        filled += got
    numbers = raw.view(kind)
    return numbers if kind.isnative else numbers.astype(kind.newbyteorder("="))


def read_to_end(stream: BufferedIOBase, *, path: Path, padding_bytes: int = _PADDING_BYTES) -> int:
    """Read what follows the voxels, so that the checksum at the end of a stream is compared.

    Args:
        stream: stands after the last voxel.
        path: the file, for the refusal.
        padding_bytes: how many bytes may follow.

    Returns:
        Number of bytes that the header does not account for.

    Raises:
        ReadError: FIL-011 there are too many to be padding.
    """
    excess = 0
    while block := stream.read(_PADDING_BYTES + 1):
        excess += len(block)
        if excess > padding_bytes:
            raise ReadError(
                f"{path}: at least {excess} bytes follow the voxels that the header declares; "
                f"expected {padding_bytes} at most",
                code="FIL-011",
                hint="the header does not belong to these voxels, or two files were joined",
            )
    return excess


@contextmanager
def unpacked(stream: BufferedIOBase, encoding: str) -> Iterator[BufferedIOBase]:
    """Unpack what is left of a stream: `raw`, `gzip` or `bzip2`."""
    if encoding == "raw":
        yield stream
    elif encoding == "gzip":
        with gzip.GzipFile(fileobj=stream) as plain:
            yield plain
    else:
        with bz2.BZ2File(stream) as plain:
            yield plain


def inflate(packed: bytes, expected_bytes: int, *, path: Path) -> bytes:
    """Unpack a zlib or gzip stream that must hold exactly so many bytes.

    Raises:
        ReadError: FIL-007, FIL-008 or FIL-011, as for the other streams.
    """
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    with damage_named(path):
        # One byte more than expected makes the decoder meet the checksum, and shows an excess.
        plain = unpack.decompress(packed, expected_bytes + 1)
    if len(plain) > expected_bytes:
        raise ReadError(
            f"{path}: unpacks to more than the {expected_bytes} bytes that the header declares",
            code="FIL-011",
            hint="the header does not belong to these voxels",
        )
    if not unpack.eof:
        raise truncated(path, f"found {len(plain)} bytes of voxels, expected {expected_bytes}")
    return plain


def file_inside(folder: Path, name: str, *, header: Path, code: str) -> Path:
    """Return the file that a header names, which must lie in the header's own folder tree.

    Raises:
        ReadError: with that code: a name that leads elsewhere, or a file that is not there.
    """
    # A file name cannot hold a zero byte; asked for one, Python raises instead of finding nothing.
    found = (folder / name.replace("\0", "?")).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise ReadError(
            f"{header}: its data file {name!r} lies outside the header's folder",
            code=code,
            hint="put the data file beside its header",
        )
    if not found.is_file():
        raise ReadError(
            f"{header}: its data file {name!r} is missing",
            code=code,
            hint="copy it to the header's folder, under the name that the header gives",
        )
    return found
