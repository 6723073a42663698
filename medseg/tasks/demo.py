"""`medseg demo`: the whole main job on scans made in code, beside what a threshold would score.

Each step calls what its command calls, in one process, so that torch and MONAI are loaded once.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.config import settings
from medseg.core.errors import ConfigError
from medseg.data.anatomy import LABELS
from medseg.data.audit_dataset import audit
from medseg.data.ingest import ingest
from medseg.data.layouts.found import Request
from medseg.data.manifest import Case, Manifest, write_manifest
from medseg.data.pairs import pair_with_manifest
from medseg.data.phantom_set import write_phantoms
from medseg.data.scans import read_reference, read_scan
from medseg.inference.batch import Outputs
from medseg.inference.predictor import Predictor
from medseg.inference.sources import sources_of_manifest
from medseg.metrics.baselines import Labelled, window_dice
from medseg.planning.dataset import plan_dataset
from medseg.planning.plan_file import write_fingerprint, write_plan
from medseg.runtime.console import say, table
from medseg.runtime.files import write_json
from medseg.runtime.hardware import measure_hardware, pick_device
from medseg.tasks.check import report, show_findings
from medseg.tasks.evaluate import Evaluation, evaluate, show_evaluation
from medseg.tasks.plan import show_plan
from medseg.tasks.predict import predict_into
from medseg.tasks.train import run_training, show_result
from medseg.tracking.fields import TEST_SPLIT_TAG
from medseg.tracking.store import sqlite_uri
from medseg.tracking.tracker import Tracker, open_tracker
from medseg.training.job import Job
from medseg.training.settings import choices_of

# Where this file lies, a demo has been, and the next one may remove what it wrote.
_MARK = ".medseg-demo"
_STORE, _RESULT = "mlflow.db", "demo.json"
_WRITTEN = (
    "phantoms", "dataset", "cache", "run", "masks", "scores", "mlartifacts", _STORE, _RESULT,
)  # fmt: skip
_LOGGED = ("fold", "model", "loss", "optimizer", "schedule", "augment", "training")
_NUM_OVERLAYS = 2
# Workers that open files: phantoms are small, and none is quicker than starting some.
_NO_WORKERS = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What a demo measured on phantoms that were kept from training.

    Attributes:
        num_steps: of the training.
        seconds: of each step.
        exit_code: 0, 3 when a phantom could not be scored, or 128 + the signal that stopped the
            training; then nothing was measured.
        num_test: phantoms measured on.
        dice: mean Dice of each class.
        baseline_dice: the same for the best intensity window of each class.
    """

    num_steps: int
    seconds: Mapping[str, float]
    exit_code: int
    num_test: int = 0
    dice: Mapping[str, float] = field(default_factory=dict)
    baseline_dice: Mapping[str, float] = field(default_factory=dict)


def main(config: Any) -> int:
    """Run the demo as the settings of `conf/demo.yaml` say."""
    chosen = settings(config)
    folder = Path(chosen["output"])
    result = run_demo(folder, chosen)
    if result.dice:
        show_comparison(result)
        show_way_on(folder)
    return result.exit_code


def run_demo(folder: Path, chosen: Mapping[str, Any]) -> DemoResult:
    """Walk the whole way, from scans to scores, in one folder.

    Args:
        folder: for all that is written; one that an earlier demo made is cleared first.
        chosen: settings by the keys of `conf/demo.yaml`.

    Raises:
        ConfigError: the folder holds something else.
    """
    seconds: dict[str, float] = {}
    device = pick_device(chosen["device"])
    _clear(folder)
    with _step("phantoms", seconds):
        cases = write_phantoms(
            folder / "phantoms",
            num_cases=chosen["num_cases"],
            num_test=chosen["num_test"],
            seed=chosen["seed"],
        )
    with _step("ingest and check", seconds):
        manifest = _ingest(cases, folder / "dataset")
        _check(manifest, folder / "dataset")
    with _step("plan", seconds):
        job = _plan(manifest, chosen, device, folder / "dataset")
    with _step("train", seconds):
        num_steps, stopped = _train(job, chosen, device, folder)
    if stopped:
        return DemoResult(num_steps=num_steps, seconds=seconds, exit_code=stopped)
    with _step("predict", seconds):
        _predict(manifest, device, folder)
    with _step("evaluate", seconds):
        evaluation = _evaluate(manifest, chosen, folder)
    with _step("thresholds", seconds):
        known = manifest.training_cases[: chosen["baseline_cases"]]
        baseline = window_dice(
            [_read(manifest, case) for case in known],
            [_read(manifest, case) for case in manifest.test_cases],
            labels=manifest.labels,
        )
    classes = evaluation.summary["classes"]
    result = DemoResult(
        dice={name: one["scores"]["dice"]["mean"] for name, one in classes.items()},
        baseline_dice=baseline,
        num_test=len(manifest.test_cases),
        num_steps=num_steps,
        seconds=seconds,
        exit_code=evaluation.exit_code,
    )
    write_json(asdict(result), folder / _RESULT)
    return result


def show_comparison(result: DemoResult) -> None:
    """Print network and threshold side by side, a line a class."""
    rows = [(name, dice, result.baseline_dice[name]) for name, dice in result.dice.items()]
    rows.append(("mean", _mean(result.dice), _mean(result.baseline_dice)))
    say(f"\nMean Dice on {result.num_test} phantoms that were not trained on:\n")
    told = [(name, f"{dice:.3f}", f"{threshold:.3f}") for name, dice, threshold in rows]
    table(told, columns=("class", "network", "HU threshold"))
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    say(f"\n{sum(result.seconds.values()):.0f} s: {times}; {result.num_steps} training steps")


