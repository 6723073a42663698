"""A folder that belongs to one run: its own name, and a lock that says who is writing there."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from medseg.core.errors import ConfigError, WriteError
from medseg.runtime.files import remove_abandoned


def fresh_folder(above: Path, name: str) -> Path:
    """Make a new folder whose name no other run can have, also within the same second.

    Raises:
        WriteError: OUT-001 it cannot be made.
    """
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    folder = above / f"{name}_{stamp}_{secrets.token_hex(3)}"
    _make(folder)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other run out of the folder while the block runs.

    What killed runs left unfinished there is removed first.

    Raises:
        ConfigError: RUN-003 another run is writing there; it is named by process, host and start.
        WriteError: OUT-001 the folder cannot be made or written.
    """
    _make(folder)
    owner = folder / "run.lock.owner"
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as held:
        who = owner.read_text() if owner.exists() else "another process"
        raise ConfigError(
            f"output={folder}: {who} is writing there",
            code="RUN-003",
            hint="wait for it, or choose another output",
        ) from held
    except OSError as fault:
        raise _unwritable(folder, fault) from fault
    try:
        remove_abandoned(folder)
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {started},")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise _unwritable(folder, fault) from fault


def _unwritable(folder: Path, fault: OSError) -> WriteError:
    return WriteError(
        f"output={folder}: cannot be written to: {fault.strerror}",
        code="OUT-001",
        hint="choose a folder that you may write to",
    )
