"""The MLflow store: where it is, made and migrated once, and asked with short patience."""

import os
import re
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from medseg.runtime.home import home

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
# Making a store takes seconds; longer than this and whoever holds the lock hangs.
_STORE_LOCK_S = 180.0
# For our client only. MLflow's own patience is seven retries of 120 s; ours is the sender's loop.
_CLIENT_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "45",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def store_uri(asked: str | None) -> str:
    """Return the store asked for, else `MLFLOW_TRACKING_URI`, else SQLite in the home folder."""
    uri = asked or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(home() / "mlflow.db")
    database = sqlite_path(uri)
    # A replay may come from another folder.
    return sqlite_uri(database) if database and not database.is_absolute() else uri


def sqlite_uri(database: Path) -> str:
    """Return the URI of an SQLite file, whatever characters its path holds."""
    text = database.absolute().as_posix()
    return _SQLITE + text.replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """Return the file behind an SQLite URI; None for any other store."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0]))


def without_password(uri: str) -> str:
    """Return the URI as it may be written down: `user:password@` is left out."""
    return re.sub(r"(?<=://)[^/@]*:[^/@]*@", "", uri)


def with_password(recorded_uri: str) -> str:
    """Return the URI to use for a recorded one: `MLFLOW_TRACKING_URI` may add a password to it."""
    full = os.environ.get("MLFLOW_TRACKING_URI", "")
    return full if full and without_password(full) == recorded_uri else recorded_uri


def client_environment() -> dict[str, str]:
    """Return the environment in which a process of ours may import MLflow."""
    return {**os.environ, **_CLIENT_SETTINGS}


@contextmanager
def client_settings() -> Iterator[None]:
    """Give this process that environment while the block runs; MLflow is imported inside it."""
    before = {name: os.environ.get(name) for name in _CLIENT_SETTINGS}
    os.environ.update(_CLIENT_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def open_client(uri: str) -> "MlflowClient":
    """Return a client; an SQLite store is made, or migrated after a backup, by one process.

    Call inside `client_settings`.

    Raises:
        MlflowException: no such kind of store, or one that cannot be opened.
        OSError: the lock or the folder of the store cannot be had.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    database = sqlite_path(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock", timeout=_STORE_LOCK_S):
        try:
            return MlflowClient(tracking_uri=uri)
        except MlflowException as fault:
            if "out-of-date database schema" not in str(fault):
                raise
            _migrate(uri, database)
            return MlflowClient(tracking_uri=uri)


def experiment_id(client: "MlflowClient", name: str, uri: str) -> str:
    """Return the id of the experiment, made when it is not there yet.

    Raises:
        MlflowException: the store does not answer, or holds the experiment as deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    database = sqlite_path(uri)
    # Beside the database; MLflow's default would be ./mlruns in whatever folder we run in.
    location = (database.absolute().parent / "mlartifacts").as_uri() if database else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as fault:
        # Another process was faster.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise fault from None
        return str(found.experiment_id)


def probe_store(uri: str, timeout_s: float = 3.0) -> str:
    """Ask a store whether it is there, without importing MLflow.

    Returns:
        `reachable`, or what is wrong.
    """
    database = sqlite_path(uri)
    if database is not None:
        return _probe_sqlite(database, timeout_s)
    if urlsplit(uri).scheme not in ("http", "https"):
        return "not probed (neither SQLite nor a server)"
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s) as answer:
            return "reachable" if answer.status == 200 else f"answers {answer.status}"
    except urllib.error.HTTPError as fault:
        return f"answers {fault.code}"
    except (OSError, ValueError) as fault:
        return f"does not answer: {getattr(fault, 'reason', fault)}"


def brief(fault: BaseException) -> str:
    """Return a fault as part of a line; MLflow nests its causes, the telling one last."""
    text = str(fault).strip().partition("\n")[0]
    short = text if len(text) <= 200 else f"{text[:80]} ... {text[-115:]}"
    return f"{type(fault).__name__}: {short}"


def _probe_sqlite(database: Path, timeout_s: float) -> str:
    if not database.exists():
        return "not there yet (made by the first run)"
    try:
        with closing(sqlite3.connect(database, timeout=timeout_s)) as connection:
            connection.execute("SELECT count(*) FROM experiments").fetchone()
    except sqlite3.Error as fault:
        return f"cannot be read: {fault}"
    return "reachable"


def _migrate(uri: str, database: Path) -> None:
    with (
        closing(sqlite3.connect(database)) as source,
        closing(sqlite3.connect(database.with_name(f"{database.name}.before-migration"))) as copy,
    ):
        source.backup(copy)
    subprocess.run(
        [sys.executable, "-P", "-m", "mlflow", "db", "upgrade", uri],
        check=True,
        capture_output=True,
        env=client_environment(),
    )
