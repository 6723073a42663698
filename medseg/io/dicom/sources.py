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

# A single slice is megabytes, an enhanced series rarely more than a gigabyte.
_MAX_MEMBER_BYTES = 4 * 2**30
_MAX_MEMBERS = 200_000
_PREAMBLE_BYTES = 128
_HEAD_BYTES = _PREAMBLE_BYTES + 4
# RuntimeError is what zipfile raises for an encrypted member.
_BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


@dataclass(frozen=True, slots=True, order=True)
class DicomFile:
    """One file on disk, or one member of a .zip on disk.

    Attributes:
        path: the file, or the archive.
        member: name inside the archive; empty for a plain file.
    """

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """How messages call it: the last part of its path."""
        return Path(self.member).name if self.member else self.path.name

    @property
    def folder(self) -> str:
        """The folder it lies in (on disk, or inside the archive)."""
        return str(Path(self.member).parent if self.member else self.path.parent)

    def open(self) -> IO[bytes]:
        """Open for reading; a member is unpacked in memory.

        Raises:
            ReadError: DCM-038, the file or archive cannot be read, or the member is too large.
        """
        if self.member:
            return io.BytesIO(self._unpacked(_MAX_MEMBER_BYTES))
        with self._refusing():
            return self.path.open("rb")

    def head(self) -> bytes:
        """Return the first bytes, enough to tell DICOM from the rest.

        Raises:
            ReadError: as in `open`.
        """
        if self.member:
            return self._unpacked(_HEAD_BYTES)
        with self._refusing(), self.path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)

    def _unpacked(self, num_bytes: int) -> bytes:
        with self._refusing(), zipfile.ZipFile(self.path) as archive:
            size = archive.getinfo(self.member).file_size
            if size > _MAX_MEMBER_BYTES:
                raise ReadError(
                    f"{self.path.name}: member {self.name} unpacks to {size} bytes, expected at "
                    f"most {_MAX_MEMBER_BYTES}",
                    code="DCM-038",
                )
            with archive.open(self.member) as stream:
                return stream.read(num_bytes)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise ReadError(
                f"{self.name}: cannot be read: {fault.strerror}", code="DCM-038"
            ) from fault
        except _BAD_ARCHIVE as fault:
            raise ReadError(
                f"{self.path.name}: member {self.name} cannot be unpacked (damaged, encrypted or "
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
    elif path.suffix.lower() == ".zip":
        yield from _members(path)
    else:
        yield DicomFile(path)


def has_preamble(head: bytes) -> bool:
    """Tell whether a file begins as DICOM part 10 demands: 128 bytes, then `DICM`."""
    return head[_PREAMBLE_BYTES:] == b"DICM"


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


def _members(archive: Path) -> Iterator[DicomFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = sorted(entry.filename for entry in opened.infolist() if not entry.is_dir())
    except (OSError, zipfile.BadZipFile) as fault:
        raise ReadError(
            f"{archive.name}: is not a readable .zip archive",
            code="DCM-038",
            hint="copy the archive again",
        ) from fault
    if len(names) > _MAX_MEMBERS:
        raise ReadError(
            f"{archive.name}: holds {len(names)} members, expected at most {_MAX_MEMBERS}",
            code="DCM-038",
        )
    yield from (DicomFile(archive, name) for name in names)
