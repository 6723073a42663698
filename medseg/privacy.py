"""Ids that name nobody: keyed hashes, with the key and the way back kept in private files."""

import csv
import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.core.errors import ConfigError, WriteError

_KEY_FILE = "project.key"
_KEY_BYTES = 32
# 64 bits: among a million cases two alike are as likely as 1 in 30 million.
_ID_DIGITS = 16
_MAP_COLUMNS = ("id", "original")
# Dates are moved back by 10 to 60 years: long enough to say nothing about when somebody was ill.
_LEAST_SHIFT_S, _SHIFT_RANGE_S = 10 * 366 * 86_400, 50 * 365 * 86_400


def project_key(folder: Path) -> bytes:
    """Return the secret that ids are hashed with; the first caller makes it (mode 0600).

    Args:
        folder: where the key is kept, such as `MEDSEG_HOME`; never beside the data.

    Raises:
        ConfigError: PRV-001 others may read the file; PRV-002 it does not hold a key.
        WriteError: the folder cannot be written.
    """
    path = folder / _KEY_FILE
    if not path.exists():
        _write_first(path, secrets.token_hex(_KEY_BYTES).encode())
    _require_private(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (UnicodeDecodeError, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"{path}: does not hold a key of {_KEY_BYTES} bytes in hex",
            code="PRV-002",
            hint="restore it, or remove it and ingest again (ids will change)",
        )
    return key


def keyed_id(*parts: str, key: bytes) -> str:
    """Return the HMAC-SHA256 of some text as 16 hex digits.

    Without the key nobody can tell which text it was, not even by trying all patient numbers; with
    it the same text gives the same id again.

    Args:
        parts: such as `"patient", patient_id`; kept apart, so ("ab", "c") is not ("a", "bc").
        key: from `project_key`.
    """
    return _hashed(parts, key).hex()[:_ID_DIGITS]


def keyed_uid(uid: str, *, key: bytes) -> str:
    """Return the DICOM UID that stands in for another: the same one for the same key.

    It lies below 2.25, the root for UIDs made of a UUID (PS3.5 B.2).
    """
    return f"2.25.{uuid.UUID(bytes=_hashed(('uid', uid), key)[:16], version=5).int}"


def keyed_shift_s(*parts: str, key: bytes) -> int:
    """Return by how many seconds dates are moved, always into the past.

    Args:
        parts: what shares its dates, such as `"patient", patient_id`.
        key: from `project_key`.
    """
    drawn = int.from_bytes(_hashed(("shift", *parts), key)[:8], "big")
    return -(_LEAST_SHIFT_S + drawn % _SHIFT_RANGE_S)


def remember_originals(originals: Mapping[str, str], path: Path) -> None:
    """Add ids and what they stand for to a map file that only its owner may read (mode 0600).

    Args:
        originals: id -> original text; what the file already holds stays.
        path: a CSV file with the columns id and original, kept apart from all results.

    Raises:
        ConfigError: PRV-001 others may read the file.
        WriteError: the folder cannot be written.
    """
    known = recall_originals(path) | dict(originals)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # mkstemp opens with mode 0600, so no moment exists in which others could read it.
        handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(_MAP_COLUMNS)
            writer.writerows(sorted(known.items()))
            stream.flush()
            os.fsync(stream.fileno())
        Path(part).replace(path)
    except OSError as fault:
        raise WriteError(
            f"{path}: could not be written: {fault.strerror}", code="OUT-001"
        ) from fault


def recall_originals(path: Path) -> dict[str, str]:
    """Return what a map file holds, id -> original; nothing when there is no file.

    Raises:
        ConfigError: PRV-001 others may read the file.
    """
    if not path.exists():
        return {}
    _require_private(path)
    with path.open(encoding="utf-8", newline="") as stream:
        return {row["id"]: row["original"] for row in csv.DictReader(stream)}


def _hashed(parts: Sequence[str], key: bytes) -> bytes:
    return hmac.new(key, json.dumps(list(parts)).encode(), hashlib.sha256).digest()


def _write_first(path: Path, content: bytes) -> None:
    """Write a private file unless another process was first; whole in either case."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            # Unlike a rename, a hard link never takes the place of a file that is already there.
            os.link(part, path)
        except FileExistsError:
            pass
        finally:
            Path(part).unlink()
    except OSError as fault:
        raise WriteError(
            f"{path}: could not be written: {fault.strerror}", code="OUT-001"
        ) from fault


def _require_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(
            f"{path}: mode {mode:04o} lets others read it; expected 0600",
            code="PRV-001",
            hint=f"chmod 600 {path}",
        )
