"""V-Net (Milletari et al., 3DV 2016), in 2D, too.

It halves every axis four times, whatever the plan's strides, and has widths of its own; its first
level works at full resolution.
"""

from monai.networks.layers.factories import Conv
from monai.networks.nets import VNet
from torch import nn

from medseg.core.plan import Plan
from medseg.models.padding import PaddedNetwork
from medseg.models.registry import register_model

_WIDTH = 16
_STRIDE = 16


@register_model("vnet")
def vnet(plan: Plan, *, num_inputs: int, num_outputs: int, dropout: float = 0.5) -> nn.Module:
    """Build a V-Net."""
    dims = plan.spatial_dims
    # V-Net adds copies of its input to its first 16 features, so it takes only divisors of 16.
    fits = _WIDTH % num_inputs == 0
    network: nn.Module = VNet(
        spatial_dims=dims,
        in_channels=num_inputs if fits else _WIDTH,
        out_channels=num_outputs,
        dropout_prob_down=dropout,
        dropout_prob_up=(dropout, dropout),
    )
    if dims == 2:
        _drop_slices_features(network)
    if not fits:
        network = nn.Sequential(Conv[Conv.CONV, dims](num_inputs, _WIDTH, 1), network)
    return PaddedNetwork(network, multiple=(_STRIDE,) * dims)


def _drop_slices_features(network: nn.Module) -> None:
    """Let a 2D network drop features; MONAI 1.6 drops whole slices of the batch instead."""
    for part in list(network.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, nn.Dropout3d):
                setattr(part, name, nn.Dropout2d(layer.p))
