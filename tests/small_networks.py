"""Every family of networks at a size that computes within a test."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.models.registry import build_model

NUM_INPUTS, NUM_OUTPUTS = 2, 3
ISOTROPIC = ((2, 2, 2), (2, 2, 2))
THICK_SLICES = ((2, 2, 1), (2, 2, 2))

# Of the families whose widths are not the plan's.
NARROW: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "swinunetr": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
        "unetr": {"hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
    }
)
# The same layers, but fewer of them, for what takes long a layer.
SHALLOW: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **NARROW,
        **{name: {"encoder": "resnet18"} for name in ("deeplabv3", "deeplabv3plus", "fcn")},
        "mednext": {"num_blocks": 1},
        "pspnet": {"encoder": "resnet18"},
        "resenc_unet": {"blocks": [1]},
        "resunet": {"num_res_units": 1},
        "segresnet": {"blocks_down": [1, 1, 1]},
    }
)


def make_plan(
    dims: int = 3,
    strides: tuple[tuple[int, int, int], ...] = ISOTROPIC,
    *,
    deep_supervision: bool = False,
) -> Plan:
    """Return a plan of three levels for two channels."""
    levels = [(s[0], s[1], s[2] if dims == 3 else 1) for s in strides]
    return Plan(
        dataset="phantoms",
        spatial_dims=dims,
        orientation="RAS",
        spacing_mm=(1.0, 1.0, 1.0),
        patch_vox=(16, 16, 16 if dims == 3 else 1),
        intensity=tuple(IntensityPlan(channel=c, scheme="zscore") for c in ("CT", "PET")),
        network=NetworkPlan(
            widths=(8, 16, 32),
            strides=tuple(levels),
            kernels=tuple((3, 3, 3 if dims == 3 else 1) for _ in range(3)),
            deep_supervision=deep_supervision,
        ),
        training=TrainingPlan(batch_size=2, num_steps=10),
        device="cpu",
    )


def make_network(
    name: str, plan: Plan, settings: Mapping[str, Mapping[str, Any]] = NARROW
) -> nn.Module:
    """Build a family by name, with the same weights every time."""
    torch.manual_seed(0)
    return build_model(
        name,
        plan=plan,
        num_inputs=NUM_INPUTS,
        num_outputs=NUM_OUTPUTS,
        settings=settings.get(name, {}),
    )
