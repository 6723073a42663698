"""The run's own record of what was logged: one line an event, kept until the store has it.

Layout, inside the run's folder:

    spool/spool.jsonl   every event, in order; never rewritten
    spool/offset.json   how many bytes of it the store has
    spool/files/        artifacts on their way (hard links where the disk allows)
    spool/late.jsonl    artifacts that were refused while everything else was taken
    spool/trouble.txt   why the last attempt to send failed; absent when it did not
    spool/sender.log    what MLflow printed
"""

import contextlib
import errno
import json
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medseg.core.errors import ReadError
from medseg.runtime.files import read_json, write_json, write_text
from medseg.tracking.fields import valid_name

# Longer than the line of any `end` event, so that the last line can be read from the file's end.
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that was logged.

    Args:
        kind: start, params, metrics, tags, file, model or end.
        time_ms: when, in milliseconds since 1970.
        body: its values.
        end: where its line ends in the spool, in bytes.
    """

    kind: str
    time_ms: int
    body: Mapping[str, Any]
    end: int


class Spool:
    """Appends events on the side of the training, hands them out on the side of the sender."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / "spool"
        self.log_path = self.folder / "sender.log"
        # Held by the training as long as it lives, and by whoever sends: the system frees both
        # when a process dies, however it dies.
        self.writer_lock = FileLock(self.folder / "writer.lock")
        self.sender_lock = FileLock(self.folder / "sender.lock")
        self._path = self.folder / "spool.jsonl"
        self._offset_path = self.folder / "offset.json"
        self._late_path = self.folder / "late.jsonl"
        self._trouble_path = self.folder / "trouble.txt"
        self._handle: int | None = None
        self._mutex = threading.Lock()

    def append(self, kind: str, body: Mapping[str, Any]) -> None:
        """Append an event with one write, so that a kill leaves at most one torn line.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        now_ms = time.time_ns() // 1_000_000
        data = _line(Event(kind=kind, time_ms=now_ms, body=body, end=0)).encode()
        with self._mutex:
            if self._handle is None:
                self._handle = self._open()
            if os.write(self._handle, data) != len(data):
                # The next append begins on a fresh line.
                self._close()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def keep(self, sources: Mapping[str, Path]) -> str:
        """Keep files as they are now until they are sent; later versions take their names.

        Args:
            sources: name to send each file under -> the file.

        Returns:
            The folder they are kept in, relative to the spool's.

        Raises:
            OSError: a file is missing, or the disk is full.
        """
        kept = self.folder / "files" / uuid.uuid4().hex
        kept.mkdir(parents=True)
        for name, source in sources.items():
            target = kept / valid_name(name)
            try:
                # Our files are replaced, never rewritten in place: a link keeps this version.
                os.link(source.resolve(), target)
            except OSError:
                shutil.copyfile(source, target)
        return kept.relative_to(self.folder).as_posix()

    def keep_text(self, text: str, name: str) -> str:
        """Keep a text as a file; returns as `keep` does."""
        kept = self.folder / "files" / uuid.uuid4().hex
        kept.mkdir(parents=True)
        (kept / valid_name(name)).write_text(text, encoding="utf-8")
        return kept.relative_to(self.folder).as_posix()

    def unsent(self, limit: int = 1000) -> list[Event]:
        """Return the oldest events that the store does not have, skipping torn lines."""
        return _read(self._path, self.offset, limit)

    @property
    def offset(self) -> int:
        """Bytes of the spool that the store has."""
        if not self._offset_path.exists():
            return 0
        return int(read_json(self._offset_path, kind=ReadError, what="a spool offset")["bytes"])

    def mark_sent(self, event: Event) -> None:
        """Remember that the store has everything up to and with this event."""
        write_json({"bytes": event.end}, self._offset_path)

    def release(self, event: Event) -> None:
        """Let go of the files an event kept."""
        if "kept" in event.body:
            shutil.rmtree(self.folder / event.body["kept"], ignore_errors=True)

    def late(self) -> list[Event]:
        """Return the artifacts that were put off."""
        return _read(self._late_path, 0, sys.maxsize)

    def set_late(self, events: Sequence[Event]) -> None:
        """Replace the artifacts that were put off."""
        if events:
            write_text("".join(map(_line, events)), self._late_path)
        else:
            self._late_path.unlink(missing_ok=True)

    @property
    def num_left(self) -> int:
        """Events that the store does not have."""
        return len(self.unsent(sys.maxsize)) + len(self.late())

    @property
    def has_ended(self) -> bool:
        """Whether the last thing that was logged is the run's end."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            last = _parse(stream.read().splitlines(keepends=True)[-1], size) if size else None
            return last is not None and last.kind == "end"
        return False

    def is_abandoned(self) -> bool:
        """Whether the training is gone without having said how it ended."""
        if self.has_ended or not self._path.exists():
            return False
        try:
            with self.writer_lock.acquire(timeout=0):
                return not self.has_ended
        except Timeout:
            return False

    @property
    def trouble(self) -> str:
        """Why the last attempt to send failed; empty if it did not."""
        return self._trouble_path.read_text() if self._trouble_path.exists() else ""

    def note_trouble(self, reason: str) -> None:
        """Keep, or with an empty text forget, the reason why nothing can be sent."""
        if not reason:
            self._trouble_path.unlink(missing_ok=True)
        elif reason != self.trouble:
            self._trouble_path.write_text(reason)

    def _open(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        handle = os.open(self._path, flags, 0o644)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            os.write(handle, b"\n")
        return handle

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def close(self) -> None:
        """Let go of the file; appending opens it again."""
        with self._mutex:
            self._close()


def _line(event: Event) -> str:
    entry = {"kind": event.kind, "time_ms": event.time_ms, "body": event.body}
    return json.dumps(entry) + "\n"


def _read(path: Path, offset: int, limit: int) -> list[Event]:
    events: list[Event] = []
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        end = stream.seek(offset)
        for line in stream:
            end += len(line)
            event = _parse(line, end)
            if event is not None:
                events.append(event)
            if len(events) == limit:
                break
    return events


def _parse(line: bytes, end: int) -> Event | None:
    """Return the event of a line; None for a line that was torn by a kill or a full disk."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
        return Event(kind=found["kind"], time_ms=found["time_ms"], body=found["body"], end=end)
    except (ValueError, KeyError, TypeError):
        return None
