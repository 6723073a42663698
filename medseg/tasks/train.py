"""`medseg train`: one network on one fold, from manifest and plan to `model.pt`."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from medseg.config import load_plugins, require, settings
from medseg.core.errors import CheckpointError, ConfigError
from medseg.core.fingerprint import Fingerprint
from medseg.core.plan import Plan
from medseg.data.manifest import Manifest, manifest_file, read_manifest
from medseg.data.splits import require_labelled
from medseg.planning.dataset import plan_dataset
from medseg.planning.measure import measured_cases
from medseg.planning.plan_file import (
    override,
    read_fingerprint,
    read_plan,
    write_fingerprint,
    write_plan,
)
from medseg.runtime.console import LiveProgress, say, table
from medseg.runtime.files import digest_json, write_json
from medseg.runtime.hardware import measure_hardware, pick_device
from medseg.runtime.home import home
from medseg.runtime.interrupt import interruption
from medseg.runtime.provenance import write_provenance
from medseg.runtime.runfolder import fresh_folder, locked
from medseg.tracking.fields import flat_params, job_name, job_tags
from medseg.tracking.tracker import Tracker, open_tracker
from medseg.training.job import Job
from medseg.training.progress import ProgressLine
from medseg.training.resume import require_same_training, training_identity
from medseg.training.run import Trained, Workplace, train
from medseg.training.settings import choices_of

# Validation cases drawn at the end of a training.
_NUM_OVERLAYS = 3


def main(config: Any) -> int:
    """Train as the settings of `conf/train.yaml` say."""
    chosen = settings(config)
    load_plugins(chosen["plugins"])
    path = manifest_file(
        Path(require(chosen, "manifest", "the manifest.json that medseg ingest wrote"))
    )
    manifest = read_manifest(path, data_root=chosen["data_root"] and Path(chosen["data_root"]))
    if chosen["training"]["pretrain"] is None:
        require_labelled(manifest)
    device = pick_device(chosen["device"])
    resume = bool(chosen["training"]["resume"])
    place = _place(chosen, manifest, resume=resume)
    folder = place.folder
    with locked(folder):
        plan, fingerprint = _plan_for(chosen, manifest, path.parent, folder, device, resume=resume)
        choices = choices_of(chosen, plan, device)
        tracker = _open_tracker(chosen, manifest, place)
        tracker.log_params(_logged(chosen, manifest, plan))
        tracker.log_text(json.dumps(flat_params(chosen), indent=2), "config.json")
        job = Job(manifest=manifest, plan=plan, choices=choices, fingerprint=fingerprint)
        trained, exit_code = run_training(
            job,
            folder=folder,
            cache=Path(chosen["cache"]) if chosen["cache"] else None,
            device=device,
            tracker=tracker,
            # A network that ends in images is nothing to load as a model that segments.
            log_model=chosen["mlflow"]["log_model"] and choices.pretrain is None,
            num_overlays=_NUM_OVERLAYS if chosen["mlflow"]["overlays"] else 0,
            resume=resume,
        )
    show_result(trained, folder)
    return exit_code


def run_training(
    job: Job,
    *,
    folder: Path,
    device: torch.device,
    cache: Path | None = None,
    tracker: Tracker | None = None,
    log_model: bool = True,
    num_overlays: int = 3,
    resume: bool = False,
) -> tuple[Trained, int]:
    """Train in a folder that is kept whole: plan, checkpoints, provenance, and the MLflow run.

    Args:
        job: what to train.
        folder: of the run.
        device: to train on.
        cache: of prepared cases; None: in the home folder.
        tracker: of the run, closed at the end; None tracks nothing.
        log_model: log the finished model, too.
        num_overlays: validation cases to draw at the end.
        resume: go on from what the folder holds.

    Returns:
        What the training came to, and the exit code: 0, or 128 + the signal that stopped it.
    """
    tracker = tracker or Tracker()
    try:
        identity = training_identity(job)
        if resume:
            require_same_training(folder, identity)
        with interruption() as asked, LiveProgress() as shown, _log_file(folder / "training.log"):
            _write_origin(folder, job, identity)
            trained = train(
                job,
                workplace=Workplace(
                    folder=folder,
                    cache=cache or home() / "cache",
                    device=device,
                    metrics=tracker,
                    progress=ProgressLine(shown=shown),
                    interruption=asked,
                    num_overlays=num_overlays,
                ),
                resume=resume,
            )
    except KeyboardInterrupt:
        tracker.close("KILLED")
        raise
    except Exception:
        tracker.close("FAILED")
        raise
    result = {k: v for k, v in asdict(trained).items() if k != "pictures"}
    write_json(result, folder / "result.json")
    for picture in trained.pictures:
        tracker.log_file(picture, "pictures")
    if trained.finished and log_model:
        tracker.log_model(folder)
    for name in ("plan.json", "run.json", "training.json", "result.json"):
        tracker.log_file(folder / name)
    tracker.close("FINISHED" if trained.finished else "KILLED")
    return trained, 0 if trained.finished else asked.exit_code


def show_result(trained: Trained, folder: Path) -> None:
    """Print the scores and where the model lies."""
    if trained.scores:
        table(
            [(name, f"{dice:.4f}") for name, dice in trained.scores.items()],
            columns=("class", "validation Dice"),
        )
    pace = trained.seconds / max(1, trained.num_steps)
    done = "finished" if trained.finished else "stopped; training.resume=true goes on"
    say(f"{done} after {trained.num_steps} steps, {trained.seconds:.0f} s ({pace:.3f} s a step)")
    say(f"model: {folder / 'model.pt'}")


@dataclass(frozen=True, slots=True)
class _Place:
    """The folder and name of a run; the folder of its sweep, if any, and its tags there."""

    folder: Path
    name: str
    sweep: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def _place(chosen: Mapping[str, Any], manifest: Manifest, *, resume: bool) -> _Place:
    """Find the folder: of the job of a sweep, given, or a fresh one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is not None and hydra.mode == RunMode.MULTIRUN:
        folder, words = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
        tags = job_tags(hydra.job.num, words)
        place = _Place(folder, job_name(folder.name, words), Path(hydra.sweep.dir), tags)
    elif chosen["output"]:
        place = _Place(Path(chosen["output"]), Path(chosen["output"]).name)
    elif resume:
        raise ConfigError(
            "training.resume=true: give output= the folder of the run to go on with", code="CFG-003"
        )
    else:
        folder = fresh_folder(Path("runs"), f"{manifest.name}_{chosen['model']['name']}")
        place = _Place(folder, folder.name)
    if (place.folder / "model.pt").exists() and not resume:
        raise ConfigError(
            f"output={place.folder}: holds a model already",
            code="CFG-008",
            hint="training.resume=true goes on with it; or choose another folder",
        )
    return place


