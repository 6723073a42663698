"""What each spooled event becomes in MLflow; sent twice, it still counts once."""

import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import (
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from medseg import __version__
from medseg.core.errors import ReadError
from medseg.tracking.checkpoints import DATA_FOLDER
from medseg.tracking.fields import MAX_TAG, TEST_SPLIT_TAG, cut, valid_name
from medseg.tracking.kept import kept_folder
from medseg.tracking.record import RunRecord, read_record, write_record
from medseg.tracking.spool import Event
from medseg.tracking.store import experiment_id

BATCHED = frozenset({"params", "metrics", "tags"})
KEY_TAG = "medseg.key"
PARENT_TAG = "mlflow.parentRunId"
# How many runs had looked at the test split of a manifest by the end of this one.
_LOOKS_TAG = "test_split_looks"
# MLflow's limits for one request.
_METRICS_A_BATCH = 1000
_TEXTS_A_BATCH = 100
_LOADER = "medseg.inference.pyfunc"
# What `_LOADER` needs to segment a scan; written by hand, since MLflow would import and guess.
_REQUIREMENTS = (
    "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "highdicom", "pandas",
)  # fmt: skip


class MlflowRun:
    """One run in the store, and how events are written to it."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.run_id = str(run.info.run_id)
        self._client = client
        self._experiment_id = str(run.info.experiment_id)
        self._parent_id = run.data.tags.get(PARENT_TAG)
        self._params: dict[str, str] = dict(run.data.params)

    def send(self, events: Sequence[Event], spool_folder: Path) -> None:
        """Write events that are all of a batched kind, or a single one of another kind.

        Raises:
            MlflowException: the store refuses them, or does not answer.
            OSError: an artifact cannot be copied or uploaded.
        """
        if events[0].kind in BATCHED:
            self._send_batch(events)
            return
        (event,) = events
        if event.kind == "start":
            self._start()
        elif event.kind == "file":
            self._send_file(event, spool_folder)
        elif event.kind == "model":
            self._send_model(event, spool_folder)
        elif event.kind == "end":
            self._end(event)

    def require_active(self) -> None:
        """Ask the store for the run.

        Raises:
            MlflowException: the store does not answer, or the run was deleted there.
        """
        _require_active(self._client.get_run(self.run_id))

    def _send_batch(self, events: Sequence[Event]) -> None:
        tags: dict[str, str] = {}
        params: dict[str, str] = {}
        metrics: list[Metric] = []
        for event in events:
            if event.kind == "metrics":
                step = event.body["step"]
                metrics += [
                    Metric(name, value, event.time_ms, step)
                    for name, value in event.body["values"].items()
                ]
            elif event.kind == "tags":
                tags.update(event.body["values"])
            else:
                self._sort_params(event.body["values"], params, tags)
        for some in _pieces(list(params.items()), _TEXTS_A_BATCH):
            self._client.log_batch(self.run_id, params=[Param(*pair) for pair in some])
        for some in _pieces(list(tags.items()), _TEXTS_A_BATCH):
            self._client.log_batch(self.run_id, tags=[RunTag(*pair) for pair in some])
        for points in _pieces(metrics, _METRICS_A_BATCH):
            # The store keeps a point once, by (name, time, step, value).
            self._client.log_batch(self.run_id, metrics=points)
        self._params.update(params)

    def _sort_params(
        self, values: Mapping[str, str], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        """MLflow never changes a parameter; what a resumed run changes is kept as a tag."""
        known = {**self._params, **params}
        for key, value in values.items():
            if key not in known:
                params[key] = value
            elif known[key] != value:
                tags[valid_name(f"resumed.{key}")] = cut(value, MAX_TAG)

    def _start(self) -> None:
        self._client.update_run(self.run_id, status="RUNNING")
        if self._parent_id:
            self._client.update_run(self._parent_id, status="RUNNING")

    def _end(self, event: Event) -> None:
        self._client.set_terminated(self.run_id, event.body["status"], event.time_ms)
        self._count_looks()
        if self._parent_id:
            self._settle_parent(event.time_ms)

    def _count_looks(self) -> None:
        """A test split that is looked at again and again is a validation split: count it."""
        run = self._client.get_run(self.run_id)
        if split := run.data.tags.get(TEST_SPLIT_TAG):
            looks = self._client.search_runs(
                [self._experiment_id],
                filter_string=f"tags.{TEST_SPLIT_TAG} = '{split}' "
                f"and attributes.start_time <= {run.info.start_time}",
                max_results=10_000,
            )
            self._client.set_tag(self.run_id, _LOOKS_TAG, len(looks))

    def _settle_parent(self, time_ms: int) -> None:
        """A sweep has ended when no child runs any more; it failed if one of them did."""
        children = self._client.search_runs(
            [self._experiment_id],
            filter_string=f"tags.`{PARENT_TAG}` = '{self._parent_id}'",
            max_results=10_000,
        )
        found = {child.info.status for child in children}
        if "RUNNING" not in found:
            worst = next((status for status in ("FAILED", "KILLED") if status in found), "FINISHED")
            self._client.set_terminated(self._parent_id, worst, time_ms)

    def _send_file(self, event: Event, spool_folder: Path) -> None:
        for path in sorted(kept_folder(spool_folder, event).iterdir()):
            self._client.log_artifact(self.run_id, str(path), event.body["folder"] or None)

    def _send_model(self, event: Event, spool_folder: Path) -> None:
        name = event.body["name"]
        model = self._logged_model(name, event.body["kept"])
        data = kept_folder(spool_folder, event) / DATA_FOLDER
        with tempfile.TemporaryDirectory(dir=spool_folder) as scratch:
            files = Path(scratch) / "model"
            described = Model(
                artifact_path=name,
                run_id=self.run_id,
                model_uuid=model.model_id,
                model_id=model.model_id,
            )
            save_model(data, files, described)
            self._client.log_model_artifacts(model.model_id, str(files))
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _logged_model(self, name: str, token: str) -> Any:
        """Return the model of this event, made unless an earlier attempt got that far."""
        found = self._client.search_logged_models(
            [self._experiment_id],
            filter_string=f"source_run_id = '{self.run_id}' AND tags.event = '{token}'",
        )
        if found:
            return found[0]
        return self._client.create_logged_model(
            self._experiment_id, name=name, source_run_id=self.run_id, tags={"event": token}
        )


def open_run(client: MlflowClient, folder: Path, uri: str) -> MlflowRun:
    """Return the run of a folder, made in the store unless it is there; likewise its sweep's.

    Raises:
        MlflowException: the store does not answer, or holds the run as deleted.
        ReadError: the folder holds no tracking record.
    """
    record = read_record(folder)
    if record is None:
        raise ReadError(
            f"{folder}: holds no tracking.json", code="TRK-001", hint="name the folder of a run"
        )
    tags = {KEY_TAG: record.key, "medseg.version": __version__}
    if record.parent is not None:
        sweep = (folder / record.parent).resolve()
        # Several children may come at once.
        with FileLock(sweep / ".tracking.lock", timeout=60):
            tags[PARENT_TAG] = open_run(client, sweep, uri).run_id
    run = _find_run(client, record, uri) or client.create_run(
        experiment_id(client, record.experiment, uri),
        start_time=record.started_ms,
        tags=tags,
        run_name=record.run_name,
    )
    if record.run_id is None:
        write_record(record.with_run_id(str(run.info.run_id)), folder)
    return MlflowRun(client, run)


def _find_run(client: MlflowClient, record: RunRecord, uri: str) -> Run | None:
    if record.run_id is not None:
        run = client.get_run(record.run_id)
    else:
        # It may have been made by an attempt that did not live to hear the answer.
        runs = client.search_runs(
            [experiment_id(client, record.experiment, uri)],
            filter_string=f"tags.`{KEY_TAG}` = '{record.key}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        if not runs:
            return None
        run = runs[0]
    _require_active(run)
    return run


def _require_active(run: Run) -> None:
    if run.info.lifecycle_stage == "deleted":
        raise MlflowException(f"run {run.info.run_id} was deleted in the store; restore it there")


def save_model(data: Path, folder: Path, described: Model) -> None:
    """Write a folder that `mlflow.pyfunc.load_model` loads, without a pickle in it.

    Args:
        data: what the loader is given: the folder with the checkpoint.
        folder: to write.
        described: the ids the model carries.
    """
    with warnings.catch_warnings():
        # An example of a scan would be a patient's.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=_LOADER,
            data_path=str(data),
            signature=signature(),
            pip_requirements=requirements(),
            mlflow_model=described,
        )


def signature() -> ModelSignature:
    """Paths of scans in, paths of masks out; `output` names the folder the masks go to."""
    return ModelSignature(
        # Without a name, so that MLflow takes a plain list as well as a table of any heading.
        inputs=Schema([ColSpec(DataType.string)]),
        outputs=Schema([ColSpec(DataType.string, "mask")]),
        params=ParamSchema(
            [
                ParamSpec("output", DataType.string, ""),
                ParamSpec("suffix", DataType.string, ".nii.gz"),
            ]
        ),
    )


def requirements() -> list[str]:
    """Return what the logged model needs, pinned to what is installed here."""
    pins = [f"medseg=={__version__}"]
    for name in _REQUIREMENTS:
        try:
            # A build tag such as +cpu names this machine's wheel, not what the model needs.
            pins.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            sys.stderr.write(f"{name} is not installed: left out of the model's requirements\n")
    return pins


def _pieces(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
