"""DynUNet: the U-Net of nnU-Net (Isensee et al., Nature Methods 2021).

Needs at least three levels. Its first level works at full resolution, which on a CPU costs several
times what `unet` does.
"""

from monai.networks.nets import DynUNet
from torch import Tensor, nn

from medseg.core.plan import Plan
from medseg.models.levels import kernels_of, strides_of
from medseg.models.registry import Layer, register_model

_NORM = ("instance", {"affine": True})
_ACT = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})


@register_model("dynunet")
def dynunet(
    plan: Plan,
    *,
    num_inputs: int,
    num_outputs: int,
    residual: bool = False,
    norm: Layer = _NORM,
    act: Layer = _ACT,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a DynUNet; deep supervision is at all levels but the two deepest."""
    num_coarser = len(plan.network.widths) - 2
    network: nn.Module = LevelOutputs(
        spatial_dims=plan.spatial_dims,
        in_channels=num_inputs,
        out_channels=num_outputs,
        kernel_size=kernels_of(plan),
        strides=((1,) * plan.spatial_dims, *strides_of(plan)),
        upsample_kernel_size=strides_of(plan),
        filters=plan.network.widths,
        norm_name=norm,
        act_name=act,
        dropout=dropout or None,
        deep_supervision=plan.network.deep_supervision and num_coarser > 0,
        deep_supr_num=max(num_coarser, 1),
        res_block=residual,
    )
    return network


class LevelOutputs(DynUNet):  # type: ignore[misc]
    """DynUNet that returns coarser logits at their own size.

    MONAI's enlarges and stacks them, which costs more memory and time than all of them need.
    """

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits; while training with deep supervision all levels', finest first."""
        logits: Tensor = self.output_block(self.skip_layers(x))
        if not self.deep_supervision:
            return logits
        coarser = tuple(self.heads)
        # The layers share this list; left filled, it would keep a whole batch in memory.
        self.heads[:] = [logits.new_zeros(1)] * len(coarser)
        return (logits, *coarser) if self.training else logits
