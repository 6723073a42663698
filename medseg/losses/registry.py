"""Losses by name: a loss is one file with one function under `@register_loss`.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from medseg.losses.comparison import Comparison, compare
from medseg.runtime.registry import Registry

_HOMES = {
    "boundary": "medseg.losses.boundary",
    "ce": "medseg.losses.ce",
    "cldice": "medseg.losses.cldice",
    "dice": "medseg.losses.dice",
    "dice_ce": "medseg.losses.dice_ce",
    "dice_focal": "medseg.losses.dice_focal",
    "generalised_dice": "medseg.losses.generalised_dice",
    "hausdorff_dt": "medseg.losses.hausdorff_dt",
    "topk": "medseg.losses.topk",
    "tversky": "medseg.losses.tversky",
}
NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})

# What a loss's own function returns: it sees labels without ignored or unannotated classes.
Term = Callable[[Comparison], Tensor]
# What training calls: logits, labels, and which classes were annotated.
LabelLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_registry = Registry("loss", homes=_HOMES, given=("num_outputs", "class_share", "spacing_mm"))
# A loss is a function of (*, what it asks for of these, and its own settings); it returns a Term.
register_loss = _registry.register
loss_names: Callable[[], tuple[str, ...]] = _registry.names
loss_settings: Callable[[str], dict[str, Any]] = _registry.settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A loss with its rule for voxels to ignore; called with logits and labels."""

    term: Term
    ignore_index: int | None

    def __call__(
        self, logits_BLIJK: Tensor, label_BIJK: Tensor, annotated_BL: Tensor | None = None
    ) -> Tensor:
        """Return the loss as a float32 scalar.

        Args:
            logits_BLIJK: of any floating type; compared in float32.
            label_BIJK: indices 0..L-1, and the ignore index, of any integer type.
            annotated_BL: bool, False where a class was not annotated in a scan: there it counts as
                part of the background. None where all classes were.
        """
        return self.term(
            compare(
                logits_BLIJK,
                label_BIJK,
                ignore_index=self.ignore_index,
                annotated_BL=annotated_BL,
            )
        )


def build_loss(
    name: str,
    *,
    num_outputs: int,
    ignore_index: int | None,
    class_share: Sequence[float] | None = None,
    spacing_mm: Sequence[float] | None = None,
    settings: Mapping[str, Any] = NO_SETTINGS,
) -> Loss:
    """Build a loss.

    Args:
        name: see `loss_names`.
        num_outputs: channels of the logits, background included.
        ignore_index: label of voxels that nobody labelled; None where there is no such label.
        class_share: share of all voxels of each label, background first; rules for class weights
            need it.
        spacing_mm: lengths of a voxel's edges, for losses that look at distances; None: 1 each.
        settings: of the loss, see `loss_settings`.

    Raises:
        ConfigError: an unknown loss or setting (with the nearest), or a value it refuses.
    """
    given = {"num_outputs": num_outputs, "class_share": class_share, "spacing_mm": spacing_mm}
    term = _registry.build(name, given=given, settings=settings)
    return Loss(term=term, ignore_index=ignore_index)
