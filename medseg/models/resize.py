"""Feature maps brought to another size, by linear interpolation along every axis."""

import torch
from torch import Tensor
from torch.nn import functional

_MODES = {2: "bilinear", 3: "trilinear"}


def enlarge(x: Tensor, size: torch.Size) -> Tensor:
    """Return (B, C, I, J, K), or (B, C, I, J), features at a spatial size.

    Their own size gives the features back. It is no case apart, which would bind a program made by
    `torch.export` to the inputs whose features have, or have not, that size.
    """
    return functional.interpolate(x, size=size, mode=_MODES[len(size)], align_corners=False)
