"""The run's own record of what was logged: one line an event, kept until the store has it.

Layout, inside the run's folder:

    spool/spool.jsonl   every event, in order; never rewritten
    spool/files/        artifacts on their way (hard links where the disk allows)
    spool/offset.json   how many bytes of spool.jsonl the store has
    spool/late.jsonl    artifacts that were refused while everything else was taken
    spool/trouble.txt   why the last attempt to send failed; absent when it did not
    spool/sender.log    what MLflow printed
"""

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# Longer than the line of any `end` event, so that the last line can be read from the file's end.
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that was logged.

    Attributes:
        kind: start, params, metrics, tags, file, model or end.
        time_ms: when, in milliseconds since 1970.
        body: its values.
        end: where its line ends in the spool, in bytes; 0 before it is written.
    """

    kind: str
    time_ms: int
    body: Mapping[str, Any]
    end: int = 0


class Spool:
    """The training's side of the spool: takes events, and shows whether the training lives."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / "spool"
        self.path = self.folder / "spool.jsonl"
        # Held as long as the training lives: the system frees it however the process dies.
        self.writer_lock = FileLock(self.folder / "writer.lock")
        self._handle: int | None = None
        self._mutex = threading.Lock()

    def append(self, kind: str, body: Mapping[str, Any]) -> None:
        """Append an event with one write, so that a kill leaves at most one torn line.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        event = Event(kind=kind, time_ms=time.time_ns() // 1_000_000, body=body)
        data = line_of(event).encode()
        with self._mutex:
            if self._handle is None:
                self._handle = self._open()
            if os.write(self._handle, data) != len(data):
                # The next append begins on a fresh line.
                self._close()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Let go of the file; appending opens it again."""
        with self._mutex:
            self._close()

    @property
    def has_ended(self) -> bool:
        """Whether the last thing that was logged is the run's end."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            lines = stream.read().splitlines(keepends=True)
            last = event_of(lines[-1], size) if lines else None
            return last is not None and last.kind == "end"
        return False

    def is_abandoned(self) -> bool:
        """Whether the training is gone without having said how it ended."""
        if self.has_ended or not self.path.exists():
            return False
        try:
            with self.writer_lock.acquire(timeout=0):
                return not self.has_ended
        except Timeout:
            return False

    def _open(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            os.write(handle, b"\n")
        return handle

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def line_of(event: Event) -> str:
    """Return the line that stands for an event."""
    entry = {"kind": event.kind, "time_ms": event.time_ms, "body": event.body}
    return json.dumps(entry) + "\n"


def event_of(line: bytes, end: int) -> Event | None:
    """Return the event of a line; None for a line that was torn by a kill or a full disk."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
        return Event(kind=found["kind"], time_ms=found["time_ms"], body=found["body"], end=end)
    except (ValueError, KeyError, TypeError):
        return None
