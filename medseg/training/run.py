"""One training, from manifest and plan to `model.pt`."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from medseg.core.errors import CheckpointError
from medseg.data.case import Case
from medseg.data.image_patches import require_scans
from medseg.data.patches import Batch, batches, workers_named
from medseg.data.raters import training_targets
from medseg.data.splits import split_cases
from medseg.inference.predictor import Predictor, windows_of
from medseg.models.cost import Cost, cost_of
from medseg.models.registry import has_coarser_outputs
from medseg.models.tensor_file import load_newest
from medseg.models.warm_start import load_warm_start
from medseg.runtime.interrupt import Interruption
from medseg.training.job import Job
from medseg.training.loop import fit
from medseg.training.object_sizes import told_of_long_objects, with_least_size
from medseg.training.parts import checkpoint_of, ends_of, network_for, recipe_for, sampler_for
from medseg.training.pictures import draw_curves, draw_overlays
from medseg.training.preparation import Preparation, Validation
from medseg.training.pretraining import scans_without_labels
from medseg.training.progress import ProgressLine
from medseg.training.session import MetricLog, Session
from medseg.training.state import TrainingState, WeightAverage

# More steps than any training makes; the loader is asked for batches until the budget is spent.
_ENDLESS = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Where a training runs, and who watches.

    Attributes:
        folder: of the run: `model.pt`, `state.pt`.
        cache: of prepared cases.
        device: to train on.
        metrics: takes the curves.
        progress: tells the user.
        interruption: asked between steps whether to stop.
        num_overlays: validation cases drawn at the end, with both outlines.
    """

    folder: Path
    cache: Path
    device: torch.device
    metrics: MetricLog
    progress: ProgressLine
    interruption: Interruption
    num_overlays: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training came to.

    Attributes:
        scores: mean Dice per class, and `mean`, over the validation fold; empty without one.
        history: of all validations.
        num_steps, seconds: steps done, and the time they took.
        finished: False when a signal stopped it before its budget was spent.
        network: what the network costs.
        pictures: files drawn at the end.
    """

    scores: Mapping[str, float]
    history: list[dict[str, float]]
    num_steps: int
    seconds: float
    finished: bool
    network: Cost
    pictures: tuple[Path, ...] = ()


def train(job: Job, *, workplace: Workplace, resume: bool = False) -> Trained:
    """Train one network on one fold.

    Args:
        job: what to train.
        workplace: where, and who watches.
        resume: go on from the folder's `state.pt`.

    Raises:
        MedsegError: data that cannot be read, settings that do not fit, a loss that diverges.
    """
    choices, device = job.choices, workplace.device
    torch.manual_seed(choices.seed)
    learnt, validated = _cases_of(job)
    zero_missing = choices.channel_dropout > 0
    prepare = Preparation(
        job.manifest,
        job.plan,
        workplace.cache,
        zero_missing=zero_missing,
        ids_of=job.labels if job.learns_objects else None,
    )
    teaching = choices.mean_teacher is not None
    if teaching:
        require_scans(job.manifest.unlabelled_cases)
    # What settings alone can get wrong is refused before cases are prepared, which takes long.
    recipe, state = recipe_for(job), _begin(job, device=device)
    if resume:
        state.load(_saved_state(workplace))
        workplace.progress.shown.write(f"goes on after step {state.step}")
    elif choices.init is not None:
        _warm_start(job, choices.init, state, workplace)
    cost = _tell_cost(job, state.network, workplace)
    training = prepare(learnt)
    job = with_least_size(job, training)
    if told := told_of_long_objects(job, training):
        workplace.progress.shown.write(told)
    unlabelled = prepare(job.manifest.unlabelled_cases) if teaching else []
    validation = Validation(job.manifest, prepare(validated), choices.validation_cases)
    sampler = sampler_for(job, training, unlabelled)

    def source(first: int) -> Iterator[Batch]:
        return batches(
            sampler,
            first=first,
            last=_ENDLESS,
            num_workers=choices.num_workers,
            pin_memory=device.type == "cuda",
        )

    session = Session(
        state=state,
        folder=workplace.folder,
        cadence=choices.cadence,
        metrics=workplace.metrics,
        progress=replace(
            workplace.progress,
            steps_an_epoch=max(1, len(training) // job.plan.training.batch_size),
        ),
        validate=lambda *, whole: validation(_predictor(job, state, device), whole=whole),
        pack=lambda scores: checkpoint_of(job, state, scores=scores),
    )
    with workers_named():
        fit(
            state,
            source,
            recipe=recipe,
            device=device,
            interruption=workplace.interruption,
            after_step=session.after_step,
        )
    scores = session.finish() if state.finished else session.interrupt()
    if state.finished and 0 < state.step <= choices.frozen_steps:
        workplace.progress.shown.write(
            f"init: what was taken did not change in any of the {state.step} steps; train longer, "
            f"or lower training.frozen_steps={choices.frozen_steps}"
        )
    pictures = [draw_curves(session.losses, state.history, workplace.folder)]
    if state.finished:
        pictures += draw_overlays(
            job.manifest,
            _predictor(job, state, device),
            validation.cases,
            folder=workplace.folder,
            count=workplace.num_overlays,
        )
    return Trained(
        scores=scores,
        history=state.history,
        num_steps=state.step,
        seconds=state.seconds,
        finished=state.finished,
        network=cost,
        pictures=tuple(path for path in pictures if path is not None),
    )


def _cases_of(job: Job) -> tuple[Sequence[Case], Sequence[Case]]:
    """Return the cases to learn from, and those to validate on."""
    if job.choices.pretrain is not None:
        # How well hidden parts are filled in is no score of a class: nothing is validated.
        return scans_without_labels(job), ()
    split = split_cases(job.manifest, job.choices.fold)
    return training_targets(split.training, job.manifest.consensus), split.validation


def _begin(job: Job, *, device: torch.device) -> TrainingState:
    network = network_for(job).to(device)
    budget = job.choices.budget
    return TrainingState(
        network=network,
        optimizer=job.choices.make_optimizer(network.parameters()),
        average=WeightAverage(network),
        num_steps=None if budget.max_time_s is not None else budget.num_steps,
    )


def _warm_start(job: Job, init: Path, state: TrainingState, workplace: Workplace) -> None:
    """Begin from the weights of another network, as far as they fit, and say what did not."""
    # A network that goes on filling in images keeps what made them.
    ends = ends_of(job, state.network) if job.choices.pretrain is None else ()
    found = load_warm_start(init, state.network, num_inputs=len(job.plan.channels), ends=ends)
    state.average = WeightAverage(state.network)
    if job.choices.frozen_steps:
        state.frozen = found.taken + found.inflated
    for line in found.lines():
        workplace.progress.shown.write(line)
    workplace.metrics.log_params({"init": {"share": round(found.share, 4)}})


def _tell_cost(job: Job, network: nn.Module, workplace: Workplace) -> Cost:
    """Count what the network costs, and say it before the first step."""
    plan = job.plan
    cost = cost_of(network, (1, len(plan.channels), *plan.patch_vox[: plan.spatial_dims]))
    name, settings = job.choices.model
    workplace.progress.shown.write(f"network: {name}, {cost}")
    if plan.network.deep_supervision and not has_coarser_outputs(
        name, plan=plan, settings=settings
    ):
        workplace.progress.shown.write(
            f"network: {name} has no outputs at coarser levels; the plan's deep_supervision "
            "changes nothing"
        )
    workplace.metrics.log_params({"network": asdict(cost)})
    return cost


def _saved_state(workplace: Workplace) -> Mapping[str, object]:
    folder = workplace.folder
    path = folder / "state.pt"
    if not path.exists():
        raise CheckpointError(
            f"{folder}: holds no state.pt to resume from",
            hint="give output= the folder of the run to go on with",
        )
    value, findings = load_newest(path)
    for one in findings:
        workplace.progress.shown.write(f"{one.code} {one.message}")
    return value


def _predictor(job: Job, state: TrainingState, device: torch.device) -> Predictor:
    """Return a predictor of the averaged weights, apart from the network that is training."""
    averaged = copy.deepcopy(state.network)
    averaged.load_state_dict(state.average.weights)
    return Predictor.of(
        [averaged.eval()],
        plan=job.plan,
        labels=job.labels,
        device=device,
        windows=windows_of(job.plan, job.labels, objects=job.choices.objects),
        objects=job.choices.objects,
    )
