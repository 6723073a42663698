"""The training loop, on one screen.

Axes: B patch, C channel, L output, IJK voxel.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from medseg.core.errors import TrainingError
from medseg.data.patches import Batch
from medseg.runtime.interrupt import Interruption
from medseg.training.mean_teacher import Consistency
from medseg.training.schedule import Budget, Schedule
from medseg.training.state import TrainingState

Loss = Callable[..., torch.Tensor]
# Takes the image, its maps and a generator, and `Batch.of_patches` by their names; returns what the
# network sees, then what the loss does, the latter last and in their order.
Augmentation = Callable[..., tuple[torch.Tensor, ...]]
# Steps whose time tells the pace: enough to even out a machine that is busy for a moment.
_PACE_STEPS = 300
# Steps in a row without a finite loss after which training stops.
_MOST_BAD_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a step is made of.

    Attributes:
        augment: turns what was cut out into what is trained on.
        loss: of logits (or a tuple of them), the batch's maps, and `Batch.of_patches` by name.
        schedule: of the learning rate.
        budget: how long training lasts.
        clip_norm: largest norm of the gradient; larger ones are scaled down.
        bf16: run the network in bfloat16 where PyTorch deems it safe.
        flat: the network is 2D and takes (B, C, I, J).
        seed: of augmentation, together with the step.
        frozen_steps: steps in which `TrainingState.frozen` weights do not change.
        consistency: what is learnt of a batch's unlabelled patches, added to the loss; None where
            there are none.
    """

    augment: Augmentation
    loss: Loss
    schedule: Schedule
    budget: Budget
    clip_norm: float = 12.0
    bf16: bool = False
    flat: bool = False
    seed: int = 0
    frozen_steps: int = 0
    consistency: Consistency | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did."""

    step: int
    loss: float
    lr: float
    seconds: float


def fit(
    state: TrainingState,
    batches: Callable[[int], Iterator[Batch]],
    *,
    recipe: Recipe,
    device: torch.device,
    interruption: Interruption,
    after_step: Callable[[StepReport], None],
) -> None:
    """Train until the budget is spent or a signal asks for a stop.

    Every step is a function of the state, the seed and its own number, so a resumed training goes
    the same way (bit for bit on a CPU with the same number of threads).

    Args:
        state: where training stands; it is moved on in place.
        batches: yields the batches from a step on.
        recipe: see there.
        device: where the network is and augmentation runs.
        interruption: asked between steps.
        after_step: called after every step; may validate and save.

    Raises:
        TrainingError: TRN-001 the loss was not finite for several steps in a row; cases are named.
    """
    pace: deque[float] = deque(maxlen=_PACE_STEPS)
    source = batches(state.step)
    num_bad = 0
    while not state.finished and interruption.signal is None:
        start = time.monotonic()
        lr = _set_lr(state.optimizer, recipe.schedule(state.step, state.num_steps))
        batch = next(source)
        loss = _step(state, batch, recipe, device=device)
        num_bad = num_bad + 1 if loss is None else 0
        if num_bad >= _MOST_BAD_STEPS:
            raise TrainingError(
                f"step {state.step}: the loss is not finite for {num_bad} steps in a row; "
                f"last cases: {', '.join(batch.case_ids)}",
                code="TRN-001",
                hint="lower optimizer.lr, or look at these cases with medseg check",
            )
        state.average.update(state.network, state.step)
        state.step += 1
        seconds = time.monotonic() - start
        state.seconds += seconds
        pace.append(seconds)
        counted = recipe.budget.count(
            state.step, seconds=state.seconds, last_s=seconds, pace_s=statistics.fmean(pace)
        )
        state.num_steps = counted or state.num_steps
        after_step(StepReport(state.step, float("nan") if loss is None else loss, lr, seconds))


def _set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale the learning rates the optimizer began with; return the first."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
    return float(optimizer.param_groups[0]["lr"])


def _step(
    state: TrainingState, batch: Batch, recipe: Recipe, *, device: torch.device
) -> float | None:
    """Make one step; return its loss, or None when it was not finite and nothing was changed."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + state.step)
    of_patches = {name: one.to(device) for name, one in batch.of_patches.items()}
    image_BCIJK, *maps_BIJK = recipe.augment(
        batch.image_BCIJK.to(device, non_blocking=True),
        *(one.to(device, non_blocking=True) for one in batch.maps),
        generator=generator,
        **of_patches,
    )
    for name in reversed(of_patches):
        of_patches[name] = maps_BIJK.pop()
    if recipe.flat:
        image_BCIJK, *maps_BIJK = (one[..., 0] for one in (image_BCIJK, *maps_BIJK))
    state.network.train()
    if state.step < recipe.frozen_steps:
        _still(state)
    with _precision(device, bf16=recipe.bf16):
        logits_BLIJK = state.network(image_BCIJK)
    loss = recipe.loss(logits_BLIJK, *maps_BIJK, **of_patches)
    if recipe.consistency is not None and batch.unlabelled_BCIJK is not None:
        with _precision(device, bf16=recipe.bf16):
            unlabelled_BCIJK = batch.unlabelled_BCIJK.to(device, non_blocking=True)
            loss = loss + recipe.consistency(state, unlabelled_BCIJK, generator=generator)
    state.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    if state.step < recipe.frozen_steps:
        _hold(state)
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
    if not torch.isfinite(norm):
        return None
    state.optimizer.step()
    return float(loss.detach())


def _still(state: TrainingState) -> None:
    """Let frozen layers that keep running means use these, and leave them as they are."""
    frozen = frozenset(state.frozen)
    for name, layer in state.network.named_modules():
        if f"{name}.running_mean" in frozen:
            layer.eval()


def _hold(state: TrainingState) -> None:
    """Take away the gradients of frozen weights: the optimizer passes over them, decay included."""
    frozen = frozenset(state.frozen)
    for name, weight in state.network.named_parameters():
        if name in frozen:
            weight.grad = None


def _precision(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()
