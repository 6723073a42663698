"""The sender's side of the spool: what the store lacks, and why."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from medseg.core.errors import ReadError
from medseg.runtime.files import read_json, write_json, write_text
from medseg.tracking.spool import Event, event_of, line_of


class Outbox:
    """What of a run's spool is still to be sent. See `spool` for its files."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / "spool"
        # Held by whoever sends: two senders would send everything twice.
        self.lock = FileLock(self.folder / "sender.lock")
        self._spool_path = self.folder / "spool.jsonl"
        self._offset_path = self.folder / "offset.json"
        self._late_path = self.folder / "late.jsonl"
        self._trouble_path = self.folder / "trouble.txt"

    def unsent(self, limit: int = 1000) -> list[Event]:
        """Return the oldest events that the store does not have, skipping torn lines."""
        return _read(self._spool_path, self._offset(), limit)

    def mark_sent(self, event: Event) -> None:
        """Remember that the store has everything up to and with this event."""
        write_json({"bytes": event.end}, self._offset_path)

    def late(self) -> list[Event]:
        """Return the artifacts that were put off."""
        return _read(self._late_path, 0, sys.maxsize)

    def set_late(self, events: Sequence[Event]) -> None:
        """Replace the artifacts that were put off."""
        if events:
            write_text("".join(map(line_of, events)), self._late_path)
        else:
            self._late_path.unlink(missing_ok=True)

    @property
    def num_left(self) -> int:
        """Events that the store does not have."""
        return len(self.unsent(sys.maxsize)) + len(self.late())

    @property
    def trouble(self) -> str:
        """Why the last attempt to send failed; empty if it did not."""
        return self._trouble_path.read_text() if self._trouble_path.exists() else ""

    def note_trouble(self, reason: str) -> None:
        """Keep, or with an empty text forget, the reason why nothing can be sent."""
        if not reason:
            self._trouble_path.unlink(missing_ok=True)
        elif reason != self.trouble:
            write_text(reason, self._trouble_path)

    def _offset(self) -> int:
        if not self._offset_path.exists():
            return 0
        return int(read_json(self._offset_path, kind=ReadError, what="a spool offset")["bytes"])


def _read(path: Path, offset: int, limit: int) -> list[Event]:
    events: list[Event] = []
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        end = stream.seek(offset)
        for line in stream:
            end += len(line)
            event = event_of(line, end)
            if event is not None:
                events.append(event)
            if len(events) == limit:
                break
    return events
