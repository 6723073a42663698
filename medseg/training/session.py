"""What happens between steps: curves are logged, checkpoints written, volumes validated."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medseg.core.errors import WriteError
from medseg.models.checkpoint import Checkpoint, save_checkpoint
from medseg.models.tensor_file import save_tensors
from medseg.training.loop import StepReport
from medseg.training.progress import ProgressLine
from medseg.training.state import TrainingState

_log = logging.getLogger(__name__)

Scores = Mapping[str, float]


class MetricLog(Protocol):
    """Takes what is worth remembering of a training (see `tracking`)."""

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Take what does not change while training goes on; groups may be nested."""

    def log_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Take one value a curve at a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often things happen.

    Attributes:
        checkpoint_every_s: seconds of work a kill may cost.
        num_validations: over the whole training, the last one at its end.
        log_every_steps: steps averaged into one point of the loss curve.
    """

    checkpoint_every_s: float = 120.0
    num_validations: int = 4
    log_every_steps: int = 10


@dataclass(slots=True, kw_only=True)
class Session:
    """Keeps a running training safe and visible.

    Attributes:
        state: of the training.
        folder: where `model.pt` and `state.pt` go.
        cadence: see there.
        metrics: takes the curves.
        progress: tells the user.
        validate: scores the averaged weights: all validation cases, or some of them.
        pack: makes a checkpoint of the averaged weights and the last scores.
        scores: of the last validation.
        losses: points of the loss curve since this run began, with their steps.
    """

    state: TrainingState
    folder: Path
    cadence: Cadence
    metrics: MetricLog
    progress: ProgressLine
    validate: Callable[..., Scores]
    pack: Callable[[Scores], Checkpoint]
    scores: Scores = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    _reports: list[StepReport] = field(default_factory=list)
    _saved: float = field(default_factory=time.monotonic)
    _num_due: int = 0

    def after_step(self, report: StepReport) -> None:
        """Log, validate or save, whatever is due after this step."""
        self._reports.append(report)
        if len(self._reports) >= self.cadence.log_every_steps:
            self._log_curves()
        if self._validation_due():
            self._validate(whole=False)
            self._save_or_go_on()
        elif time.monotonic() - self._saved > self.cadence.checkpoint_every_s:
            self._save_or_go_on()

    def finish(self) -> Scores:
        """Validate on all cases, write the final files, return the scores."""
        if self._reports:
            self._log_curves()
        self._validate(whole=True)
        self.save()
        return self.scores

    def interrupt(self) -> Scores:
        """Write the files to resume from, and return the last scores there were."""
        self.save()
        return self.scores

    def save(self) -> None:
        """Write `state.pt` and `model.pt`, whole or not at all; their predecessors are kept."""
        _log.info("step %d: saving", self.state.step)
        save_tensors(self.state.to_tensors(), self.folder / "state.pt")
        save_checkpoint(self.pack(self.scores), self.folder / "model.pt")
        _log.info("step %d: saved", self.state.step)
        self._saved = time.monotonic()

    def _save_or_go_on(self) -> None:
        """Save; a full disk is told and tried again at the next turn, the last files stand."""
        try:
            self.save()
        except WriteError as full:
            self._saved = time.monotonic()
            self.progress.shown.write(
                f"step {self.state.step}: not saved, training goes on: {full}"
            )

    def _log_curves(self) -> None:
        reports, self._reports = self._reports, []
        losses = [report.loss for report in reports if math.isfinite(report.loss)]
        loss = sum(losses) / len(losses) if losses else float("nan")
        pace_s = sum(report.seconds for report in reports) / len(reports)
        last = reports[-1]
        self.losses.append((last.step, loss))
        values = {"loss": loss, "lr": last.lr, "step_s": pace_s}
        self.metrics.log_metrics(values, step=last.step)
        self.progress.step(last.step, self.state.num_steps, loss=loss, pace_s=pace_s)

    def _validation_due(self) -> bool:
        """Tell whether a further share of the steps is done; their number may change on the way."""
        total, count = self.state.num_steps, self.cadence.num_validations
        if not total or self.state.finished:
            return False
        step = self.state.step
        before = max(self._num_due, (step - 1) * count // total)
        self._num_due = max(before, step * count // total)
        return self._num_due > before

    def _validate(self, *, whole: bool) -> None:
        scores = self.validate(whole=whole)
        self.scores = scores
        if not scores:
            return
        step = self.state.step
        self.metrics.log_metrics({f"dice/{name}": dice for name, dice in scores.items()}, step=step)
        history = self.state.history
        if history and history[-1]["step"] == step:
            # Killed between its last save and its end, and resumed only to end once more.
            history.pop()
        history.append({"step": step, **scores})
        self.progress.validated(step, dict(scores))
