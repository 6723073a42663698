"""Feature maps brought to another size, by linear interpolation along every axis."""

import torch
from torch import Tensor
from torch.nn import functional

_MODES = {2: "bilinear", 3: "trilinear"}


def enlarge(x: Tensor, size: torch.Size) -> Tensor:
    """Return (B, C, I, J, K), or (B, C, I, J), features at another spatial size."""
    if x.shape[2:] == size:
        return x
    return functional.interpolate(x, size=size, mode=_MODES[len(size)], align_corners=False)
