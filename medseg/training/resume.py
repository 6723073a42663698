"""What makes a training the same training: the things a resumed run may not change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.errors import CheckpointError, ConfigError
from medseg.runtime.files import digest_json, read_json
from medseg.training.job import Job


def training_identity(job: Job) -> dict[str, Any]:
    """Return the plain values that a resumed run must agree with."""
    choices = job.choices
    return {
        "manifest": job.manifest.digest,
        "plan": digest_json(job.plan.to_json()),
        "fold": choices.fold,
        "model": {"name": choices.model[0], **choices.model[1]},
        "loss": {"name": choices.loss[0], **choices.loss[1]},
        "seed": choices.seed,
    }


def require_same_training(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to resume a run whose data, classes, network or seed have changed.

    Raises:
        ConfigError: RUN-004, naming what changed, from what and to what.
        CheckpointError: the folder holds no run.
    """
    stored = read_json(folder / "training.json", kind=CheckpointError, what="a run to resume")
    for key, value in identity.items():
        if stored.get(key) != value:
            raise ConfigError(
                f"training.resume=true: {key} has changed since {folder} was begun: "
                f"{stored.get(key)!r}, now {value!r}",
                code="RUN-004",
                hint="resume with what the run began with, or begin another run",
            )
