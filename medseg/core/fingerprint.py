"""What a dataset looks like in numbers: the only thing the planning rules are allowed to see."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """Intensities of one channel, in the units of the scans (HU for CT, SUV for PET).

    `low` and `high` are the 0.5th and 99.5th percentiles; taken over voxels of any class
    (`foreground`; whole scans, where there are none) or over the whole scan.
    """

    mean: float
    std: float
    low: float
    high: float
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFingerprint:
    """One case: its grid, and how many voxels of each class (background first) it holds.

    `class_vox` is None for a class that was not annotated in the case, whose voxels are then part
    of the background; it is empty where nobody labelled the case.

    `shape` and `spacing_mm` are given along the voxel axes nearest to R, A and S, whatever the
    `orientation` of the scan, so that cases compare.
    """

    case_id: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    class_vox: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """A training set in numbers, labelled or not; test cases are never part of it.

    Attributes:
        cases: one entry a case.
        channels: names of the channels, each with its modality, in order.
        foreground: intensities inside any class, a channel each.
        whole: intensities of whole scans, a channel each.
        unit: `mm`, or `px` where images carry no physical size.
        manifest_digest: of the manifest that was measured.
    """

    cases: tuple[CaseFingerprint, ...]
    channels: tuple[tuple[str, str], ...]
    foreground: tuple[Intensity, ...]
    whole: tuple[Intensity, ...]
    unit: Unit
    manifest_digest: str

    @property
    def spacings_mm(self) -> NDArray[np.float64]:
        """Spacing of every case, N x 3."""
        return np.array([case.spacing_mm for case in self.cases], dtype=np.float64)

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Shape of every case, N x 3."""
        return np.array([case.shape for case in self.cases], dtype=np.int64)

    @property
    def class_share(self) -> tuple[float, ...]:
        """Share of all voxels that belong to each class, background first; empty without labels.

        A class is counted in the cases that were annotated for it, and 0 where there is none; the
        background is what the classes leave.
        """
        vox_NL = np.array([case.class_vox for case in self.cases], dtype=np.float64)
        size_N1 = np.nansum(vox_NL, axis=1, keepdims=True)
        annotated_L = np.where(np.isnan(vox_NL), 0, size_N1).sum(axis=0)
        # What each class would hold of all voxels, were every case annotated for it.
        total_L = np.nansum(vox_NL, axis=0) * (size_N1.sum() / np.maximum(annotated_L, 1))
        total_L[:1] = max(size_N1.sum() - total_L[1:].sum(), 0)
        return tuple(float(share) for share in total_L / total_L.sum())

    def to_json(self) -> dict[str, Any]:
        """Return plain values from which `from_json` makes the same fingerprint."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Fingerprint":
        """Make the fingerprint that `to_json` wrote."""
        return cls(
            cases=tuple(
                CaseFingerprint(
                    case_id=case["case_id"],
                    shape=tuple(case["shape"]),
                    spacing_mm=tuple(case["spacing_mm"]),
                    orientation=case["orientation"],
                    class_vox=tuple(case["class_vox"]),
                )
                for case in value["cases"]
            ),
            channels=tuple((name, modality) for name, modality in value["channels"]),
            foreground=tuple(Intensity(**entry) for entry in value["foreground"]),
            whole=tuple(Intensity(**entry) for entry in value["whole"]),
            unit=value["unit"],
            manifest_digest=value["manifest_digest"],
        )
