"""Everything decided about a dataset before training: readable, editable, and checked at birth.

A plan is data, not code: it is what `plan.json` holds, what a checkpoint carries, and what both
training and prediction prepare scans by.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from math import inf, isfinite
from typing import Any, Literal

import numpy as np

from medseg.core.errors import PlanError

Scheme = Literal["zscore", "clip_zscore", "rescale", "none"]
Triple = tuple[int, int, int]
# Counted up when a plan of an earlier medseg would be read wrongly.
_VERSION = 1
_AXIS_CODES = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityPlan:
    """How one channel is normalised.

    Attributes:
        scheme: `zscore` by the scan's own mean and deviation; `clip_zscore` clips to `low`..`high`
            and uses the dataset's `mean` and `std` (CT, whose numbers mean the same everywhere);
            `rescale` maps `low`..`high` to 0..1 (8-bit images); `none`.
        mean, std, low, high: of the dataset, in the scans' own units.
    """

    channel: str
    scheme: Scheme
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.scheme not in ("zscore", "clip_zscore", "rescale", "none"):
            raise PlanError(
                f"intensity of {self.channel!r}: scheme {self.scheme!r}; "
                "expected zscore, clip_zscore, rescale or none"
            )
        # Written so that NaN fails, too.
        if not (self.std > 0 and self.low < self.high and isfinite(self.mean)):
            raise PlanError(
                f"intensity of {self.channel!r}: mean {self.mean}, std {self.std}, low {self.low}, "
                f"high {self.high}; expected numbers, std above 0 and low below high"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """Depth and width of a network, for every family to read as far as it can.

    Attributes:
        widths: feature channels, one entry a resolution level.
        strides: down-sampling between levels along i, j, k, one entry fewer than `widths`.
        kernels: kernel size along i, j, k, one entry a level.
        deep_supervision: outputs at coarser levels are trained too.
        full_resolution: networks whose first convolution may carry the first stride (`unet`,
            `resunet`) have a level at full resolution before it, as most families always do.
    """

    widths: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    deep_supervision: bool = False
    full_resolution: bool = False

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.widths) - 1 or len(self.kernels) != len(self.widths):
            raise PlanError(
                f"network: {len(self.widths)} widths, {len(self.strides)} strides, "
                f"{len(self.kernels)} kernels; expected n, n - 1, n"
            )
        if min(self.widths) < 1 or any(n < 1 for n in chain(*self.strides, *self.kernels)):
            raise PlanError(
                f"network: widths {self.widths}, strides {self.strides}, kernels {self.kernels}; "
                "expected whole numbers from 1"
            )
        if any(len(triple) != 3 for triple in (*self.strides, *self.kernels)):
            raise PlanError(
                f"network: strides {self.strides}, kernels {self.kernels}; expected i, j, k in each"
            )
        if any(later < earlier for earlier, later in pairwise(self.widths)):
            raise PlanError(f"network: widths {self.widths} fall with depth")

    @property
    def stride_vox(self) -> Triple:
        """Product of all strides: what a patch must be a multiple of."""
        i, j, k = (int(n) for n in np.prod([(1, 1, 1), *self.strides], axis=0))
        return i, j, k


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The budget and the sampling of a training.

    Attributes:
        batch_size: patches a step.
        num_steps: steps of a full training; a time budget replaces it.
        foreground_share: share of patches aimed at a voxel of a class.
        mirror_axes: axes (0, 1, 2) along which patches are flipped.
    """

    batch_size: int
    num_steps: int
    foreground_share: float = 1 / 3
    mirror_axes: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_steps < 1 or not 0 <= self.foreground_share <= 1:
            raise PlanError(
                f"training: batch_size {self.batch_size}, num_steps {self.num_steps}, "
                f"foreground_share {self.foreground_share}; expected at least 1, at least 1, 0 to 1"
            )
        if not set(self.mirror_axes) <= {0, 1, 2}:
            raise PlanError(f"training: mirror_axes {self.mirror_axes}; expected some of 0, 1, 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a pipeline must know about a dataset, decided once.

    Attributes:
        dataset: name of the dataset.
        spatial_dims: 2 (networks see slices i, j) or 3.
        orientation: axis codes that scans are brought to, such as `RAS`.
        spacing_mm: grid that scans are resampled to; None keeps each scan's own along that axis.
        patch_vox: patch the network is trained on; with `spatial_dims` 2 the last entry is 1.
        intensity: one entry a channel, in the order the network takes them.
        network, training: see there.
        device: what the budget was fitted to, `cpu` or `cuda`.
        fingerprint_digest: of the fingerprint the plan was made from.

    Raises:
        PlanError: a patch that the network's strides do not divide, values that contradict, or a
            plan of another version.
    """

    dataset: str
    spatial_dims: Literal[2, 3]
    orientation: str
    spacing_mm: tuple[float | None, float | None, float | None]
    patch_vox: Triple
    intensity: tuple[IntensityPlan, ...]
    network: NetworkPlan
    training: TrainingPlan
    device: str
    fingerprint_digest: str = ""
    version: int = _VERSION

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise PlanError(f"spatial_dims {self.spatial_dims}: expected 2 or 3")
        if self.version != _VERSION:
            raise PlanError(
                f"plan: version {self.version}; this medseg reads version {_VERSION}",
                hint="make the plan again with medseg plan",
            )
        if not self.intensity or len(set(self.channels)) != len(self.channels):
            raise PlanError(f"intensity: expected one entry a channel, found {self.channels}")
        self._check_grid()

    def _check_grid(self) -> None:
        if sorted(_AXIS_CODES.get(code, -1) for code in self.orientation) != [0, 1, 2]:
            raise PlanError(
                f"orientation {self.orientation!r}: expected one each of L or R, P or A, I or S"
            )
        if len(self.spacing_mm) != 3 or len(self.patch_vox) != 3:
            raise PlanError(
                f"spacing_mm {self.spacing_mm}, patch_vox {self.patch_vox}; expected i, j, k"
            )
        if not all(spacing is None or 0 < spacing < inf for spacing in self.spacing_mm):
            raise PlanError(f"spacing_mm {self.spacing_mm}: expected lengths above 0 or null")
        if self.spatial_dims == 2 and self.patch_vox[2] != 1:
            raise PlanError(f"patch_vox {self.patch_vox}: a 2D plan has 1 as its last entry")
        for axis, patch, stride in zip("ijk", self.patch_vox, self.network.stride_vox, strict=True):
            if patch < 1 or patch % stride:
                raise PlanError(
                    f"patch_vox along {axis} is {patch}; the network's strides ask for a "
                    f"multiple of {stride}"
                )

    @property
    def voxel_edges(self) -> tuple[float, float, float]:
        """Edges of a voxel along i, j, k as the plan knows them, in any unit.

        An axis that keeps each scan's own spacing counts as long as the longest known one; across
        the slices of a 2D plan nothing is measured.
        """
        spacing_mm = self.spacing_mm[: self.spatial_dims]
        longest_mm = max((edge for edge in spacing_mm if edge is not None), default=1.0)
        i, j, *rest = (edge or longest_mm for edge in spacing_mm)
        return i, j, (rest or [longest_mm])[0]

    @property
    def sided_axis(self) -> int:
        """The axis that runs between left and right."""
        return next(axis for axis, code in enumerate(self.orientation) if code in "LR")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, in the order the network takes them."""
        return tuple(entry.channel for entry in self.intensity)

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which `from_json` makes the same plan."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Plan":
        """Make the plan that `to_json` wrote, or a user edited.

        Raises:
            PlanError: a key that is missing or unknown, or a value the constructors refuse.
        """
        try:
            network, training = dict(value["network"]), dict(value["training"])
            return cls(
                **{
                    **value,
                    "spacing_mm": tuple(value["spacing_mm"]),
                    "patch_vox": tuple(value["patch_vox"]),
                    "intensity": tuple(IntensityPlan(**entry) for entry in value["intensity"]),
                    "network": NetworkPlan(
                        widths=tuple(network.pop("widths")),
                        strides=tuple(tuple(s) for s in network.pop("strides")),
                        kernels=tuple(tuple(k) for k in network.pop("kernels")),
                        **network,
                    ),
                    "training": TrainingPlan(
                        mirror_axes=tuple(training.pop("mirror_axes", (0, 1, 2))), **training
                    ),
                }
            )
        except KeyError as missing:
            raise PlanError(f"plan: the key {missing} is missing") from missing
        except (TypeError, ValueError) as unknown:
            raise PlanError(f"plan: {unknown}") from unknown
