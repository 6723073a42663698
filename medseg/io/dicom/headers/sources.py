"""Where DICOM bytes come from: files under a folder, one file, or the members of a .zip.

A .zip is read member by member in memory and never unpacked, so no member name can lead anywhere.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medseg.core.errors import ReadError
from medseg.io.dicom.headers.zip_members import BAD_ARCHIVE, Member, list_members, unpack

# A single slice is megabytes, an enhanced series rarely more than a gigabyte.
_MAX_MEMBER_BYTES = 4 * 2**30
_MAX_MEMBERS = 200_000
_PREAMBLE_BYTES = 128
_HEAD_BYTES = _PREAMBLE_BYTES + 4
_ARCHIVE = b"PK\x03\x04"
# Deflated files hold one slice or one multi-frame object; pydicom inflates them whole.
_MAX_INFLATED_BYTES = 2**30
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# The transfer syntax stands among the first elements; File Meta Information is a few hundred bytes.
_META_BYTES = 1024
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class DicomFile:
    """One file on disk, or one member of a .zip on disk.

    Attributes:
        path: the file, or the archive.
        member: which file inside the archive; None for a plain file.
    """

    path: Path
    member: Member | None = None

    @property
    def name(self) -> str:
        """How messages call it: the last part of its path."""
        return Path(self.member.name).name if self.member else self.path.name

    @property
    def folder(self) -> str:
        """The folder it lies in (on disk, or inside the archive)."""
        return str(Path(self.member.name).parent if self.member else self.path.parent)

    def open(self, *, first_bytes: int | None = None) -> IO[bytes]:
        """Open for reading; a member is unpacked in memory.

        Args:
            first_bytes: so many will do; a member is unpacked no further.

        Raises:
            ReadError: DCM-038, the file or archive cannot be read, the member is too large, or the
                file is deflated and would inflate beyond any slice.
        """
        with self._refusing():
            if self.member is None:
                stream: IO[bytes] = self.path.open("rb")
            else:
                stream = io.BytesIO(self._unpacked(self.member, first_bytes))
            try:
                self._require_small(stream)
            except BaseException:
                stream.close()
                raise
            return stream

    def num_bytes(self) -> int:
        """Return its size, unpacked.

        Raises:
            ReadError: as in `open`.
        """
        if self.member is not None:
            return self.member.num_bytes
        with self._refusing():
            return self.path.stat().st_size

    def head(self, num_bytes: int = _HEAD_BYTES) -> bytes:
        """Return the first bytes; unless told, as many as tell DICOM from the rest.

        Raises:
            ReadError: as in `open`.
        """
        with self._refusing():
            if self.member is not None:
                return self._unpacked(self.member, num_bytes)
            with self.path.open("rb", buffering=0) as stream:
                return stream.read(num_bytes)

    def _unpacked(self, member: Member, first_bytes: int | None) -> bytes:
        if member.num_bytes > _MAX_MEMBER_BYTES:
            raise ReadError(
                f"{self.name}: unpacks to {member.num_bytes} bytes from {self.path.name}, expected "
                f"at most {_MAX_MEMBER_BYTES}",
                code="DCM-038",
            )
        return unpack(self.path, member, num_bytes=first_bytes)

    def _require_small(self, stream: IO[bytes]) -> None:
        """Refuse a deflated file that would fill the memory once it is inflated."""
        start = stream.read(_META_BYTES)
        stream.seek(0)
        if _DEFLATED not in start:
            return
        inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        # File Meta Information begins with its own length (PS3.10 7.1): 4 bytes after 8.
        meta = int.from_bytes(start[_HEAD_BYTES + 8 : _HEAD_BYTES + 12], "little")
        stream.seek(_HEAD_BYTES + 12 + meta)
        while total <= _MAX_INFLATED_BYTES and not inflate.eof:
            block = inflate.unconsumed_tail or stream.read(_BLOCK_BYTES)
            if not block:
                break
            try:
                total += len(inflate.decompress(block, _BLOCK_BYTES))
            except zlib.error:
                # Where the stream lies elsewhere or is damaged, the parser will say so.
                break
        stream.seek(0)
        if total > _MAX_INFLATED_BYTES:
            raise ReadError(
                f"{self.name}: inflates to more than {_MAX_INFLATED_BYTES} bytes",
                code="DCM-038",
                hint="a slice is megabytes; the file is damaged, or made to fill the memory",
            )

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise ReadError(
                f"{self.name}: cannot be read: {fault.strerror}", code="DCM-038"
            ) from fault
        except BAD_ARCHIVE as fault:
            raise ReadError(
                f"{self.name}: cannot be unpacked from {self.path.name} (damaged, encrypted or "
                "packed by an unknown method)",
                code="DCM-038",
                hint="copy the archive again, or unpack it into a folder first",
            ) from fault


def find_files(path: Path, *, recursive: bool = True) -> Iterator[DicomFile]:
    """Go through the files of a folder (links to folders are not followed), a .zip, or one file.

    Raises:
        ReadError: DCM-030 nothing is there; DCM-038 an archive that cannot be listed.
    """
    if path.is_dir():
        yield from _files_under(path, recursive=recursive)
    elif not path.exists():
        raise ReadError(f"{path}: no such file or folder", code="DCM-030")
    elif path.suffix.lower() == ".zip" or _is_archive(path):
        yield from _members(path)
    else:
        yield DicomFile(path)


def has_preamble(head: bytes) -> bool:
    """Tell whether a file begins as DICOM part 10 demands: 128 bytes, then `DICM`."""
    return head[_PREAMBLE_BYTES:_HEAD_BYTES] == b"DICM"


def looks_bare(head: bytes) -> bool:
    """Tell whether a file begins with a DICOM data element at once, without a preamble.

    That is group 0002 or 0008 (identification), little endian, with a small element number, and
    then two capital letters (explicit) or a short length (implicit).
    """
    if len(head) < 12 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3] != 0:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or int.from_bytes(head[4:8], "little") <= 128


def _files_under(folder: Path, *, recursive: bool) -> Iterator[DicomFile]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        if not recursive:
            folders.clear()
        for name in sorted(names):
            path = Path(parent) / name
            # Pipes and devices would block or never end.
            if path.is_file():
                yield DicomFile(path)


def _is_archive(path: Path) -> bool:
    try:
        return DicomFile(path).head(len(_ARCHIVE)) == _ARCHIVE
    except ReadError:
        return False


def _members(archive: Path) -> Iterator[DicomFile]:
    try:
        members = list_members(archive)
    except (OSError, NotImplementedError, ValueError, zipfile.BadZipFile) as fault:
        raise ReadError(
            f"{archive.name}: is not a readable .zip archive",
            code="DCM-038",
            hint="copy the archive again",
        ) from fault
    if len(members) > _MAX_MEMBERS:
        raise ReadError(
            f"{archive.name}: holds {len(members)} members, expected at most {_MAX_MEMBERS}",
            code="DCM-038",
        )
    yield from (DicomFile(archive, member) for member in members)
