"""Targets of objects that were drawn whole, as a batch would bring them along."""

import torch
from torch import Tensor

from medseg.data.object_table import ObjectTable, stack_rows
from medseg.transforms.object_targets import centre_targets


def rows_of(ids_BIJK: Tensor, edges) -> Tensor:
    """Return objects_BM5 of patches (2D: B, I, J) that hold all of their objects."""
    volumes = ids_BIJK[..., None] if ids_BIJK.ndim == 3 else ids_BIJK
    edges = (*edges, 1.0)[:3]
    tables = [ObjectTable.of(ids.numpy(), edges=edges, flat=False) for ids in volumes]
    rows = [
        table.within(ids.numpy(), (0, 0, 0)) for table, ids in zip(tables, volumes, strict=True)
    ]
    return torch.from_numpy(stack_rows(rows))


def whole_centre_targets(ids_BIJK: Tensor, *, edges, sigma_share: float) -> tuple[Tensor, Tensor]:
    """Return heat and offsets of patches that hold all of their objects."""
    rows = rows_of(ids_BIJK, edges)
    return centre_targets(ids_BIJK, rows, edges=edges, sigma_share=sigma_share)
