"""Networks by name: a family is one file with one function under `@register_model`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from medseg.core.plan import Plan
from medseg.models.levels import stride_of
from medseg.models.padding import PaddedNetwork
from medseg.runtime.registry import Registry

# Which file holds which family; it is imported, and MONAI with it, when the name is asked for.
_HOMES = {
    "attention_unet": "medseg.models.attention_unet",
    "classic_unet": "medseg.models.classic_unet",
    "deeplabv3": "medseg.models.deeplab",
    "deeplabv3plus": "medseg.models.deeplab",
    "dynunet": "medseg.models.dynunet",
    "fcn": "medseg.models.fcn",
    "mednext": "medseg.models.mednext",
    "pspnet": "medseg.models.pspnet",
    "resenc_unet": "medseg.models.resenc_unet",
    "resunet": "medseg.models.unet",
    "segresnet": "medseg.models.segresnet",
    "swinunetr": "medseg.models.swinunetr",
    "unet": "medseg.models.unet",
    "unetplusplus": "medseg.models.unetplusplus",
    "unetr": "medseg.models.unetr",
    "vnet": "medseg.models.vnet",
}
# A layer by MONAI's name, or its name and options: `instance`, `[group, {num_groups: 8}]`.
Layer = str | Sequence[Any]
NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})

_registry = Registry("model", homes=_HOMES, given=("plan", "num_inputs", "num_outputs"))
# A family is a function of (plan, *, num_inputs, num_outputs, and its own settings).
register_model = _registry.register
model_names: Callable[[], tuple[str, ...]] = _registry.names
model_settings: Callable[[str], dict[str, Any]] = _registry.settings_of


def build_model(
    name: str,
    *,
    plan: Plan,
    num_inputs: int,
    num_outputs: int,
    settings: Mapping[str, Any] = NO_SETTINGS,
) -> nn.Module:
    """Build a network that takes inputs of any size.

    Args:
        name: of a family, see `model_names`.
        plan: whose `network` gives depth, width, strides and kernels, as far as families have them.
        num_inputs: image channels.
        num_outputs: channels of the logits, background included.
        settings: of the family, see `model_settings`.

    Returns:
        network(x_BCIJK) -> logits_BLIJK of the input's size; (B, C, I, J) and (B, L, I, J) for a
        plan with `spatial_dims` 2. While training with deep supervision, a tuple of logits, the
        finest first.

    Raises:
        ConfigError: an unknown family or setting (with the nearest), or a value it refuses.
    """
    given = {"plan": plan, "num_inputs": num_inputs, "num_outputs": num_outputs}
    network: nn.Module = _registry.build(name, given=given, settings=settings)
    # A family whose strides are not the plan's has padded itself.
    if isinstance(network, PaddedNetwork):
        return network
    return PaddedNetwork(network, multiple=stride_of(plan))


def has_coarser_outputs(
    name: str, *, plan: Plan, settings: Mapping[str, Any] = NO_SETTINGS
) -> bool:
    """Whether the plan's `deep_supervision` changes a family: whether it has weights for it."""

    def weights(*, asked: bool) -> set[str]:
        changed = replace(plan, network=replace(plan.network, deep_supervision=asked))
        network = build_model(
            name, plan=changed, num_inputs=len(plan.channels), num_outputs=2, settings=settings
        )
        return set(network.state_dict())

    # Networks draw their weights; a training must not notice.
    with torch.random.fork_rng(devices=[]):
        return weights(asked=True) != weights(asked=False)
