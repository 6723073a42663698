"""One pass over the cases of a dataset, in parallel: shapes, spacings, intensities, classes."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import PlanError
from medseg.core.fingerprint import CaseFingerprint, Fingerprint, Intensity
from medseg.core.geometry import Geometry, Unit
from medseg.data.manifest import Case, Manifest
from medseg.data.scans import read_reference, read_scan

Number = TypeVar("Number", int, float)
Progress = Callable[[Iterable["_Measured"]], Iterable["_Measured"]]

# Voxels drawn from a case for the intensity statistics, inside classes and anywhere.
_SAMPLE_VOX = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    case: CaseFingerprint
    foreground_CN: NDArray[np.float32]
    whole_CN: NDArray[np.float32]
    unit: Unit


def measured_cases(manifest: Manifest) -> tuple[Case, ...]:
    """Return the training cases; where there are none, the unlabelled ones. Never test cases."""
    return manifest.training_cases or manifest.unlabelled_cases


def measure(manifest: Manifest, *, num_workers: int = 1, progress: Progress = iter) -> Fingerprint:
    """Measure the cases of `measured_cases`.

    Args:
        manifest: the dataset.
        num_workers: threads; reading and unpacking release Python's lock.
        progress: wraps the stream of measured cases, to show how far it is.

    Raises:
        PlanError: no such cases, or scans with and without physical size in one dataset.
        MedsegError: a scan or a mask that cannot be read.
    """
    cases = measured_cases(manifest)
    if not cases:
        raise PlanError(
            f"{manifest.name}: no case has split train or unlabelled; there is nothing to measure"
        )
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        found = list(progress(pool.map(lambda case: _measure_case(manifest, case), cases)))
    units = {one.unit for one in found}
    if len(units) > 1:
        sized = next(one.case.case_id for one in found if one.unit == "mm")
        bare = next(one.case.case_id for one in found if one.unit == "px")
        raise PlanError(
            f"{manifest.name}: case {sized!r} has a voxel size in mm and case {bare!r} has none",
            hint="declare spacing_mm for the images that carry none, or leave it out for all",
        )
    wholes = [one.whole_CN for one in found]
    inside = [one.foreground_CN for one in found]
    return Fingerprint(
        cases=tuple(one.case for one in found),
        channels=tuple(
            (plane, channel.modality) for channel in manifest.channels for plane in channel.planes
        ),
        # Where no voxel is of a class, whole scans are all that is known of intensities.
        foreground=_pooled(inside if any(one.size for one in inside) else wholes),
        whole=_pooled(wholes),
        unit=units.pop(),
        manifest_digest=manifest.digest,
    )


def _measure_case(manifest: Manifest, case: Case) -> _Measured:
    scan = read_scan(manifest, case, missing="zero")
    class_vox, inside = _drawn(manifest, case, scan.geometry)
    order = scan.geometry.axis_order
    values_CN = scan.voxels.reshape(len(scan.channels), -1)
    rng = np.random.default_rng(values_CN.shape[1])
    return _Measured(
        case=CaseFingerprint(
            case_id=case.case_id,
            shape=_triple([scan.geometry.shape[axis] for axis in order]),
            spacing_mm=_triple([scan.geometry.spacing_mm[axis] for axis in order]),
            orientation=scan.geometry.orientation,
            class_vox=class_vox,
        ),
        foreground_CN=_sample(values_CN, inside, rng),
        whole_CN=_sample(values_CN, np.arange(values_CN.shape[1]), rng),
        unit=scan.geometry.unit,
    )


def _drawn(
    manifest: Manifest, case: Case, geometry: Geometry
) -> tuple[tuple[int | None, ...], NDArray[np.intp]]:
    """Return how many voxels each class has, and which are of any; nothing without labels."""
    if not case.labels:
        return (), np.zeros(0, np.intp)
    label_N = read_reference(manifest, case, geometry).only_channel.ravel()
    num_indices = manifest.labels.num_indices
    # Voxels to ignore have an index past the last class and count for none.
    counts = np.bincount(label_N, minlength=num_indices)[:num_indices]
    asked = manifest.labels.names if case.annotated is None else case.annotated
    known_L = np.array([True, *(name in asked for name in manifest.labels.names)])
    # As the losses see it, what was not annotated is part of the background.
    counts[0] += counts[~known_L].sum()
    class_vox = tuple(int(n) if known else None for n, known in zip(counts, known_L, strict=True))
    return class_vox, np.flatnonzero((label_N > 0) & (label_N < num_indices))


def _sample(
    values_CN: NDArray[np.float32], among: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float32]:
    if len(among) > _SAMPLE_VOX:
        among = rng.choice(among, _SAMPLE_VOX, replace=False)
    return values_CN[:, among]


def _pooled(samples: Sequence[NDArray[np.float32]]) -> tuple[Intensity, ...]:
    """Pool the samples of all cases into one summary a channel."""
    pooled_CN = np.concatenate(samples, axis=1).astype(np.float64)
    return tuple(_summary(values[np.isfinite(values)]) for values in pooled_CN)


def _summary(values: NDArray[np.float64]) -> Intensity:
    if not len(values):
        # None was finite: the neutral scale changes nothing.
        return Intensity(mean=0.0, std=1.0, low=0.0, high=1.0, minimum=0.0, maximum=1.0)
    low, high = np.percentile(values, (0.5, 99.5))
    return Intensity(
        mean=float(values.mean()),
        std=float(values.std()),
        low=float(low),
        high=float(high),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )


def _triple(values: Sequence[Number]) -> tuple[Number, Number, Number]:
    i, j, k = values
    return i, j, k
