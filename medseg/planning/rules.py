"""From a fingerprint to a plan: pure functions that know datasets by their numbers alone.

The way follows nnU-Net (Isensee et al., Nature Methods 2021): spacing from the median case, a
patch with the median case's proportions within a budget, and as many levels as the patch bears.
What the budget is depends on the device, see `budgets`.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import PlanError
from medseg.core.fingerprint import Fingerprint, Intensity
from medseg.core.labels import LabelSet
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, Scheme, TrainingPlan, Triple
from medseg.planning.budgets import Budget, budget_of
from medseg.runtime.files import digest_json
from medseg.runtime.hardware import Hardware

Spacing = tuple[float | None, float | None, float | None]

# Modalities whose numbers mean the same on every scanner: HU, SUV.
_QUANTITATIVE = ("CT", "PT", "SUV")
# Single images of these show a body, which has an upper and a lower end.
_OF_BODIES = frozenset({"CT", "MR", "PT", "SUV", "US", "CR", "DX", "RF", "XA", "MG"})
# An axis this much coarser than the finest is neither convolved nor pooled across until it is not.
_ANISOTROPY = 2.0
# From this ratio on, the coarse axis is resampled to the finer of its cases, not to the median.
_VERY_ANISOTROPIC = 3.0
# Feature maps are not pooled below this many voxels along an axis (a patch within 2 % of a multiple
# becomes that multiple).
_LEAST_FEATURES_VOX = 0.98 * 4
# Networks of fewer levels are no longer what their papers describe; padding serves small cases.
_LEAST_LEVELS = 3
# Below this share of all voxels, classes are rare and most patches are aimed at them.
_RARE_SHARE = 0.01


def make_plan(
    fingerprint: Fingerprint,
    labels: LabelSet,
    *,
    dataset: str,
    spatial_dims: Literal[2, 3],
    hardware: Hardware,
) -> Plan:
    """Decide everything about a dataset from its fingerprint and the device at hand.

    Raises:
        PlanError: a fingerprint without cases.
    """
    if not fingerprint.cases:
        raise PlanError("fingerprint: expected at least one case")
    budget = budget_of(hardware, spatial_dims)
    spacing_mm = target_spacing(fingerprint, spatial_dims, case_vox=budget.case_vox)
    shape = median_shape(fingerprint, spacing_mm)
    known = [
        own if wanted is None else wanted
        for own, wanted in zip(_median(fingerprint.spacings_mm), spacing_mm, strict=True)
    ]
    network, patch_vox = fit_network(shape, known, budget=budget, spatial_dims=spatial_dims)
    shares = fingerprint.class_share[1:]
    return Plan(
        dataset=dataset,
        spatial_dims=spatial_dims,
        orientation="RAS",
        spacing_mm=spacing_mm,
        patch_vox=patch_vox,
        intensity=tuple(
            intensity_plan(name, modality, foreground=inside, whole=whole)
            for (name, modality), inside, whole in zip(
                fingerprint.channels, fingerprint.foreground, fingerprint.whole, strict=True
            )
        ),
        network=network,
        training=TrainingPlan(
            batch_size=_batch_size(patch_vox, budget),
            num_steps=budget.num_steps,
            foreground_share=0.75 if shares and sum(shares) < _RARE_SHARE else 0.5,
            mirror_axes=mirror_axes(fingerprint, labels),
        ),
        device=hardware.device,
        fingerprint_digest=digest_json(fingerprint.to_json()),
    )


def target_spacing(
    fingerprint: Fingerprint, spatial_dims: Literal[2, 3], *, case_vox: int
) -> Spacing:
    """Median spacing; finer along a very coarse axis; coarser where cases exceed the budget.

    Images without physical size, and the slice axis of 2D plans, keep their own grid.
    """
    if fingerprint.unit == "px":
        return None, None, None
    spacing = _median(fingerprint.spacings_mm)
    worst = int(np.argmax(spacing))
    if spacing[worst] > _VERY_ANISOTROPIC * float(np.delete(spacing, worst).max()):
        spacing[worst] = float(np.percentile(fingerprint.spacings_mm[:, worst], 10))
    axes = 2 if spatial_dims == 2 else 3
    extent_mm = _median(fingerprint.shapes * fingerprint.spacings_mm)[:axes]
    while np.prod(extent_mm / spacing[:axes]) > case_vox:
        # Coarsen what is finest first: anisotropic scans become isotropic before all is coarser.
        finest = spacing[:axes] <= spacing[:axes].min() * 1.05
        spacing[:axes] = np.where(finest, spacing[:axes] * 1.05, spacing[:axes])
    i, j, k = (float(f"{s:.5g}") for s in spacing)
    return (i, j, None) if spatial_dims == 2 else (i, j, k)


def median_shape(fingerprint: Fingerprint, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Shape of the median case once resampled, along R, A, S."""
    wanted = np.array([np.nan if s is None else s for s in spacing_mm])
    scale = np.where(np.isnan(wanted), 1.0, fingerprint.spacings_mm / wanted)
    return _median(fingerprint.shapes * scale)


