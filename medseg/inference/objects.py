"""Objects on the scan's own grid, out of what networks said on the plan's.

Windows are blended before anything is grouped, so no object ends where a window does.
"""

from collections.abc import Sequence

import numpy as np
import torch

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet
from medseg.core.objects import ObjectPlan
from medseg.inference.restore import is_moved_exactly, restore_ids
from medseg.postprocess.fusion import fuse
from medseg.postprocess.objects import Objects, find_objects


def objects_on(
    scan: Geometry,
    label_map_IJK: LabelMap,
    outputs: tuple[torch.Tensor, torch.Tensor],
    *,
    prepared: Geometry,
    labels: LabelSet,
    plan: ObjectPlan,
    edges: Sequence[float],
) -> tuple[LabelMap, Objects]:
    """Tell the objects of a scan apart.

    Args:
        scan: the scan's own grid.
        label_map_IJK: classes on that grid.
        outputs: probabilities of the classes, and the way's own channels, on the prepared grid.
        prepared: that grid.
        labels: the classes, and which of them are things.
        plan: how objects are told apart.
        edges: of a voxel of the prepared grid, as they were trained on.

    Returns:
        Classes and objects on the scan's grid, agreeing voxel by voxel.
    """
    found = find_objects(
        *outputs,
        plan=plan,
        things=labels.things,
        edges=edges,
        least_vox=plan.least_vox(prepared),
    )
    moved = Objects(
        ids_IJK=restore_ids(torch.from_numpy(found.ids_IJK), prepared, onto=scan),
        class_M=found.class_M,
        confidence_M=found.confidence_M,
    )
    # Resampled, the rims of classes and objects lie up to half a prepared voxel apart.
    reach = (
        0.0 if is_moved_exactly(prepared, onto=scan) else np.linalg.norm(prepared.spacing_mm) / 2
    )
    return fuse(
        label_map_IJK, moved, things=labels.things, reach=float(reach), edges=scan.spacing_mm
    )
