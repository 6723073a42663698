"""The pair of convolutions that a level of a U-Net is made of."""

from collections.abc import Sequence

from monai.networks.blocks import Convolution
from torch import nn

from medseg.models.registry import Layer


def pair(
    dims: int,
    num_inputs: int,
    num_outputs: int,
    *,
    kernel: Sequence[int],
    norm: Layer | None,
    act: Layer,
    dropout: float,
) -> nn.Sequential:
    """Return two convolutions of the same size out as in, each normalised and activated.

    Args:
        dims: spatial axes.
        num_inputs: features that come in.
        num_outputs: features of both convolutions.
        kernel: size of both, one number an axis.
        norm: normalisation layer; None: none, as in 2015.
        act: activation layer.
        dropout: share of features dropped after each, 0 to 1.
    """
    return nn.Sequential(
        *(
            Convolution(
                dims,
                seen,
                num_outputs,
                kernel_size=kernel,
                norm=norm,
                act=act,
                dropout=dropout,
            )
            for seen in (num_inputs, num_outputs)
        )
    )
