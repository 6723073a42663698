"""Sends a run's spool to the store, from a process of its own beside the training.

A process, not a thread: importing MLflow alone takes two seconds of the interpreter, and a store
that hangs must hang somebody else.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from medseg.core.errors import MedsegError, ReadError
from medseg.tracking.kept import kept_folder, release
from medseg.tracking.outbox import Outbox
from medseg.tracking.record import forget_unsent, read_record
from medseg.tracking.spool import Event, Spool
from medseg.tracking.store import (
    brief,
    client_environment,
    client_settings,
    open_client,
    with_password,
)

if TYPE_CHECKING:
    from medseg.tracking.runs import MlflowRun

_POLL_S = 0.5
_SEND_EVERY_S = 2.0
_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
# A resumed run may start while the sender of the one before is still busy.
_PREDECESSOR_S = 600.0
# What MLflow says to an event it will not take however often it comes.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})
# Below the training in priority, so that it costs nothing while the training computes.
_NICENESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What came of sending a spool.

    Args:
        num_sent: events that the store took now.
        num_left: events that stay in the spool.
        reason: why they stay; empty when none do.
    """

    num_sent: int
    num_left: int
    reason: str


class Sender:
    """Brings one spool to one store; keeps its connection between deliveries."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self.outbox = Outbox(folder)
        self._folder = folder
        self._run: MlflowRun | None = None

    def deliver(self) -> Delivery:
        """Send whatever can be sent now. Call inside `client_settings`, with the sender's lock."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        num_sent = 0
        reason = ""
        try:
            run = self._opened()
            for group in self._groups():
                self._send(run, group)
                self.outbox.mark_sent(group[-1])
                num_sent += len(group)
            if self.spool.has_ended:
                reason = self._send_late(run)
        except (MlflowException, SQLAlchemyError, MedsegError, OSError) as fault:
            reason = brief(fault)
        self.outbox.note_trouble(reason)
        record = read_record(self._folder)
        num_left = self.outbox.num_left
        if record is not None and self.spool.has_ended and not num_left:
            forget_unsent(record.key)
        return Delivery(num_sent=num_sent, num_left=num_left, reason=reason)

    def _opened(self) -> "MlflowRun":
        from medseg.tracking.runs import open_run

        if self._run is None:
            record = read_record(self._folder)
            if record is None:
                raise ReadError(f"{self._folder}: holds no tracking.json", code="TRK-001")
            uri = with_password(record.uri)
            self._run = open_run(open_client(uri), self._folder, uri)
        return self._run

    def _groups(self) -> Iterator[list[Event]]:
        """Yield the unsent events: what may share a request together, the others one by one."""
        from medseg.tracking.runs import BATCHED

        while events := self.outbox.unsent():
            batch: list[Event] = []
            for event in events:
                if event.kind in BATCHED:
                    batch.append(event)
                    continue
                if batch:
                    yield batch
                batch = []
                yield [event]
            if batch:
                yield batch

    def _send(self, run: "MlflowRun", group: Sequence[Event]) -> None:
        """Send a group; what the store will never take is named in the log and passed over."""
        from mlflow.exceptions import MlflowException

        if "kept" in group[0].body:
            fault = _fault_of_artifact(run, group[0], self.spool.folder)
            if fault is not None:
                # Is it the store that is down, or only this artifact that cannot be stored?
                run.require_active()
                self.outbox.set_late([*self.outbox.late(), *group])
            return
        try:
            run.send(group, self.spool.folder)
        except MlflowException as fault:
            if fault.error_code not in _REFUSALS:
                raise
            run.require_active()
            if len(group) == 1:
                sys.stderr.write(f"refused by the store: {group[0]}: {brief(fault)}\n")
                return
            for event in group:
                self._send(run, [event])

    def _send_late(self, run: "MlflowRun") -> str:
        """Try the artifacts that were put off once more; return why some still stay."""
        left, reason = [], ""
        for event in self.outbox.late():
            fault = _fault_of_artifact(run, event, self.spool.folder)
            if fault is not None:
                left.append(event)
                reason = f"artifacts cannot be stored: {brief(fault)}"
        self.outbox.set_late(left)
        return reason


def replay(folder: Path) -> Delivery:
    """Send what a run left in its spool; what the store has already is not sent again.

    A run whose training died without a word ends as KILLED.

    Args:
        folder: the run's folder.

    Raises:
        ReadError: it holds no tracking record.
    """
    if read_record(folder) is None:
        raise ReadError(
            f"{folder}: holds no tracking.json", code="TRK-001", hint="name the folder of a run"
        )
    sender = Sender(folder)
    try:
        with client_settings(), sender.outbox.lock.acquire(timeout=0):
            _end_if_abandoned(sender.spool)
            return sender.deliver()
    except Timeout:
        return Delivery(
            num_sent=0,
            num_left=sender.outbox.num_left,
            reason="another process is sending it just now",
        )


def start_sender(folder: Path, uri: str) -> subprocess.Popen[bytes]:
    """Start the process that follows a run's spool until the run ends.

    Args:
        folder: the run's folder.
        uri: of the store, with its password if it has one; handed over by environment.

    Raises:
        OSError: no process can be started.
    """
    with (Spool(folder).folder / "sender.log").open("ab") as log:
        return subprocess.Popen(
            # -P: no module of the folder we run in may pass for one of MLflow's.
            [sys.executable, "-P", "-m", "medseg.tracking.sender", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**client_environment(), "MLFLOW_TRACKING_URI": uri},
            # Ctrl-C is for the training, which says how it ended.
            start_new_session=True,
        )


def main(argv: Sequence[str]) -> int:
    """Follow the spool in the folder named, until its run has ended; 1 if something is left."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    # A scheduler signals every process of a job; this one is still to say that the run was killed.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sender = Sender(Path(argv[0]))
    try:
        with sender.outbox.lock.acquire(timeout=_PREDECESSOR_S):
            return _follow(sender)
    except Timeout:
        return 1


def _follow(sender: Sender) -> int:
    failures = 0
    while True:
        _end_if_abandoned(sender.spool)
        last_call = sender.spool.has_ended
        delivery = sender.deliver()
        failures = failures + 1 if delivery.reason else 0
        if last_call:
            return 1 if delivery.num_left else 0
        pause_s = _PAUSES_S[min(failures, len(_PAUSES_S)) - 1] if failures else _SEND_EVERY_S
        _wait(sender.spool, pause_s)


def _wait(spool: Spool, pause_s: float) -> None:
    """Wait, but not past the end of the run or of the training."""
    until = time.monotonic() + pause_s
    while time.monotonic() < until and not spool.has_ended and not spool.is_abandoned():
        time.sleep(_POLL_S)


def _end_if_abandoned(spool: Spool) -> None:
    if spool.is_abandoned():
        spool.append("end", {"status": "KILLED"})
        spool.close()


def _fault_of_artifact(run: "MlflowRun", event: Event, folder: Path) -> BaseException | None:
    """Send a file or a model; return what went wrong, and let go of the files if nothing did.

    Artifact stores are plugins (S3, Azure, ...) that raise whatever they like, or are not
    installed: a thread hands its fault over as a value.
    """
    if not kept_folder(folder, event).exists():
        sys.stderr.write(f"gone before it was sent: {event}\n")
        return None
    with ThreadPoolExecutor(max_workers=1) as plugin:
        fault = plugin.submit(run.send, [event], folder).exception()
    if fault is None:
        release(folder, event)
    return fault


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
