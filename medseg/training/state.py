"""Everything a training must remember to go on as if nothing had happened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from medseg.core.errors import CheckpointError

# How fast the averaging window widens: after t steps it spans about t / (_EMA_WIDENING + 1).
_EMA_WIDENING = 16
_EMA_MOST = 0.9995


class WeightAverage:
    """A running average of a network's weights, which predicts better than the last ones.

    The window widens with the steps done (polynomial-decay averaging: Shamir and Zhang, ICML
    2013), so it needs to know nothing of how many are to come.
    """

    def __init__(self, network: nn.Module) -> None:
        self.weights = {name: value.detach().clone() for name, value in _tensors(network)}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(_EMA_MOST, 1 - (1 + _EMA_WIDENING) / (step + 1 + _EMA_WIDENING))
        averaged, current, copied = [], [], []
        for name, value in _tensors(network):
            if value.is_floating_point():
                averaged.append(self.weights[name])
                current.append(value.detach())
            else:
                copied.append((self.weights[name], value))
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for held, value in copied:
            held.copy_(value)


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """The moving parts of a training.

    Attributes:
        network, optimizer, average: see PyTorch and `WeightAverage`.
        step: steps done.
        num_steps: steps there will be; None until a time budget has become a number.
        seconds: spent in steps, over all the runs that were resumed.
        history: one row a validation, with the step and the scores.
        frozen: names of weights that do not change in the first steps.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage
    step: int = 0
    num_steps: int | None = None
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    frozen: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.num_steps is not None and self.step >= self.num_steps

    def to_tensors(self) -> dict[str, Any]:
        """Return tensors and plain values from which `load` goes on, random state included."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "network": dict(self.network.state_dict()),
            "average": dict(self.average.weights),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "num_steps": self.num_steps,
            "seconds": self.seconds,
            "history": self.history,
            "frozen": list(self.frozen),
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def load(self, value: Mapping[str, Any]) -> None:
        """Go on from what `to_tensors` returned.

        Raises:
            CheckpointError: a state of another network or optimizer.
        """
        try:
            self.network.load_state_dict(value["network"])
            self.optimizer.load_state_dict(value["optimizer"])
            for name, held in self.average.weights.items():
                held.copy_(value["average"][name])
        except (RuntimeError, ValueError, KeyError) as fault:
            raise CheckpointError(
                f"state.pt: belongs to another network or optimizer: {str(fault).splitlines()[0]}",
                hint="resume with the settings the training began with",
            ) from fault
        self.step, self.num_steps = value["step"], value["num_steps"]
        self.seconds, self.history = value["seconds"], list(value["history"])
        self.frozen = tuple(value.get("frozen", ()))
        torch.set_rng_state(value["random"]["cpu"])
        if torch.cuda.is_available() and value["random"]["cuda"]:
            torch.cuda.set_rng_state_all(value["random"]["cuda"])


def _tensors(network: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    return network.state_dict().items()
