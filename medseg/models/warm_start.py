"""Weights of another network to begin from: what fits is taken, what does not is told."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg.core.errors import CheckpointError
from medseg.models.checkpoint import RECONSTRUCTION
from medseg.models.tensor_file import load_newest

# Names of weights that a line of the report holds before it ends in a count.
_MOST_NAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What became of the weights that were offered.

    Attributes:
        taken: names of the tensors that were copied as they are.
        inflated: and of those whose input channels were repeated or averaged.
        missing: tensors of the network that keep their random start.
        unused: tensors offered that the network has no place for.
        share: of the network's numbers that were taken or inflated, 0 to 1.
    """

    taken: tuple[str, ...]
    inflated: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    share: float

    def lines(self) -> list[str]:
        """Say in words what was taken, and what was not."""
        told = [f"init: {self.share:.1%} of the weights taken, in {len(self.taken)} tensors"]
        if self.inflated:
            told.append(f"init: input channels repeated or averaged in {_listed(self.inflated)}")
        if self.missing:
            told.append(f"init: begins at random: {_listed(self.missing)}")
        if self.unused:
            told.append(f"init: not used: {_listed(self.unused)}")
        return told


def load_warm_start(
    path: Path, network: nn.Module, *, num_inputs: int, ends: Collection[str] = ()
) -> WarmStart:
    """Copy into a network what fits of a checkpoint of any kind, `model.pt` or its folder.

    A tensor fits where name and shape are the same. Where only the number of image channels
    differs, the filters of the first convolutions are inflated: see `inflate`. What ended in images
    is left: it fits a network with as many classes as channels, and knows nothing of them.

    Args:
        path: of the checkpoint.
        network: changed in place.
        num_inputs: its image channels.
        ends: names of the weights that make its outputs.

    Raises:
        CheckpointError: CKP-001 to CKP-003 as in `load_newest`; CKP-006 nothing fits.
    """
    path = path / "model.pt" if path.is_dir() else path
    value, _ = load_newest(path)
    offered = value.get("weights")
    if not isinstance(offered, Mapping):
        raise CheckpointError(
            f"{path}: holds no weights to begin from; expected a model.pt", code="CKP-006"
        )
    drew_images = value.get("trained_with", {}).get("objective") == RECONSTRUCTION
    found = copy_fitting(offered, network, num_inputs=num_inputs, left=ends if drew_images else ())
    if not found.taken and not found.inflated:
        raise CheckpointError(
            f"{path}: none of its {len(offered)} weights fits the network",
            code="CKP-006",
            hint="begin from a network of the same family and plan",
        )
    return found


@torch.no_grad()
def copy_fitting(
    offered: Mapping[str, Tensor],
    network: nn.Module,
    *,
    num_inputs: int,
    left: Collection[str] = (),
) -> WarmStart:
    """Copy the tensors that fit but for those to be left; see `load_warm_start`."""
    own = network.state_dict()
    # Their filters count outputs where those of others count inputs.
    growing = {
        f"{name}.weight"
        for name, layer in network.named_modules()
        if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
    }
    taken, inflated = [], []
    for name, target in own.items():
        source = offered.get(name)
        if source is None or name in left:
            continue
        if source.shape == target.shape:
            target.copy_(source)
            taken.append(name)
        elif name not in growing and _differs_in_channels(source, target, num_inputs):
            target.copy_(inflate(source, num_inputs))
            inflated.append(name)
    used = {*taken, *inflated}
    numbers = sum(own[name].numel() for name in used)
    return WarmStart(
        taken=tuple(taken),
        inflated=tuple(inflated),
        missing=tuple(name for name in own if name not in used),
        unused=tuple(name for name in offered if name not in used),
        share=numbers / max(1, sum(tensor.numel() for tensor in own.values())),
    )


def inflate(filters: Tensor, num_inputs: int) -> Tensor:
    """Return filters for another number of image channels.

    An image repeated in all new channels meets the response that its old channels, all alike, met:
    each new channel gets the mean over the old ones, scaled by their number over the new one (after
    Carreira and Zisserman, CVPR 2017, who repeat along time).

    Args:
        filters: (features, old channels, ...).
        num_inputs: new channels.
    """
    mean = filters.mean(dim=1, keepdim=True) * (filters.shape[1] / num_inputs)
    return mean.expand(-1, num_inputs, *filters.shape[2:])


def _differs_in_channels(source: Tensor, target: Tensor, num_inputs: int) -> bool:
    """Whether two filters differ in the number of image channels alone."""
    return (
        source.ndim == target.ndim >= 4
        and target.shape[1] == num_inputs
        and source.shape[:1] + source.shape[2:] == target.shape[:1] + target.shape[2:]
    )


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
