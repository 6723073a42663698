"""Composed settings, as plain values, read as the choices of a training."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from medseg.config import build
from medseg.core.errors import ConfigError
from medseg.core.objects import ObjectPlan, way_of
from medseg.core.plan import Plan
from medseg.core.regions import Region
from medseg.losses.registry import loss_settings
from medseg.runtime.hardware import num_cores
from medseg.training.choices import Choices, MakeOptimizer
from medseg.training.masking import Masking
from medseg.training.mean_teacher import MeanTeacher
from medseg.training.schedule import SCHEDULES, Budget, Schedule, seconds_of
from medseg.training.session import Cadence
from medseg.transforms.augment import IntensityAugment
from medseg.transforms.motion import SpatialAugment

Part = TypeVar("Part")

_MOST_WORKERS = 8
# What the settings about classes are, as `conf/train.yaml` begins with them.
_NO_WORD_ON_CLASSES: dict[str, Any] = {
    "task": "semantic",
    "training.regions": None,
    "training.sampling": "class",
    "loss": "dice_ce",
}


def choices_of(chosen: Mapping[str, Any], plan: Plan, device: torch.device) -> Choices:
    """Read the choices of a training from composed settings.

    Raises:
        ConfigError: a value that is not what its key expects.
    """
    training, augment = chosen["training"], chosen["augment"]
    max_time, max_steps = training["max_time"], training["max_steps"]
    budget = Budget(
        num_steps=plan.training.num_steps if max_steps is None and max_time is None else max_steps,
        max_time_s=None if max_time is None else seconds_of(max_time),
    )
    workers = training["num_workers"]
    if workers is None:
        workers = 0 if device.type == "cpu" else min(_MOST_WORKERS, num_cores() - 1)
    return Choices(
        fold=_fold(chosen["fold"]),
        model=_named(chosen["model"]),
        loss=_named(chosen["loss"]),
        make_optimizer=_optimizer(chosen["optimizer"]),
        schedule=_schedule(chosen["schedule"]),
        budget=budget,
        regions=_regions(training["regions"]),
        objects=_objects(chosen),
        things=_things(chosen),
        sampling=training["sampling"],
        pretrain=_pretrain(chosen),
        mean_teacher=_optional(MeanTeacher, training["mean_teacher"], "mean_teacher"),
        init=Path(training["init"]) if training["init"] else None,
        frozen_steps=training["frozen_steps"],
        spatial=_augment(SpatialAugment, augment["spatial"], "spatial"),
        intensity=_augment(IntensityAugment, augment["intensity"], "intensity"),
        channel_dropout=augment["channel_dropout"],
        context=training["context"],
        clip_norm=training["clip_norm"],
        bf16=_wants_bf16(training["precision"], device),
        num_workers=workers,
        seed=training["seed"],
        cadence=Cadence(
            checkpoint_every_s=training["checkpoint_every_s"],
            num_validations=training["num_validations"],
            log_every_steps=training["log_every_steps"],
        ),
        validation_cases=training["validation_cases"],
    )


def _fold(value: Any) -> int | Literal["all"]:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ConfigError(f"fold={value}: expected a number from 0, or all")


def _objects(chosen: Mapping[str, Any]) -> ObjectPlan | None:
    """Read `task` and the group `instance`; None where only classes are told apart."""
    task = chosen.get("task", "semantic")
    if task == "semantic":
        _require_no_objects(chosen.get("instance", {}))
        return None
    name, way = _named(chosen["instance"])
    sizes = {key: way.pop(key) for key in ("least_ml", "least_px") if key in way}
    return ObjectPlan(task=task, way=way_of(name, way), **sizes)


def _require_no_objects(instance: Mapping[str, Any]) -> None:
    """Refuse settings of the group `instance` where only classes are told apart."""
    idle = ObjectPlan(task="instance").to_json()
    idle |= idle["way"]
    for key, value in instance.items():
        if value != idle.get(key):
            word = "instance" if key == "name" else f"instance.{key}"
            raise ConfigError(
                f"{word}={value}: tells no objects apart with task=semantic; expected "
                "task=instance or task=panoptic"
            )


def _pretrain(chosen: Mapping[str, Any]) -> Masking | None:
    """Read `training.pretrain`; what would be said about classes beside it is refused."""
    training, (loss, own) = chosen["training"], _named(chosen["loss"])
    masking = _optional(Masking, training["pretrain"], "pretrain")
    if masking is None:
        return None
    said = {
        "task": chosen.get("task", "semantic"),
        "training.regions": training["regions"],
        "training.sampling": training["sampling"],
        "loss": loss,
    }
    idle = _NO_WORD_ON_CLASSES | loss_settings(_NO_WORD_ON_CLASSES["loss"])
    for key, value in {**said, **own}.items():
        if value != idle.get(key):
            word = key if key in said else f"loss.{key}"
            raise ConfigError(
                f"{word}={value}: is about classes, of which training.pretrain learns none; "
                "expected it where they are learnt, with training.init"
            )
    return masking


def _things(chosen: Mapping[str, Any]) -> tuple[str, ...] | None:
    things = chosen.get("things")
    if things is None:
        return None
    if chosen["task"] == "semantic" or not isinstance(things, list):
        raise ConfigError(
            f"things={things}: expected names of classes, such as [nucleus], with task=instance "
            "or task=panoptic"
        )
    return tuple(str(name) for name in things)


def _regions(value: Any) -> tuple[Region, ...] | None:
    """Read `training.regions`: null, declared, or the members of each region by its name."""
    if value is None:
        return None
    if value == "declared":
        return ()
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"training.regions={value}: expected null, declared, or such as {{WT: [edema, core]}}"
        )
    return tuple(_region(str(name), own) for name, own in value.items())


def _region(name: str, value: Any) -> Region:
    """Read one region: a class, a list of them, or `members` and what it is `written_as`."""
    given = value if isinstance(value, Mapping) else {"members": value}
    members = given.get("members")
    if not isinstance(members, str | list):
        raise ConfigError(
            f"training.regions.{name}={value}: expected classes, such as [edema, core], or "
            "{members: [edema, core], written_as: edema}"
        )
    named = {"name": name, "members": (members,) if isinstance(members, str) else tuple(members)}
    return _made(Region, {**given, **named}, f"training.regions.{name}")


def _optional(kind: Callable[..., Part], value: Any, key: str) -> Part | None:
    """Read a part of a training that may be left out: null, or its settings."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(f"training.{key}={value}: expected null, or settings such as {{}}")
    return _made(kind, value, f"training.{key}")


