"""The part of a file that has arrived: its bytes, their digests, and which version they are of."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from medseg.core.errors import DownloadError, WriteError
from medseg.runtime.files import read_json, write_json

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_BLOCK_BYTES = 1 << 20


class Partial:
    """A file on its way: `<path>.part`, and beside it what the server said about the whole.

    Attributes:
        url: where the file comes from.
        file: the bytes so far.
        num_bytes: how many there are.
        length: bytes of the whole file, None while unknown.
    """

    def __init__(self, path: Path, stream: BinaryIO, *, url: str, algorithm: str) -> None:
        self.url = url
        self.file = part_of(path)
        self.num_bytes = 0
        self.length: int | None = None
        self._path = path
        self._stream = stream
        self._note = path.with_name(f"{path.name}.part.json")
        self._validator = ""
        self._algorithm = algorithm
        self._start_digests()

    @classmethod
    @contextmanager
    def of(cls, path: Path, *, url: str, algorithm: str) -> Iterator["Partial"]:
        """Open the partial file that belongs to `path`, an earlier one where it is of this url.

        Raises:
            WriteError: the folder or the file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = part_of(path).open("a+b")
        except OSError as fault:
            raise _unwritable(part_of(path), fault) from fault
        try:
            part = cls(path, stream, url=url, algorithm=algorithm)
            part._take_up()
            yield part
        finally:
            # Every block was flushed when it was stored; a full disk has been reported by then.
            with contextlib.suppress(OSError):
                stream.close()
                if part_of(path).stat().st_size == 0:
                    part_of(path).unlink()

    @property
    def is_whole(self) -> bool:
        """Whether all bytes that the server promised are here."""
        return self.length is not None and self.num_bytes == self.length

    @property
    def range_headers(self) -> dict[str, str]:
        """What asks for the rest, if the file is still the same one; empty: ask for all of it."""
        if not self.num_bytes or not self._validator:
            return {}
        return {"Range": f"bytes={self.num_bytes}-", "If-Range": self._validator}

    def continues(self, headers: Message) -> bool:
        """Tell whether a partial answer (206) carries on exactly where these bytes end."""
        found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        tag = headers.get("ETag", self._validator)
        same = tag == self._validator or not self._validator.startswith('"')
        return bool(
            found
            and self.range_headers
            and same
            and int(found[1]) == self.num_bytes
            and (found[2] == "*" or self.length is None or int(found[2]) == self.length)
        )

    def restart(self, headers: Message, *, length: int | None) -> None:
        """Drop what is here, and note which version of the file will follow."""
        self.forget()
        tag = headers.get("ETag", "")
        # A weak tag ("W/...") promises the same meaning, not the same bytes (RFC 9110, 13.1.5).
        self._validator = tag if tag.startswith('"') else headers.get("Last-Modified", "")
        self.length = length
        write_json({"url": self.url, "validator": self._validator, "length": length}, self._note)

    def forget(self) -> None:
        """Drop what is here: it is of no use for the file the server has now."""
        self._note.unlink(missing_ok=True)
        self._stream.seek(0)
        self._stream.truncate()
        self.num_bytes, self.length, self._validator = 0, None, ""
        self._start_digests()

    def append(self, block: bytes) -> None:
        """Store a block at the end.

        Raises:
            WriteError: the disk is full or gone; what was stored before is kept.
        """
        try:
            self._stream.write(block)
            self._stream.flush()
        except OSError as fault:
            raise _unwritable(self.file, fault) from fault
        self._count(block)

    def settle(self, checksum: str) -> str:
        """Let the file take its place if its checksum is right; return its SHA-256.

        Raises:
            DownloadError: FET-004, another checksum; the file is kept under a name that says so.
            WriteError: the last bytes could not be written.
        """
        found = f"{self._algorithm}:{self._digests[self._algorithm].hexdigest()}"
        try:
            os.fsync(self._stream.fileno())
            self._note.unlink(missing_ok=True)
            if found != checksum:
                wrong = self._path.with_name(f"{self._path.name}.wrong-checksum")
                self.file.replace(wrong)
                raise DownloadError(
                    f"{self.url}: {self.num_bytes} bytes with {found}, expected {checksum}; "
                    f"kept as {wrong.name}, not used",
                    code="FET-004",
                    hint="the file was altered on its way or at its source; try again later",
                )
            self.file.replace(self._path)
        except OSError as fault:
            raise _unwritable(self._path, fault) from fault
        return self._digests["sha256"].hexdigest()

    def _take_up(self) -> None:
        """Count the bytes of an earlier call, if they are of this url; else drop them."""
        if not self._note.exists():
            self.forget()
            return
        try:
            noted = read_json(self._note, kind=DownloadError, what="a note on a download")
        except DownloadError:
            noted = {}
        if noted.get("url") != self.url:
            self.forget()
            return
        self._validator, self.length = str(noted.get("validator", "")), noted.get("length")
        self._stream.seek(0)
        while block := self._stream.read(_BLOCK_BYTES):
            self._count(block)

    def _count(self, block: bytes) -> None:
        self.num_bytes += len(block)
        for digest in self._digests.values():
            digest.update(block)

    def _start_digests(self) -> None:
        self._digests = _digests(self._algorithm)


def part_of(path: Path) -> Path:
    """Return where the bytes of `path` are kept until they are all there."""
    return path.with_name(f"{path.name}.part")


def require_checksum(file: Path, checksum: str) -> str:
    """Refuse a file that is not what its checksum says; return its SHA-256.

    Raises:
        DownloadError: FET-004, another checksum, or a file that cannot be read.
    """
    algorithm = checksum.partition(":")[0]
    digests = _digests(algorithm)
    try:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                for digest in digests.values():
                    digest.update(block)
    except OSError as fault:
        raise DownloadError(f"{file}: cannot be read: {fault.strerror}", code="FET-004") from fault
    found = f"{algorithm}:{digests[algorithm].hexdigest()}"
    if found != checksum:
        raise DownloadError(
            f"{file}: has {found}, expected {checksum}",
            code="FET-004",
            hint="move it out of the way, and it is downloaded",
        )
    return digests["sha256"].hexdigest()


def _digests(algorithm: str) -> dict[str, "hashlib._Hash"]:
    # MD5 is what the datasets publish; it guards against accidents, https against people.
    return {name: hashlib.new(name, usedforsecurity=False) for name in {algorithm, "sha256"}}


def _unwritable(file: Path, fault: OSError) -> WriteError:
    return WriteError(f"{file}: could not be written: {fault.strerror}", code="OUT-001")
