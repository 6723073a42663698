"""What makes a training the same training: the things a resumed run may not change."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.core.errors import CheckpointError, ConfigError
from medseg.runtime.files import digest_json, read_json
from medseg.training.job import Job


def training_identity(job: Job) -> dict[str, Any]:
    """Return the plain values that a resumed run must agree with.

    What is left out, such as precision, workers and cadence, may differ: it belongs to a machine.
    """
    choices = job.choices
    # An optimizer of nothing tells its kind and its settings.
    optimizer = choices.make_optimizer([nn.Parameter(torch.zeros(1))])
    return {
        "manifest": job.manifest.digest,
        "plan": digest_json(job.plan.to_json()),
        "fold": choices.fold,
        "model": {"name": choices.model[0], **choices.model[1]},
        "loss": {"name": choices.loss[0], **choices.loss[1]},
        "seed": choices.seed,
        "sampling": choices.sampling,
        "pretrain": choices.pretrain and repr(choices.pretrain),
        "mean_teacher": choices.mean_teacher and repr(choices.mean_teacher),
        "frozen_steps": choices.frozen_steps,
        "objects": choices.objects
        and {
            **choices.objects.to_json(),
            "things": list(job.labels.things),
        },
        "regions": choices.regions and [asdict(region) for region in choices.regions],
        "budget": {
            "max_steps": choices.budget.num_steps,
            "max_time_s": choices.budget.max_time_s,
        },
        "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
        "schedule": repr(choices.schedule),
        "augment": {
            "spatial": repr(choices.spatial),
            "intensity": repr(choices.intensity),
            "channel_dropout": choices.channel_dropout,
            "context": choices.context,
        },
    }


def _difference(before: object, now: object) -> str:
    """Tell two values apart; of two groups of settings, only those that differ."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return f"{before!r}, now {now!r}"
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return "; ".join(f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in keys)


def require_same_training(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to resume a run whose data, classes, network or settings have changed.

    Raises:
        ConfigError: RUN-004, naming what changed, from what and to what.
        CheckpointError: the folder holds no run.
    """
    stored = read_json(folder / "training.json", kind=CheckpointError, what="a run to resume")
    # As a file gives it back: what was a tuple is a list there.
    now = json.loads(json.dumps(dict(identity)))
    for key, value in now.items():
        # What a run of an earlier medseg did not store could not be chosen then.
        if key in stored and stored[key] != value:
            raise ConfigError(
                f"training.resume=true: {key} has changed since {folder} was begun: "
                f"{_difference(stored[key], value)}",
                code="RUN-004",
                hint="resume with what the run began with, or begin another run",
            )
