"""Light U-Nets of one strided convolution a level, or of residual units (Kerfoot et al., 2018).

In a plan for a CPU the first convolution already carries the first stride, so that no convolution
runs at full resolution: that is several times cheaper than the full-resolution first level which
other families have, such as the published U-Net (`classic_unet`).
"""

from monai.networks.nets import UNet
from torch import nn

from medseg.core.plan import Plan
from medseg.models.levels import largest_kernel, light_levels
from medseg.models.registry import Layer, register_model


@register_model("unet")
def unet(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    norm: Layer = "instance",
    act: Layer = "prelu",
    dropout: float = 0.0,
) -> nn.Module:
    """Build a U-Net of one convolution a level and direction."""
    return _light_unet(plan, num_inputs, num_outputs, norm=norm, act=act, dropout=dropout)


@register_model("resunet")
def resunet(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    num_res_units: int = 2,
    norm: Layer = "instance",
    act: Layer = "prelu",
    dropout: float = 0.0,
) -> nn.Module:
    """Build a U-Net whose levels are residual units of `num_res_units` convolutions."""
    if num_res_units < 1:
        raise ValueError(f"num_res_units {num_res_units}; expected at least 1 (0 is model=unet)")
    return _light_unet(
        plan,
        num_inputs,
        num_outputs,
        num_res_units=num_res_units,
        norm=norm,
        act=act,
        dropout=dropout,
    )


def _light_unet(
    plan: Plan,
    num_inputs: int,
    num_outputs: int,
    *,
    norm: Layer,
    act: Layer,
    dropout: float,
    num_res_units: int = 0,
) -> nn.Module:
    widths, strides = light_levels(plan)
    network: nn.Module = UNet(
        spatial_dims=plan.spatial_dims,
        in_channels=num_inputs,
        out_channels=num_outputs,
        channels=widths,
        strides=strides,
        kernel_size=largest_kernel(plan),
        up_kernel_size=largest_kernel(plan),
        num_res_units=num_res_units,
        norm=norm,
        act=act,
        dropout=dropout,
    )
    return network