def show_way_on(folder: Path) -> None:
    """Print where masks, scores and the tracking store lie, and what opens them."""
    masks, scans = folder / "masks", folder / "phantoms" / "scans"
    say(f"\nmasks     {masks} (NIfTI on the grid of each scan; DICOM SEG where a scan was DICOM)")
    say(f"scores    {folder / 'scores' / 'scores.csv'}, a row a case and class")
    say(f"model     {folder / 'run' / 'model.pt'}")
    say(f"tracking  {_program('mlflow')} ui --backend-store-uri sqlite:///{folder / _STORE}")
    for mask in [mask for mask in sorted(masks.glob("*.nii.gz")) if (scans / mask.name).exists()][
        :1
    ]:
        say(f"3D Slicer {scans / mask.name} as volume, {mask} as segmentation")
        say(f"ITK-SNAP  itksnap -g {scans / mask.name} -s {mask} -l {masks / 'labels.label'}")
    for seg in sorted(masks.glob("*.seg.dcm"))[:1]:
        say(f"DICOM     {_program('medseg')} verify {seg} {scans / seg.name.split('.')[0]}")


def _mean(dice: Mapping[str, float]) -> float:
    return float(np.mean(list(dice.values())))


def _clear(folder: Path) -> None:
    """Make the folder; remove what an earlier demo wrote there, and nothing else."""
    filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if filled and not (folder / _MARK).exists():
        raise ConfigError(
            f"output={folder}: holds something that no demo made",
            code="CFG-008",
            hint="choose another folder; a demo clears the one it writes to",
        )
    for path in (folder / name for name in _WRITTEN):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


@contextmanager
def _step(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Announce a step and note how long it took."""
    say(f"\n== {name}")
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start


def _ingest(cases: Path, folder: Path) -> Manifest:
    stored = {label.name: label.values for label in LABELS.labels}
    found = ingest(Request(source=cases, name="phantoms", labels=stored), num_workers=_NO_WORKERS)
    # What a user may add to manifest.json by hand: colours, terms for DICOM, left and right.
    manifest = replace(found.manifest, labels=LABELS)
    write_manifest(manifest, folder / "manifest.json")
    num_dicom = sum(
        not path.endswith(".gz") for case in manifest.cases for path in case.image_files
    )
    say(
        f"{len(manifest.cases)} cases, {num_dicom} of them DICOM series; "
        f"{len(manifest.test_cases)} kept for testing; classes {', '.join(LABELS.names)}"
    )
    return manifest


def _check(manifest: Manifest, folder: Path) -> None:
    found = audit(manifest, num_workers=_NO_WORKERS)
    write_json(report(manifest, found), folder / "check.json")
    show_findings(found.findings)


def _plan(manifest: Manifest, chosen: Mapping[str, Any], device: torch.device, folder: Path) -> Job:
    plan, fingerprint = plan_dataset(manifest, hardware=measure_hardware(device))
    write_fingerprint(fingerprint, folder / "fingerprint.json")
    write_plan(plan, folder / "plan.json")
    show_plan(plan, fingerprint)
    choices = choices_of(chosen, plan, device)
    return Job(manifest=manifest, plan=plan, choices=choices, fingerprint=fingerprint)


def _train(
    job: Job, chosen: Mapping[str, Any], device: torch.device, folder: Path
) -> tuple[int, int]:
    """Train; return the number of steps, and 0 or the exit code of the signal that stopped it."""
    tracker = _tracker(chosen, folder / "run", "train")
    tracker.log_params({name: chosen[name] for name in _LOGGED})
    trained, exit_code = run_training(
        job,
        folder=folder / "run",
        device=device,
        cache=folder / "cache",
        tracker=tracker,
        log_model=chosen["mlflow"]["log_model"],
        num_overlays=_NUM_OVERLAYS if chosen["mlflow"]["overlays"] else 0,
    )
    show_result(trained, folder / "run")
    return trained.num_steps, exit_code


def _predict(manifest: Manifest, device: torch.device, folder: Path) -> None:
    model = folder / "run" / "model.pt"
    outcomes = predict_into(
        sources_of_manifest(manifest, "test"),
        Predictor.load(model, device=device),
        outputs=Outputs(folder=folder / "masks", formats=("nifti", "dicom_seg")),
        checkpoints=[model],
    )
    say(", ".join(f"{outcome.case_id} {outcome.status}" for outcome in outcomes))


def _evaluate(manifest: Manifest, chosen: Mapping[str, Any], folder: Path) -> Evaluation:
    tracker = _tracker(chosen, folder / "scores", "evaluate")
    tracker.set_tags({"command": "evaluate", "split": "test", TEST_SPLIT_TAG: manifest.digest})
    evaluation = evaluate(
        pair_with_manifest(manifest, folder / "masks", split="test"),
        folder / "scores",
        num_workers=_NO_WORKERS,
        digests={"manifest": manifest.digest},
        tracker=tracker,
    )
    tracker.close("FINISHED")
    show_evaluation(evaluation)
    return evaluation


def _tracker(chosen: Mapping[str, Any], folder: Path, command: str) -> Tracker:
    """Track a command that writes to the folder, in the demo's own store."""
    folder.mkdir()
    return open_tracker(
        uri=sqlite_uri(folder.parent / _STORE),
        experiment=chosen["mlflow"]["experiment"],
        run_name=command,
        folder=folder,
        enabled=chosen["mlflow"]["enabled"],
    )


def _read(manifest: Manifest, case: Case) -> Labelled:
    scan = read_scan(manifest, case)
    return scan, read_reference(manifest, case, scan.geometry).only_channel


def _program(name: str) -> str:
    """Return a command as it can be typed here, also where its environment is not activated."""
    path = Path(sys.executable).with_name(name)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else name
