"""Files of tensors and plain values that know when they are damaged, and keep their predecessor.

A file is what `torch.save` writes, loadable with `torch.load(path, weights_only=True)` by anyone.
Its zip comment, which torch does not look at, holds the SHA-256 of everything before it: torch
itself accepts flipped bits, and the zip's own checksums leave its headers and padding out.
"""

import contextlib
import hashlib
import io
import logging
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.core.errors import CheckpointError
from medseg.core.findings import Finding
from medseg.runtime.files import write_with, written_whole

_log = logging.getLogger(__name__)
_MARK = b"medseg-sha256:"
_COMMENT_SIZE = len(_MARK) + 64
# The zip format ends in a two-byte comment length and the comment (APPNOTE 4.3.16).
_TRAILER_SIZE = 2 + _COMMENT_SIZE
# The longest comment a zip file can end in.
_MOST_COMMENT = 2**16
# What torch raises for a file that holds code, other objects, or nothing it knows.
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, ValueError, TypeError, AttributeError, LookupError,
    EOFError,
)  # fmt: skip
_SINGLES = (str, int, float, bool, bytes, type(None))


def save_tensors(value: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values; what stood there becomes `NAME.previous.pt`.

    At every instant, also during a kill or a full disk, at least one loadable file stands.

    Args:
        value: nested dicts, lists and tuples of tensors, numbers, texts and None; tensors are
            written from the CPU, without the unused rest of a storage they are a view of.
        path: where to write.

    Raises:
        CheckpointError: a value of another type; nothing was written.
        WriteError: the disk is full or the folder cannot be written; the old file still stands.
    """
    plain = _plain(dict(value), path.name)
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    body = buffer.getbuffer()[:-2]
    with written_whole(path) as stream:
        stream.write(body)
        stream.write(_trailer(hashlib.sha256(body).hexdigest()))
        _keep_previous(path)


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what `save_tensors` wrote, or its predecessor (see `load_newest`), onto the CPU."""
    return load_newest(path)[0]


def load_newest(path: Path) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """Read the file, or its predecessor where it is damaged; no code in either is ever run.

    Returns:
        The values, on the CPU, and a finding where the predecessor had to be used (logged, too).

    Raises:
        CheckpointError: CKP-001 missing or unreadable, CKP-002 damaged (empty, truncated, altered,
            or not the file itself) without a whole predecessor, CKP-003 of another program.
    """
    try:
        return _read(path), ()
    except CheckpointError as fault:
        kept = previous_of(path)
        if fault.code != "CKP-002" or not kept.is_file():
            raise
        value = _read(kept)
        finding = Finding(
            code="CKP-002",
            severity="warning",
            subject=path.name,
            message=f"{fault.message}; {kept.name}, written before it, is used",
            hint=fault.hint,
        )
        _log.warning("%s %s", finding.code, finding.message)
        return value, (finding,)


def previous_of(path: Path) -> Path:
    """Return where `save_tensors` keeps the file that stood at `path` before."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read(path: Path) -> dict[str, Any]:
    try:
        body = path.read_bytes()
    except OSError as fault:
        kept = previous_of(path)
        raise CheckpointError(
            f"{path}: cannot be read: {fault.strerror}",
            code="CKP-001",
            hint=f"{kept.name} stands beside it" if kept.is_file() else "",
        ) from fault
    _require_whole(body, path)
    try:
        value = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except _UNREADABLE as fault:
        raise _foreign(path, "holds more than tensors and plain values") from fault
    if not isinstance(value, dict):
        raise _foreign(path, f"holds a {type(value).__name__}, not named values")
    return value


def _trailer(digest: str) -> bytes:
    return struct.pack("<H", _COMMENT_SIZE) + _MARK + digest.encode()


def _is_whole(body: bytes) -> bool:
    digest = hashlib.sha256(memoryview(body)[:-_TRAILER_SIZE]).hexdigest()
    return body[-_TRAILER_SIZE:] == _trailer(digest)


def _keep_previous(path: Path) -> None:
    """Give the file at `path` its second name, unless it is damaged."""
    if not path.is_file() or not _is_whole(path.read_bytes()):
        return
    kept = previous_of(path)
    try:
        # A second name for the same bytes costs nothing, and `path` is there all the while.
        link = kept.with_name(f".{kept.name}.link")
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.hardlink_to(path)
        link.replace(kept)
    except OSError:
        # Not every file system has second names (FAT, some network shares).
        write_with(lambda part: part.write_bytes(path.read_bytes()), kept)


def _require_whole(body: bytes, path: Path) -> None:
    if _is_whole(body):
        return
    if not body:
        raise _damaged(path, "is empty")
    if body.startswith(b"version https://git-lfs"):
        raise _damaged(path, "is a Git LFS pointer, not the file", hint="run git lfs pull")
    if body.lstrip()[:1] == b"<":
        raise _damaged(path, "is a web page, not the file", hint="download it again")
    # Either half of the trailer tells our files, so that damage to the other half is called that.
    if _MARK in body[-_MOST_COMMENT:] or body[-_TRAILER_SIZE:][:2] == _trailer("")[:2]:
        raise _damaged(path, "was altered after it was written (its SHA-256 differs)")
    if body.startswith(b"\x93NUMPY"):
        raise _foreign(path, "is a NumPy array")
    if not body.startswith(b"PK"):
        raise _foreign(path, "is no PyTorch file, or one of the time before 2020")
    if not zipfile.is_zipfile(io.BytesIO(body)):
        raise _damaged(path, f"is truncated ({len(body)} bytes, and no end of the archive)")
    raise _foreign(path, "was written by another program")


def _damaged(
    path: Path, fault: str, *, hint: str = "copy it again from where it came"
) -> CheckpointError:
    return CheckpointError(f"{path}: {fault}", code="CKP-002", hint=hint)


def _foreign(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {fault}; expected a file that medseg train wrote",
        code="CKP-003",
        hint="weights of other programs are not unpickled: such files may run code",
    )


def _plain(value: Any, place: str) -> Any:
    """Return the value with tensors on the CPU and NumPy scalars as numbers.

    Raises:
        CheckpointError: naming the place of a value that is neither plain nor a tensor.
    """
    if isinstance(value, torch.Tensor):
        return _compact(value)
    # Exact types: a subclass, such as NumPy's float64, is pickled as what torch will not load.
    if type(value) in _SINGLES:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {
            _plain(key, place): _plain(entry, f"{place}: {key}") for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        entries = [_plain(entry, f"{place}[{n}]") for n, entry in enumerate(value)]
        return entries if isinstance(value, list) else tuple(entries)
    raise CheckpointError(
        f"{place}: a {type(value).__name__} cannot be saved; "
        "expected tensors, numbers, texts, None, and dicts, lists and tuples of them"
    )


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    plain = tensor.detach().cpu().as_subclass(torch.Tensor)
    # torch.save writes the whole storage of a view.
    return plain.clone() if plain.untyped_storage().nbytes() > plain.nbytes else plain