def _made(kind: Callable[..., Part], given: Mapping[str, Any], key: str) -> Part:
    """Make a part of the settings that stand below a key."""
    known = inspect.signature(kind).parameters
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(
            f"{key}.{unknown[0]}: no such setting; expected some of {', '.join(known)}",
            code="CFG-001",
        )
    try:
        return kind(**given)
    except TypeError as fault:
        raise ConfigError(f"{key}: {fault}") from fault


def _named(node: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split a group's node into the name of the part and its settings."""
    return str(node["name"]), {key: value for key, value in node.items() if key != "name"}


def _schedule(node: Mapping[str, Any]) -> Schedule:
    name, given = _named(node)
    if name not in SCHEDULES:
        raise ConfigError(f"schedule={name}: expected one of {', '.join(SCHEDULES)}")
    return _made(SCHEDULES[name], given, "schedule")


def _optimizer(node: Mapping[str, Any]) -> MakeOptimizer:
    def make(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = build(node, params=parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError(f"optimizer={node.get('_target_')}: is not a PyTorch optimizer")
        return optimizer

    return make


def _augment(kind: Callable[..., Part], node: Mapping[str, Any], key: str) -> Part:
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in node.items()}
    return _made(kind, given, f"augment.{key}")


def _wants_bf16(precision: str, device: torch.device) -> bool:
    if precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"training.precision={precision}: expected auto, fp32 or bf16")
    if precision == "auto":
        # Few CPUs have it, and the others would emulate it: there it is for the user to ask for.
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"