def fit_network(
    shape: NDArray[np.float64],
    spacing_mm: Sequence[float],
    *,
    budget: Budget,
    spatial_dims: Literal[2, 3],
) -> tuple[NetworkPlan, Triple]:
    """Choose patch, strides and kernels together, since a patch must suit the strides.

    Args:
        shape: of the median case on the plan's grid.
        spacing_mm: of that grid (pixels, where images have no size).
        budget: of the device.
        spatial_dims: with 2, the last axis is left alone.
    """
    axes = 2 if spatial_dims == 2 else 3
    patch = np.ones(3)
    patch[:axes] = _within(np.maximum(shape[:axes], 1), budget.patch_vox)
    strides, kernels = _levels(patch, np.array(spacing_mm), budget=budget, axes=axes)
    total = np.prod([(1, 1, 1), *strides], axis=0)
    i, j, k = (int(n) for n in _rounded(patch, total, shape, limit=budget.patch_vox))
    network = NetworkPlan(
        widths=budget.widths[: len(kernels)],
        strides=strides,
        kernels=kernels,
        full_resolution=not budget.halve_first,
    )
    return network, (i, j, k)


def intensity_plan(
    channel: str, modality: str, *, foreground: Intensity, whole: Intensity
) -> IntensityPlan:
    """Choose a normalisation: one scale where numbers are quantities, else each scan's own."""
    scheme: Scheme = "zscore"
    low, high = foreground.low, foreground.high
    if modality in _QUANTITATIVE:
        scheme = "clip_zscore"
    if modality in ("PT", "SUV"):
        # Uptake is told by its contrast to the body around it, down to none at all.
        low = min(low, whole.low)
    return IntensityPlan(
        channel=channel,
        scheme=scheme,
        mean=round(foreground.mean, 6),
        std=round(max(foreground.std, 1e-6), 6),
        low=round(low, 6),
        high=round(max(high, low + 1e-6), 6),
    )


def mirror_axes(fingerprint: Fingerprint, labels: LabelSet) -> tuple[int, ...]:
    """Axes along which patches may be flipped: bodies are alike left to right, pictures any way.

    Where classes have a side there is no flip. A mirrored body has its liver on the left, so flips
    would take away what tells left from right; and sides that are not declared partners would even
    be confused. `overrides.mirror_axes=[0]` flips all the same, and then partners change places.
    """
    words = {word for name in labels.names for word in name.lower().replace("_", " ").split()}
    if {"left", "right"} & words or any(label.partner for label in labels.labels):
        return ()
    modalities = {modality for _, modality in fingerprint.channels}
    flat = bool((fingerprint.shapes[:, 2] == 1).all())
    return (0, 1) if flat and not modalities & _OF_BODIES else (0,)


def _levels(
    patch: NDArray[np.float64], spacing_mm: NDArray[np.float64], *, budget: Budget, axes: int
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Strides between levels and kernels of levels, while the patch bears another halving."""
    size, spacing = patch.copy(), spacing_mm.astype(np.float64).copy()
    active = np.arange(3) < axes
    strides: list[Triple] = []
    kernels: list[Triple] = []
    for level in range(len(budget.widths)):
        finest = spacing[active].min()
        near = active & (spacing < _ANISOTROPY * finest)
        kernels.append(_chosen(near, 3))
        pooled = near & (size / 2 >= _LEAST_FEATURES_VOX)
        if not pooled.any():
            if level + 1 >= _LEAST_LEVELS:
                break
            pooled = near & (size > 1)
        if level < len(budget.widths) - 1:
            strides.append(_chosen(pooled, 2))
        size, spacing = np.where(pooled, size / 2, size), np.where(pooled, spacing * 2, spacing)
    return tuple(strides[: len(kernels) - 1]), tuple(kernels)


def _chosen(axes: NDArray[np.bool_], value: int) -> Triple:
    i, j, k = (value if chosen else 1 for chosen in axes)
    return i, j, k


def _within(shape: NDArray[np.float64], budget_vox: int) -> NDArray[np.float64]:
    """Shrink a shape to a number of voxels, its longest sides first, so that it nears a cube."""
    fitted = shape.copy()
    while np.prod(fitted) > budget_vox:
        longest = fitted >= fitted.max() * 0.98
        fitted = np.where(longest, fitted * 0.98, fitted)
    return fitted


def _rounded(
    patch: NDArray[np.float64],
    multiple: NDArray[np.int64],
    shape: NDArray[np.float64],
    *,
    limit: int,
) -> NDArray[np.int64]:
    """Round to multiples of the strides: up where the case ends there, within the budget."""
    up = (np.ceil(patch / multiple) * multiple).astype(np.int64)
    nearest = np.maximum(np.rint(patch / multiple), 1).astype(np.int64) * multiple
    whole_case = patch >= shape - 0.5
    rounded = np.where(whole_case, up, nearest)
    while np.prod(rounded) > 1.25 * limit:
        longest = int(np.argmax(rounded))
        rounded[longest] -= multiple[longest]
    return np.asarray(rounded)


def _batch_size(patch_vox: Triple, budget: Budget) -> int:
    """Fill the step's budget with small patches, without ever exceeding four times the batch."""
    room = budget.patch_vox * budget.batch_size / int(np.prod(patch_vox))
    return int(np.clip(room, budget.batch_size, 4 * budget.batch_size))


def _median(values: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.median(values, axis=0), dtype=np.float64)
