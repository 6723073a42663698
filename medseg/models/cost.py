"""What a network costs: its parameters, and the floating-point operations of one pass."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


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
