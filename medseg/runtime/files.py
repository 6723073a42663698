"""Files that are whole or absent: written aside, flushed to the disk, then renamed into place."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from medseg.core.errors import MedsegError, WriteError

_PART = ".part-"
# A part that nobody has touched for so long belongs to a writer that was killed.
_ABANDONED_S = 60.0


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` only once everything was written.

    A reader sees the old file or the new one, never half of one, also after a kill or a full disk.

    Raises:
        WriteError: OUT-001 the disk is full or the folder cannot be written; the old file stands.
    """
    with _aside(path) as part, part.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def write_with(write: Callable[[Path], object], path: Path) -> None:
    """Let a library that insists on a path write `path`, whole or not at all.

    Args:
        write: called with a path beside `path` that ends in the same name (so that libraries which
            choose a format by suffix choose the right one).
        path: where the file ends up.

    Raises:
        WriteError: as in `written_whole`.
    """
    with _aside(path) as part:
        write(part)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8, whole or not at all."""
    with written_whole(path) as stream:
        stream.write(text.encode())


def write_json(value: Mapping[str, Any] | list[Any], path: Path) -> None:
    """Write readable JSON, whole or not at all; NaN and infinity, which JSON lacks, become null."""
    write_text(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n", path)


def read_json(path: Path, *, kind: type[MedsegError], what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        kind: the refusal to raise.
        what: what the file should be, for the error, such as "a plan".

    Raises:
        MedsegError: of that kind: FIL-001 missing, FIL-012 unreadable, FIL-015 not UTF-8, not
            JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as fault:
        code = "FIL-001" if isinstance(fault, FileNotFoundError) else "FIL-012"
        raise kind(f"{path}: cannot be read as {what}: {fault.strerror}", code=code) from fault
    except (ValueError, RecursionError) as fault:
        raise kind(f"{path}: is not {what}: {fault}", code="FIL-015") from fault
    if not isinstance(value, dict):
        raise kind(
            f"{path}: is not {what}: expected a JSON object, found {type(value).__name__}",
            code="FIL-015",
        )
    return value


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files that killed writers left in a folder."""
    for part in folder.glob(f"{_PART}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(part, ignore_errors=True)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_json(value: Mapping[str, Any] | list[Any]) -> str:
    """Return the SHA-256 of a JSON value, independent of key order, in hex."""
    text = json.dumps(_plain(value), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Hand out a file in a fresh folder beside `path`; rename it into place at the end."""
    folder: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own keeps the full name (suffixes matter to libraries) free of clashes.
        folder = Path(tempfile.mkdtemp(prefix=_PART, dir=path.parent))
        part = folder / path.name
        yield part
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as fault:
        if fault.errno is None or not _concerns(path, fault):
            raise
        raise WriteError(
            f"{path}: could not be written: {fault.strerror}{_free_space(path, fault)}",
            code="OUT-001",
            hint="what stood there before still stands",
        ) from fault
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    # A rename lasts through a power cut only once its folder is flushed; not every system can.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _concerns(path: Path, fault: OSError) -> bool:
    """Tell whether a fault is about writing `path`, not about a file the caller was reading."""
    if fault.filename is None:
        return True
    named = Path(os.fsdecode(fault.filename)) if isinstance(fault.filename, str | bytes) else path
    return named.is_relative_to(path.parent) or path.is_relative_to(named)


def _free_space(path: Path, fault: OSError) -> str:
    if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return f" ({shutil.disk_usage(path.parent).free} bytes free)"


def _plain(value: Any) -> Any:
    """Return a value that JSON has, with null for numbers that it lacks."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
