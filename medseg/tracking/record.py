"""Which MLflow run belongs to a folder: `tracking.json`, written once, continued on resuming."""

import os
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from medseg.core.errors import ReadError
from medseg.runtime.files import read_json, write_json
from medseg.runtime.home import home

_FILE = "tracking.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as its folder knows it, whether or not the store could be reached yet.

    Args:
        key: drawn here; the store's run carries it as a tag, so that a run is never made twice.
        uri: of the store, without a password.
        experiment: name of the experiment.
        run_name: name of the run.
        started_ms: when it began, in milliseconds since 1970.
        parent: folder of the sweep it belongs to, relative to this one.
        run_id: the store's id; None until the store answered.
    """

    key: str
    uri: str
    experiment: str
    run_name: str
    started_ms: int
    parent: str | None = None
    run_id: str | None = None

    def with_run_id(self, run_id: str) -> "RunRecord":
        """Return the record of a run that the store has made."""
        return replace(self, run_id=run_id)


def read_record(folder: Path) -> RunRecord | None:
    """Return the record in a run's folder; None where there is none.

    Raises:
        ReadError: it is there but cannot be trusted.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    found = read_json(path, kind=ReadError, what="a tracking record")
    try:
        return RunRecord(**found)
    except TypeError as fault:
        raise ReadError(f"{path}: is not a tracking record: {fault}", code="TRK-002") from fault


def write_record(record: RunRecord, folder: Path) -> None:
    """Write the record into a run's folder."""
    write_json(asdict(record), folder / _FILE)


def claim_record(
    folder: Path, *, uri: str, experiment: str, run_name: str, parent: Path | None = None
) -> RunRecord:
    """Return the folder's record; the first of several processes to ask writes it.

    A run that the store knows stays in that store; one that it does not know yet may still change
    its store (say, because the first one never answered).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".tracking.lock", timeout=30):
        found = read_record(folder)
        if found is not None and (found.run_id is not None or found.uri == uri):
            return found
        record = RunRecord(
            key=found.key if found else uuid.uuid4().hex,
            uri=uri,
            experiment=experiment,
            run_name=run_name,
            started_ms=found.started_ms if found else time.time_ns() // 1_000_000,
            parent=os.path.relpath(parent, folder) if parent else None,
        )
        write_record(record, folder)
        return record


def note_unsent(key: str, folder: Path) -> None:
    """Note in the home folder that this run's spool holds events which the store lacks."""
    write_json({"folder": str(folder.absolute())}, _note_path(key))


def forget_unsent(key: str) -> None:
    """Forget the note: everything was sent."""
    _note_path(key).unlink(missing_ok=True)


def unsent_folders() -> list[Path]:
    """Return the run folders whose spools were left with events in them."""
    found = []
    for note in sorted((home() / "spools").glob("*.json")):
        folder = Path(read_json(note, kind=ReadError, what="a note about a spool")["folder"])
        if folder.exists():
            found.append(folder)
    return found


def _note_path(key: str) -> Path:
    return home() / "spools" / f"{key}.json"
