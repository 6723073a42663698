"""How far a training is, in words: step, epoch, loss, Dice, time left."""

from dataclasses import dataclass

from medseg.runtime.console import LiveProgress


@dataclass(slots=True, kw_only=True)
class ProgressLine:
    """Tells the user about a training.

    Attributes:
        shown: where it is shown.
        steps_an_epoch: steps in which every case comes about once, at least 1.
        dice: mean of the last validation; None before the first.
    """

    shown: LiveProgress
    steps_an_epoch: int = 1
    dice: float | None = None

    def step(self, step: int, num_steps: int | None, *, loss: float, pace_s: float) -> None:
        """Tell how far the training is.

        Args:
            step: steps done.
            num_steps: steps there will be, None while that is not known.
            loss: mean over the last steps.
            pace_s: seconds a step takes.
        """
        of = f"/{num_steps}" if num_steps else ""
        dice = "" if self.dice is None else f"  Dice {self.dice:.3f}"
        left = f"  {_clock((num_steps - step) * pace_s)} left" if num_steps else ""
        epoch = step / self.steps_an_epoch
        text = f"step {step}{of}  epoch {epoch:.1f}  loss {loss:.3f}{dice}{left}"
        self.shown.update(step, num_steps, text)

    def validated(self, step: int, scores: dict[str, float]) -> None:
        """Tell the scores of a validation, mean Dice per class and `mean`."""
        self.dice = scores["mean"]
        told = "  ".join(f"{name} {dice:.3f}" for name, dice in scores.items())
        self.shown.write(f"step {step}: validation Dice  {told}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