def _plan_for(
    chosen: Mapping[str, Any],
    manifest: Manifest,
    beside: Path,
    folder: Path,
    device: torch.device,
    *,
    resume: bool,
) -> tuple[Plan, Fingerprint | None]:
    """Find the plan: of the run, given, beside the manifest, or made now and kept there."""
    if resume:
        path = folder / "plan.json"
        if not path.exists():
            raise CheckpointError(
                f"output={folder}: holds no training to resume",
                code="CKP-001",
                hint="give output= the folder of the run to go on with, or no training.resume",
            )
    else:
        path = Path(chosen["plan"]) if chosen["plan"] else beside / "plan.json"
    fingerprint_path = path.with_name("fingerprint.json")
    if not path.exists() and not chosen["plan"] and not resume:
        say(f"no plan yet: measuring {len(measured_cases(manifest))} cases")
        plan, fingerprint = plan_dataset(manifest, hardware=measure_hardware(device))
        write_fingerprint(fingerprint, fingerprint_path)
        write_plan(plan, path)
    plan = override(read_plan(path), {} if resume else chosen["overrides"])
    if plan.channels != manifest.planes:
        raise ConfigError(
            f"plan={path}: is for channels {plan.channels}, the manifest has {manifest.planes}"
        )
    if plan.device != device.type:
        say(f"note: {path.name} was fitted to {plan.device}, this training runs on {device.type}")
    known = read_fingerprint(fingerprint_path) if fingerprint_path.exists() else None
    return plan, known


def _open_tracker(chosen: Mapping[str, Any], manifest: Manifest, place: _Place) -> Tracker:
    mlflow = chosen["mlflow"]
    tracker = open_tracker(
        uri=mlflow["uri"],
        experiment=mlflow["experiment"] or manifest.name,
        run_name=place.name,
        folder=place.folder,
        parent=str(place.sweep) if place.sweep else None,
        enabled=mlflow["enabled"],
    )
    tracker.set_tags(place.tags)
    return tracker


def _logged(chosen: Mapping[str, Any], manifest: Manifest, plan: Plan) -> dict[str, Any]:
    """What is logged of the settings: no paths, but digests of what they lead to."""
    told_apart = () if chosen["task"] == "semantic" else ("instance", "things")
    names = ("fold", "task", *told_apart, "model", "loss", "optimizer", "schedule", "augment")
    return {
        **{name: chosen[name] for name in (*names, "training")},
        "plan": {
            "patch_vox": plan.patch_vox,
            "spacing_mm": plan.spacing_mm,
            "batch_size": plan.training.batch_size,
        },
        "digest": {"manifest": manifest.digest, "plan": digest_json(plan.to_json())},
    }


def _write_origin(folder: Path, job: Job, identity: Mapping[str, Any]) -> None:
    write_plan(job.plan, folder / "plan.json")
    if job.fingerprint is not None:
        write_fingerprint(job.fingerprint, folder / "fingerprint.json")
    write_json(dict(identity), folder / "training.json")
    choices = job.choices
    write_provenance(
        folder,
        command="train",
        digests={"manifest": job.manifest.digest, "plan": digest_json(job.plan.to_json())},
        seed=choices.seed,
        settings={"fold": choices.fold, "model": choices.model[0], "loss": choices.loss[0]},
    )


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Keep what medseg's rooms log while training in a file of the run."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("medseg")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
