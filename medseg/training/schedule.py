"""Learning rates over the steps of a training, and budgets of time turned into steps."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from medseg.core.errors import ConfigError

# Factor on the optimizer's learning rate at a step, given how many steps there will be.
Schedule = Callable[[int, int | None], float]

# Before this turn of a time budget most steps were slow: memory is laid out, kernels are chosen.
_FIRST_TURN = 2
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """Rise linearly over the first steps, then fall along half a cosine to `floor`.

    Loshchilov and Hutter, SGDR (ICLR 2017), without restarts. While the number of steps is not
    known yet, the rate stays up.
    """

    warmup_steps: int = 20
    floor: float = 0.0

    def __call__(self, step: int, num_steps: int | None) -> float:
        """Return the factor at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if num_steps is None:
            return 1.0
        share = _progress(step, self.warmup_steps, num_steps)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """Rise linearly over the first steps, then fall as (1 - progress) ** power (nnU-Net)."""

    warmup_steps: int = 0
    power: float = 0.9

    def __call__(self, step: int, num_steps: int | None) -> float:
        """Return the factor at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if num_steps is None:
            return 1.0
        return float((1 - _progress(step, self.warmup_steps, num_steps)) ** self.power)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """Keep the learning rate."""

    def __call__(self, _step: int, _num_steps: int | None) -> float:
        """Return 1."""
        return 1.0


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "cosine": Cosine,
    "polynomial": Polynomial,
    "constant": Constant,
}


def seconds_of(duration: float | str) -> float:
    """Read a duration such as `90`, `"150s"`, `"10m"`, `"1h30m"` as seconds.

    Raises:
        ConfigError: anything else, or nothing above zero.
    """
    text = str(duration).strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    rest = re.sub(r"(\d+(?:\.\d+)?)\s*[smhd]?", "", text).strip()
    seconds = sum(float(number) * _UNIT_S[unit or "s"] for number, unit in parts)
    if rest or not seconds > 0:
        raise ConfigError(
            f"max_time={duration}: expected a duration such as 90, 150s, 10m or 1h30m"
        )
    return seconds


def _progress(step: int, first: int, num_steps: int) -> float:
    return min(1.0, (step - first) / max(1, num_steps - first))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a training lasts: a number of steps, or a time that becomes one.

    A schedule that followed the clock would never be the same twice. So a time is turned into a
    number of steps, and kept until the next turn: told only once, on a machine that was busy just
    then, a training would spend half of the time it was given, or twice as much. The last turn is
    the end of the time itself.

    Attributes:
        num_steps: the most there will be; None: as many as the time allows.
        max_time_s: seconds of training steps (validation not counted); None: `num_steps` holds.
        num_turns: parts of the time; steps are counted after the second and each later one.
    """

    num_steps: int | None
    max_time_s: float | None
    num_turns: int = 20

    def __post_init__(self) -> None:
        if self.num_steps is None and self.max_time_s is None:
            raise ConfigError("training: expected max_steps or max_time, found neither")
        if self.num_steps is not None and not (
            isinstance(self.num_steps, int) and self.num_steps > 0
        ):
            raise ConfigError(
                f"training.max_steps={self.num_steps}: expected a whole number above 0"
            )

    def count(self, step: int, *, seconds: float, last_s: float, pace_s: float) -> int | None:
        """Return how many steps there will be; None where there is nothing new to say.

        Args:
            step: steps done.
            seconds: they took.
            last_s: of these, the last step took.
            pace_s: what a step took of late.
        """
        if self.max_time_s is None:
            return self.num_steps
        turn, before = (
            int(s / self.max_time_s * self.num_turns) for s in (seconds, seconds - last_s)
        )
        if turn < _FIRST_TURN:
            # A limit of steps holds from the start: they may all be done before the second turn.
            return self.num_steps
        if turn == before:
            return None
        left_s = max(0.0, self.max_time_s - seconds)
        steps = step + int(left_s / pace_s)
        return min(steps, self.num_steps) if self.num_steps else steps
