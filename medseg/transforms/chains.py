"""The MONAI chain that brings a scan onto the grid and the scale of a plan.

Training and prediction run this same chain, so what a network sees never depends on who asks.
"""

from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Orientation, Spacing

from medseg.core.errors import PlanError
from medseg.core.geometry import Geometry
from medseg.core.plan import Plan
from medseg.core.volume import Array, Volume
from medseg.transforms.intensity import normalise

_RAS = (("L", "R"), ("P", "A"), ("I", "S"))
# Spacings this close (relative) are the same: resampling for header round-off only blurs.
_SAME_SPACING = 1e-3
# Bumped whenever the chain's output changes, so that caches made before are not mistaken for it.
CHAIN_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A scan, and its label map where there is one, as the network takes them.

    Attributes:
        image_CIJK: float32, on the plan's grid and scale.
        label_IJK: uint8 or int16 indices on the same grid, None when nobody labelled the scan.
        geometry: where that grid lies.
        ids_IJK: int32 ids of objects on the same grid, None where they are not told apart.
    """

    image_CIJK: torch.Tensor
    label_IJK: torch.Tensor | None
    geometry: Geometry
    ids_IJK: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class PrepareChain:
    """Reorient, resample, normalise: linear for images, nearest for labels and ids."""

    plan: Plan

    def __call__(
        self, scan: Volume, reference: Volume | None = None, ids: Volume | None = None
    ) -> Prepared:
        """Prepare a scan and, on the same grid, its reference and the ids of its objects.

        Raises:
            PlanError: SCN-008 the scan has other channels than the plan.
        """
        if scan.channels != self.plan.channels and len(scan.channels) != len(self.plan.channels):
            raise PlanError(
                f"the scan has channels {scan.channels}, the plan wants {self.plan.channels}",
                code="SCN-008",
                hint="a scan of several files is segmented with manifest=",
            )
        image = self._resample(scan.voxels.astype(np.float32), scan.geometry, mode="bilinear")
        geometry = Geometry(
            tuple(image.shape[1:]), np.asarray(image.affine, dtype=np.float64), scan.geometry.unit
        )
        label = None
        if reference is not None:
            label = self._resample(
                reference.voxels[:1].astype(np.float32), reference.geometry, mode="nearest"
            )
            kind = torch.uint8 if reference.voxels.dtype == np.uint8 else torch.int16
            label = label.as_tensor()[0].to(kind)
        objects = None
        if ids is not None:
            # Ids are consecutive and few enough for float32 to hold each exactly.
            moved = self._resample(ids.voxels.astype(np.float32), ids.geometry, mode="nearest")
            objects = moved.as_tensor()[0].to(torch.int32)
        image_CIJK = normalise(image.as_tensor(), self.plan.intensity)
        return Prepared(image_CIJK, label, geometry, objects)

    def _resample(self, voxels: Array, geometry: Geometry, *, mode: str) -> MetaTensor:
        affine = torch.from_numpy(geometry.affine.copy())
        placed = MetaTensor(torch.from_numpy(voxels), affine=affine)
        oriented = Orientation(axcodes=self.plan.orientation, labels=_RAS)(placed)
        own_mm = np.linalg.norm(np.asarray(oriented.affine)[:3, :3], axis=0)
        wanted_mm = [
            own if wanted is None or abs(wanted - own) < _SAME_SPACING * own else wanted
            for own, wanted in zip(own_mm.tolist(), self.plan.spacing_mm, strict=True)
        ]
        if wanted_mm == own_mm.tolist():
            return oriented
        resample = Spacing(
            wanted_mm, mode=mode, padding_mode="border", align_corners=False, dtype=None
        )
        return resample(oriented)
