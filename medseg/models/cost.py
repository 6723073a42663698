"""What a network costs: its parameters, and the floating-point operations of one pass."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one network costs.

    Attributes:
        num_parameters: numbers that training adjusts.
        patch_flops: floating-point operations of one pass over one patch, see `count_flops`.
    """

    num_parameters: int
    patch_flops: int

    def __str__(self) -> str:
        parameters = _short(self.num_parameters).strip()
        return f"{parameters} parameters, {_short(self.patch_flops)}FLOP a patch"


def cost_of(network: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Count both; `shape` is that of one patch, (1, C, I, J, K) or (1, C, I, J)."""
    return Cost(num_parameters=count_parameters(network), patch_flops=count_flops(network, shape))


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers training adjusts."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def count_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the operations of one forward pass in evaluation, a multiply-add counted as two.

    Args:
        network: stays in the mode it is in.
        shape: of the input, such as (1, C, I, J, K).
    """
    device = next(network.parameters()).device
    training = network.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(shape, device=device))
    network.train(training)
    return int(counter.get_total_flops())


def _short(number: int) -> str:
    """Three digits and a prefix, such as `1.93 M`."""
    for prefix, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # Not 1e+03 of the smaller unit.
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g} {prefix}"
    return f"{number} "
