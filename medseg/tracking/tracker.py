"""Follows one run: takes what is logged in microseconds, never raises, never waits for a store."""

import contextlib
import shlex
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from medseg.core.errors import MedsegError, WriteError
from medseg.runtime.console import say
from medseg.tracking.checkpoints import DATA_FOLDER, MODEL_FILE
from medseg.tracking.fields import Names, flat_params, tag_texts, valid_name
from medseg.tracking.kept import keep_files, keep_text
from medseg.tracking.outbox import Outbox
from medseg.tracking.record import claim_record, note_unsent, read_record
from medseg.tracking.sender import start_sender
from medseg.tracking.spool import Spool
from medseg.tracking.store import store_uri, without_password
from medseg.tracking.vitals import Vitals

Status = Literal["FINISHED", "FAILED", "KILLED"]

# What is logged beside the checkpoint, where it is there: files that other programs read.
_SIDE_FILES = ("plan.json", "labels.json", "labels.ctbl", "labels.txt")
_VITALS_EVERY_S = 10.0
# A sender that looks whether the training is alive holds the writer's lock for an instant.
_WRITER_LOCK_S = 2.0


class Tracker:
    """One MLflow run. Everything logged goes to the spool; a process of its own sends it.

    Made by `open_tracker`; without a folder it does nothing.
    """

    def __init__(
        self,
        folder: Path | None = None,
        spool: Spool | None = None,
        sender: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._folder = folder
        self._spool = spool
        self._sender = sender
        self._names = Names()
        self._lost = 0
        self._run_id: str | None = None
        self._vitals = Vitals(self._log_vitals, _VITALS_EVERY_S) if spool else None

    @property
    def run_id(self) -> str | None:
        """The store's id of the run; None until the store has answered, and when switched off."""
        if self._run_id is None and self._folder is not None:
            with contextlib.suppress(MedsegError):
                record = read_record(self._folder)
                self._run_id = record.run_id if record else None
        return self._run_id

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log settings; nested ones are flattened, paths and ids replaced by digests."""
        self._append("params", lambda: {"values": flat_params(values)})

    def log_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Log a point of several curves."""
        self._append(
            "metrics",
            lambda: {
                "values": {self._names(name): float(value) for name, value in values.items()},
                "step": int(step),
            },
        )

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set tags of the run; a later value takes the place of an earlier one."""
        self._append("tags", lambda: {"values": tag_texts(values)})

    def log_file(self, path: Path, folder: str = "") -> None:
        """Log a file as it is now.

        Args:
            path: the file.
            folder: where it goes among the run's artifacts.
        """
        where = valid_name(folder) if folder else ""
        self._append(
            "file",
            lambda: {"kept": keep_files(self._spool_folder, {path.name: path}), "folder": where},
        )

    def log_text(self, text: str, name: str) -> None:
        """Log a text as an artifact, such as `config.yaml` or `figures/legend.txt`."""
        folder, _, file = valid_name(name).rpartition("/")
        self._append(
            "file",
            lambda: {"kept": keep_text(self._spool_folder, text, file), "folder": folder},
        )

    def log_model(self, folder: Path, *, name: str = "model") -> None:
        """Log the checkpoint in a folder as a model that `mlflow.pyfunc.load_model` loads.

        Args:
            folder: holds `model.pt`, and perhaps the plan and label files beside it.
            name: of the model among the run's models.
        """
        beside = [file for file in _SIDE_FILES if (folder / file).exists()]
        files = {f"{DATA_FOLDER}/{file}": folder / file for file in (MODEL_FILE, *beside)}
        self._append(
            "model",
            lambda: {"kept": keep_files(self._spool_folder, files), "name": valid_name(name)},
        )

    def close(self, status: Status, *, wait_s: float = 10.0) -> None:
        """End the run, and wait a while for the store to take what is still in the spool.

        Args:
            status: how the run ended.
            wait_s: wait no longer than this. The sender then goes on alone while the store takes
                events; what it does not take stays in the spool for `medseg doctor --replay`.
        """
        if self._spool is None or self._folder is None:
            return
        if self._vitals is not None:
            self._vitals.stop()
        self._append("end", lambda: {"status": status})
        self._spool.close()
        self._spool.writer_lock.release()
        self._spool = None
        try:
            message = _outcome(self._sender, wait_s, self._folder)
        except (OSError, MedsegError) as fault:
            message = f"tracking: {fault}"
        if message:
            say(message, error=True)

    def _append(self, kind: str, body: Callable[[], Mapping[str, Any]]) -> None:
        """Append an event; what cannot be written down is counted, never raised."""
        if self._spool is None:
            return
        try:
            self._spool.append(kind, body())
        except (OSError, TypeError, ValueError, MedsegError) as fault:
            self._lost += 1
            if self._lost == 1:
                say(f"tracking: {kind} not logged: {fault}", error=True)

    def _log_vitals(self, values: Mapping[str, float], step: int) -> None:
        self._append("metrics", lambda: {"values": dict(values), "step": step})

    @property
    def _spool_folder(self) -> Path:
        if self._spool is None:
            raise ValueError("the run has ended")
        return self._spool.folder


def open_tracker(
    *,
    uri: str | None,
    experiment: str,
    run_name: str,
    folder: Path,
    parent: str | None = None,
    enabled: bool = True,
) -> Tracker:
    """Begin to track a run, or go on with the run that the folder holds.

    Args:
        uri: of the store; None: `MLFLOW_TRACKING_URI`, else SQLite in the home folder.
        experiment: name of the MLflow experiment; made when it is not there.
        run_name: name of the run.
        folder: of the run; `tracking.json` and `spool/` are kept in it.
        parent: folder of the sweep this run belongs to. The first job to name it makes the parent
            run, the others find it.
        enabled: False gives a tracker that does nothing.

    Returns:
        A tracker, in well under a second and whatever state the store is in. Where the folder
        cannot be written it does nothing, and has said so.
    """
    if not enabled:
        return Tracker()
    full_uri = store_uri(uri)
    safe_uri = without_password(full_uri)
    try:
        sweep = Path(parent) if parent else None
        if sweep is not None:
            claim_record(sweep, uri=safe_uri, experiment=experiment, run_name=sweep.name)
        record = claim_record(
            folder, uri=safe_uri, experiment=experiment, run_name=run_name, parent=sweep
        )
        spool = _claimed_spool(folder)
        note_unsent(record.key, folder)
        return Tracker(folder, spool, _started(folder, full_uri))
    except (OSError, MedsegError) as fault:
        say(f"tracking is off for this run: {fault}", error=True)
        return Tracker()


def _claimed_spool(folder: Path) -> Spool:
    spool = Spool(folder)
    spool.folder.mkdir(parents=True, exist_ok=True)
    try:
        spool.writer_lock.acquire(timeout=_WRITER_LOCK_S)
    except Timeout as held:
        raise WriteError(
            f"{folder}: another process is tracking its run there", code="TRK-003"
        ) from held
    spool.append("start", {})
    return spool


def _started(folder: Path, uri: str) -> subprocess.Popen[bytes] | None:
    try:
        return start_sender(folder, uri)
    except OSError as fault:
        # The spool is written all the same, and can be replayed.
        say(f"tracking: no process to send from: {fault}", error=True)
        return None


def _outcome(sender: subprocess.Popen[bytes] | None, wait_s: float, folder: Path) -> str:
    """Wait for the sender; return what to tell the user, nothing when all was sent."""
    outbox = Outbox(folder)
    replay = f"medseg doctor --replay {shlex.quote(str(folder))}"
    if sender is not None:
        try:
            if sender.wait(wait_s) == 0:
                return ""
        except subprocess.TimeoutExpired:
            # Somebody must take note of its end, or it stays a zombie as long as we live.
            threading.Thread(target=sender.wait, name="medseg-sender-end", daemon=True).start()
            if not outbox.trouble:
                return (
                    f"tracking: {outbox.num_left} events are still on their way to the store; "
                    f"should they not arrive: {replay}"
                )
    reason = f" ({outbox.trouble})" if outbox.trouble else ""
    return f"tracking: {outbox.num_left} events are not in the store{reason}; send them: {replay}"
