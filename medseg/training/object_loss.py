"""The loss of a network that tells objects apart: of its classes, and of the way's own channels.

Axes: B batch, L output (classes first, then the way's channels), IJK voxel (2D: IJ).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from medseg.core.objects import Centres, Distances, Way
from medseg.losses.objects import centre_loss, depth_loss
from medseg.transforms.object_targets import (
    centre_targets,
    depth_targets,
    has_unknown_extent,
    number_objects,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLoss:
    """Sums the loss of the classes and the weighted losses of the way.

    Attributes:
        classes: loss of logits (or a tuple of them), label map and `annotated_BL`.
        num_classes: outputs that belong to it, background included.
        way: how objects are told apart.
        things: indices of the classes whose objects are.
        edges: of a voxel along the spatial axes, in any unit.
        ignore_index: label of voxels that nobody looked at; None where there is no such label.
    """

    classes: Callable[..., Tensor]
    num_classes: int
    way: Way
    things: tuple[int, ...]
    edges: tuple[float, ...]
    ignore_index: int | None = None

    def __call__(
        self,
        logits: Tensor | tuple[Tensor, ...],
        label_BIJK: Tensor,
        ids_BIJK: Tensor,
        objects_BM5: Tensor | None = None,
        annotated_BL: Tensor | None = None,
    ) -> Tensor:
        """Return the loss as a float32 scalar.

        Args:
            logits: (B, L, I, J, K); with deep supervision a tuple, of which only the finest is
                asked about objects.
            label_BIJK: indices of classes.
            ids_BIJK: of objects, after augmentation.
            objects_BM5: where the whole objects have their centres, as in `object_targets`; what
                `Centres` learns, and no other way asks for.
            annotated_BL: False where a class was not annotated; patches without all things say
                nothing about objects but inside those that were drawn.
        """
        levels = (logits,) if isinstance(logits, Tensor) else logits
        of_classes = tuple(level[:, : self.num_classes] for level in levels)
        loss = self.classes(
            of_classes[0] if isinstance(logits, Tensor) else of_classes,
            label_BIJK,
            annotated_BL=annotated_BL,
        )
        heads_BHIJK = levels[0][:, self.num_classes :].float()
        counted_BIJK = self._counted(label_BIJK, ids_BIJK, annotated_BL)
        return loss + self._of_way(heads_BHIJK, ids_BIJK, objects_BM5, counted_BIJK)

    def _of_way(
        self,
        heads_BHIJK: Tensor,
        ids_BIJK: Tensor,
        objects_BM5: Tensor | None,
        counted_BIJK: Tensor,
    ) -> Tensor:
        way = self.way
        if isinstance(way, Centres):
            if objects_BM5 is None:
                raise ValueError("centres are learnt from objects_BM5, which the batch lacks")
            counted_BIJK = counted_BIJK & ~has_unknown_extent(ids_BIJK, objects_BM5)
            heat_BIJK, offset_BAIJK = centre_targets(
                ids_BIJK, objects_BM5, edges=self.edges, sigma_share=way.sigma_share
            )
            heat, offset = centre_loss(
                heads_BHIJK,
                heat_BIJK,
                offset_BAIJK / way.unit_vox,
                counted_BIJK=counted_BIJK,
                inside_BIJK=ids_BIJK > 0,
            )
            return way.heat_weight * heat + way.offset_weight * offset
        if isinstance(way, Distances):
            depth_BIJK = depth_targets(ids_BIJK, edges=self.edges)
            return way.distance_weight * depth_loss(
                heads_BHIJK, depth_BIJK, counted_BIJK=counted_BIJK
            )
        return heads_BHIJK.new_zeros(())

    def _counted(self, label_BIJK: Tensor, ids_BIJK: Tensor, annotated_BL: Tensor | None) -> Tensor:
        """Tell which voxels say something about objects.

        Of an object beside ignored voxels nobody knows how far it goes, and so where its centre or
        its depth is.
        """
        counted_BIJK = torch.ones_like(label_BIJK, dtype=torch.bool)
        if annotated_BL is not None:
            known_B = annotated_BL[:, list(self.things)].all(1)
            known_BIJK = known_B.view(-1, *[1] * (label_BIJK.ndim - 1))
            counted_BIJK = known_BIJK | (ids_BIJK > 0)
        if self.ignore_index is None:
            return counted_BIJK
        ignored_BIJK = label_BIJK == self.ignore_index
        return counted_BIJK & ~ignored_BIJK & ~_beside(ids_BIJK, ignored_BIJK)


def _beside(ids_BIJK: Tensor, mask_BIJK: Tensor) -> Tensor:
    """Tell which voxels are of an object that lies in the mask or touches it."""
    pool = functional.max_pool3d if mask_BIJK.ndim == 4 else functional.max_pool2d
    near_BIJK = pool(mask_BIJK[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
    number_BIJK = number_objects(ids_BIJK)
    touched_M = torch.zeros(int(number_BIJK.max()) + 1, dtype=torch.bool, device=ids_BIJK.device)
    touched_M[number_BIJK[near_BIJK]] = True
    touched_M[0] = False
    return touched_M[number_BIJK]
