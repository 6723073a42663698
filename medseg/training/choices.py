"""What a user chooses about one training; what follows from the data stands in the plan."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from medseg.core.errors import ConfigError
from medseg.core.objects import ObjectPlan
from medseg.core.regions import Region
from medseg.data.centres import Sampling
from medseg.training.masking import Masking
from medseg.training.mean_teacher import MeanTeacher
from medseg.training.schedule import Budget, Schedule
from medseg.training.session import Cadence
from medseg.transforms.augment import IntensityAugment
from medseg.transforms.motion import SpatialAugment

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """One training, but for its data.

    Attributes:
        fold: validation fold, or `all` to train on everything.
        model, loss: registry name and settings of each.
        make_optimizer: of the network's parameters.
        schedule, budget: see `training.schedule`.
        regions: overlapping regions that the network ends in; (): those that the manifest
            declares; None: none, classes exclude each other.
        objects: how objects are told apart; None: only classes are.
        things: classes whose objects are, see `core.objects.labels_for`.
        sampling: what patches are aimed at, see `data.centres`.
        pretrain: learn without labels, by what is hidden; None: learn the classes.
        mean_teacher: learn from the manifest's unlabelled cases, too; None: do not.
        init: checkpoint whose weights are begun from, as far as they fit.
        frozen_steps: steps in which what was taken from it does not change.
        spatial, intensity: see `transforms.motion` and `transforms.augment`; mirror axes and
            spacing come from the plan.
        channel_dropout: share of patches that lose a channel.
        context: how much more than a patch is cut out, per axis, for rotation to use.
        clip_norm: largest norm of the gradient.
        bf16: train in bfloat16 where PyTorch deems it safe.
        num_workers: processes that draw patches; 0 draws them in the loop.
        seed: of everything drawn.
        cadence: see `training.session`.
        validation_cases: cases validated on before the end; at the end it is all of them.
    """

    fold: int | Literal["all"]
    model: tuple[str, Mapping[str, Any]]
    loss: tuple[str, Mapping[str, Any]]
    make_optimizer: MakeOptimizer
    schedule: Schedule
    budget: Budget
    regions: tuple[Region, ...] | None = None
    objects: ObjectPlan | None = None
    things: tuple[str, ...] | None = None
    sampling: Sampling = "class"
    pretrain: Masking | None = None
    mean_teacher: MeanTeacher | None = None
    init: Path | None = None
    frozen_steps: int = 0
    spatial: SpatialAugment = field(default_factory=SpatialAugment)
    intensity: IntensityAugment = field(default_factory=IntensityAugment)
    channel_dropout: float = 0.0
    context: float = 1.2
    clip_norm: float = 12.0
    bf16: bool = False
    num_workers: int = 0
    seed: int = 0
    cadence: Cadence = field(default_factory=Cadence)
    validation_cases: int = 12

    def __post_init__(self) -> None:
        if self.sampling not in get_args(Sampling):
            known = ", ".join(get_args(Sampling))
            raise ConfigError(f"training.sampling={self.sampling}: expected one of {known}")
        if self.pretrain is not None and self.mean_teacher is not None:
            raise ConfigError(
                "training.pretrain and training.mean_teacher: one learns without labels, the other "
                "beside them; expected one of the two"
            )
        if self.frozen_steps < 0 or (self.frozen_steps and self.init is None):
            raise ConfigError(
                f"training.frozen_steps={self.frozen_steps}: expected 0, or more with training.init"
            )
        if self.context < 1:
            raise ConfigError(f"training.context={self.context}: expected at least 1")
        if not 0 <= self.channel_dropout < 1:
            raise ConfigError(
                f"augment.channel_dropout={self.channel_dropout}: expected at least 0, below 1"
            )
