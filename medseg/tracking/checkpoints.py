"""From what a user calls a checkpoint (a path, a run's model, a registered model) to its file."""

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.core.errors import CheckpointError
from medseg.runtime.home import home
from medseg.tracking.store import brief, client_settings, open_client, sqlite_path, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_FILE = "model.pt"
# Name of the folder that MLflow is given as a model's data; it puts it under data/.
DATA_FOLDER = "checkpoint"
_RUN = re.compile(r"runs:/+(?P<run>[\w-]+)/(?P<name>[^/]+)(?P<rest>/.+)?")
_ALIAS = re.compile(r"models:/+(?P<name>[^/@]+)@(?P<alias>[\w-]+)")
_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)/(?P<version>\d+)")
_LOGGED = re.compile(r"models:/+(?P<model>m-[\w-]+)")


def resolve_checkpoint(text: str, *, uri: str | None = None) -> Path:
    """Return the local path of the checkpoint a user named.

    Args:
        text: path of `model.pt` or of a folder that holds it, `runs:/RUN_ID/NAME`,
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: of the MLflow store; None: as `open_tracker` takes it.

    Returns:
        The file; one that only a server has is downloaded into the home folder.

    Raises:
        CheckpointError: nothing there, or the store does not answer.
    """
    if not text.startswith(("runs:/", "models:/")):
        return _file_in(Path(text).expanduser(), text)
    full_uri = store_uri(uri)
    database = sqlite_path(full_uri)
    if database is not None and not database.exists():
        raise CheckpointError(
            f"checkpoint={text}: there is no MLflow store at {database}",
            hint="set MLFLOW_TRACKING_URI or MEDSEG_HOME to where the run was tracked",
        )
    with client_settings():
        from mlflow.exceptions import MlflowException

        try:
            return _fetched(open_client(full_uri), text, full_uri)
        except (MlflowException, OSError, ImportError) as fault:
            raise CheckpointError(
                f"checkpoint={text}: the MLflow store gives no such model: {brief(fault)}",
                hint="check the name in the MLflow UI, and MLFLOW_TRACKING_URI",
            ) from fault


def _fetched(client: "MlflowClient", text: str, uri: str) -> Path:
    from mlflow.artifacts import download_artifacts

    location = _location(client, text)
    if location.startswith(("/", "file:")):
        return _file_in(Path(download_artifacts(artifact_uri=location)), text)
    folder = home() / "models" / hashlib.sha256(location.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        found = _file_in(
            Path(download_artifacts(artifact_uri=location, dst_path=scratch, tracking_uri=uri)),
            text,
        )
        # Whole or absent, also when two processes fetch the same model.
        return found.replace(folder / MODEL_FILE)


def _location(client: "MlflowClient", text: str) -> str:
    """Return where the store keeps what the text names."""
    if found := _RUN.fullmatch(text):
        return _location_in_run(client, found["run"], found["name"], found["rest"] or "")
    if found := _LOGGED.fullmatch(text):
        return str(client.get_logged_model(found["model"]).artifact_location)
    if found := _ALIAS.fullmatch(text):
        version = str(client.get_model_version_by_alias(found["name"], found["alias"]).version)
    elif found := _VERSION.fullmatch(text):
        version = found["version"]
    else:
        raise CheckpointError(
            f"checkpoint={text}: is not a name of a model",
            hint="write runs:/RUN_ID/NAME, models:/NAME@ALIAS or models:/NAME/VERSION",
        )
    source = str(client.get_model_version_download_uri(found["name"], version))
    # A version registered from a run's model names that model.
    return _location(client, source) if source.startswith(("models:/", "runs:/")) else source


def _location_in_run(client: "MlflowClient", run_id: str, name: str, rest: str) -> str:
    info = client.get_run(run_id).info
    models = client.search_logged_models(
        [info.experiment_id],
        filter_string=f"source_run_id = '{run_id}'",
        order_by=[{"field_name": "creation_time", "ascending": False}],
    )
    for model in models:
        if model.name == name:
            return f"{model.artifact_location}{rest}"
    # Not a logged model: a file among the run's own artifacts.
    return f"{info.artifact_uri}/{name}{rest}"


def _file_in(path: Path, text: str) -> Path:
    if path.is_file():
        return path
    for candidate in (path / MODEL_FILE, path / "data" / DATA_FOLDER / MODEL_FILE):
        if candidate.is_file():
            return candidate
    found = f"a folder without {MODEL_FILE}" if path.is_dir() else "no such file"
    raise CheckpointError(
        f"checkpoint={text}: {found}",
        code="CKP-001",
        hint=f"name the {MODEL_FILE} of a training, runs:/RUN_ID/NAME or models:/NAME@ALIAS",
    )
