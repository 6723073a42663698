"""What an archive holds, member by member, whichever of the formats it is."""

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

_BLOCK_BYTES = 1 << 20
# No header of a tar is as long as this; one that claims to be would be read into memory whole.
_LONGEST_READ_BYTES = 16 << 20
# A tar is padded by at most its blocking factor; more behind its end is no padding.
_LONGEST_TAIL_BYTES = 64 << 20
# What macOS adds about files; nothing of a dataset.
_LITTER = ("__MACOSX", ".DS_Store")

Kind = Literal["file", "folder", "link", "device", "sparse", "encrypted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of an archive, as it claims to be: nothing of it is to be trusted yet."""

    name: str
    kind: Kind
    num_bytes: int
    open: Callable[[], IO[bytes]]

    @property
    def path(self) -> PurePosixPath:
        """Its name without dots and doubled slashes."""
        return PurePosixPath(self.name)

    @property
    def is_litter(self) -> bool:
        """Whether macOS put it there (`._*`, `__MACOSX`, `.DS_Store`)."""
        return any(part.startswith("._") or part in _LITTER for part in self.path.parts)


@contextmanager
def opened(archive: Path, folder: Path) -> Iterator[Iterator[Member]]:
    """List an archive by what it is, not by what it is called.

    Args:
        archive: tar, tar.gz or zip.
        folder: where it would be unpacked; the library's own filter looks at links from there.

    Raises:
        tarfile.TarError, zipfile.BadZipFile, EOFError, ...: what the libraries raise over damage.
    """
    with archive.open("rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        if magic[:2] == b"PK":
            with zipfile.ZipFile(stream) as packed:
                yield _members_of_zip(packed)
        elif magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=stream) as plain:
                yield _members_of_tar(cast("IO[bytes]", plain), folder)
                _read_to_end(plain)
        else:
            yield _members_of_tar(stream, folder)


def _members_of_tar(stream: IO[bytes], folder: Path) -> Iterator[Member]:
    # Stays open as long as the stream below it: the members are read after they were listed.
    packed = tarfile.open(fileobj=cast("IO[bytes]", _Sober(stream)), mode="r:")  # noqa: SIM115
    for info in packed:
        # A second opinion beside our own rules, and the one that learns with the library.
        tarfile.data_filter(info, str(folder))
        kind = _kind_of(info)
        yield Member(
            name=info.name,
            kind=kind,
            num_bytes=info.size if kind in ("file", "sparse") else 0,
            open=cast("Callable[[], IO[bytes]]", partial(packed.extractfile, info)),
        )
    # The library takes a damaged header for the end; only a block of zeros is one.
    stream.seek(packed.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it has no end mark")


def _kind_of(info: tarfile.TarInfo) -> Kind:
    if info.isdir():
        return "folder"
    if info.issym() or info.islnk():
        return "link"
    if info.issparse():
        # It claims any size for a few bytes.
        return "sparse"
    return "file" if info.isreg() else "device"


def _members_of_zip(packed: zipfile.ZipFile) -> Iterator[Member]:
    for info in packed.infolist():
        # Unix modes stand in the upper half of the attributes; 0 where another system packed.
        mode = stat.S_IFMT(info.external_attr >> 16)
        kind: Kind = "folder" if info.is_dir() else "file"
        if info.flag_bits & 1:
            kind = "encrypted"
        elif stat.S_ISLNK(mode):
            kind = "link"
        elif mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = "device"
        yield Member(
            # The name as it was packed: `filename` ends at a NUL and has its separators changed.
            name=info.orig_filename,
            kind=kind,
            num_bytes=info.file_size,
            open=partial(packed.open, info),
        )


def _read_to_end(plain: gzip.GzipFile) -> None:
    """Read the rest, so that the checksum at the end of a gzip is compared."""
    for _ in range(_LONGEST_TAIL_BYTES // _BLOCK_BYTES):
        if not plain.read(_BLOCK_BYTES):
            return
    raise tarfile.ReadError("there is more behind its end than padding")


class _Sober:
    """A stream that is never asked for an absurd number of bytes at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does, or refuse."""
        if not 0 <= size <= _LONGEST_READ_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._stream.read(size)
