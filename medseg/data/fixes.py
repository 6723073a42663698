"""Repairs that are certain: copies of files whose fault, and whose cure, leave no doubt.

Nothing is changed in place. A copy goes below `medseg_fixed` in the data root, under the path of
its original; what could be meant in two ways is left to the user.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from medseg.core.errors import GeometryError, LabelError, MedsegError
from medseg.core.geometry import Geometry
from medseg.core.stored_values import values_in, whole_numbers
from medseg.core.volume import Array, Volume
from medseg.data.case import Annotation, Case
from medseg.data.contents import digest_of_case, image_digests
from medseg.data.manifest import Manifest
from medseg.data.pool import outcomes
from medseg.io.formats import fitting_name, read_volume, write_volume
from medseg.io.sniff import sniff, suffix_of
from medseg.runtime.files import digest_json, write_with

FOLDER = "medseg_fixed"
# Masks of these formats carry numbers and a grid, and nothing that a new file would lack.
_REWRITTEN = (".nii", ".nii.gz", ".mha")
# Headers whose voxels lie in a file of their own go nowhere without it.
_DETACHED = (".hdr", ".hdr.gz", ".img", ".img.gz", ".nhdr", ".mhd")
# The two placements of a NIfTI file contradict each other; that of the scan settles it.
_FORMS = frozenset({"NII-012", "NII-013", "NII-014"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """One file that was copied with a repair.

    Attributes:
        case_id: of the case.
        codes: FIX-001 the name says another format than the content, FIX-002 a mask stored as
            real numbers that are all whole, FIX-003 a mask that lies within round-off of its scan,
            but not exactly on it, FIX-004 a mask whose two placements disagree while one is that
            of its scan.
        original, copy: paths below the data root.
        message: what was wrong.
    """

    case_id: str
    codes: tuple[str, ...]
    original: str
    copy: str
    message: str

    def to_json(self) -> dict[str, object]:
        """Return plain values, ready for a JSON report."""
        return asdict(self)


def fixed_copies(
    manifest: Manifest, *, num_workers: int | None = None
) -> tuple[Manifest, tuple[Fix, ...]]:
    """Write repaired copies of what can be repaired with certainty.

    Args:
        manifest: the dataset.
        num_workers: processes; None: one a core; 0: none.

    Returns:
        The manifest with the copies in place of their originals, and what was repaired. A case
        that cannot be read stays as it is.
    """
    found = outcomes(
        fix_case,
        [replace(manifest, cases=(case,)) for case in manifest.cases],
        num_workers=num_workers,
        label="fixing",
    )
    cases: list[Case] = []
    fixes: list[Fix] = []
    for case, one in zip(manifest.cases, found, strict=True):
        done = (case, ()) if isinstance(one, MedsegError) else one
        cases.append(done[0])
        fixes += done[1]
    return replace(manifest, cases=tuple(cases)), tuple(fixes)


def fix_case(manifest: Manifest) -> tuple[Case, tuple[Fix, ...]]:
    """Repair the files of a manifest's only case.

    Raises:
        MedsegError: a scan that cannot be read; the copy cannot be written.
    """
    (case,) = manifest.cases
    fixer = _Fixer(manifest, case)
    images = {name: fixer.image(path) for name, path in case.images.items()}
    grid = read_volume(
        manifest.path_of(case.images[manifest.reference_channel]),
        series_uid=case.series_uids.get(manifest.reference_channel),
        spacing_mm=case.spacing_mm,
    ).geometry
    labels = tuple(fixer.annotation(one, grid) for one in case.labels)
    if not fixer.fixes:
        return case, ()
    changed = replace(case, images=images, labels=labels)
    alone = replace(manifest, cases=(changed,))
    changed = replace(
        changed,
        digest=digest_of_case(alone),
        image_digest=digest_json(image_digests(alone)),
    )
    return changed, tuple(fixer.fixes)


class _Fixer:
    """Repairs the files of one case and keeps what it did."""

    def __init__(self, manifest: Manifest, case: Case) -> None:
        self.manifest, self.case = manifest, case
        self.fixes: list[Fix] = []

    def image(self, relative: str) -> str:
        """Return the path of an image, or of its copy under a name that fits."""
        path = self.manifest.path_of(relative)
        name = self._fitting_name(path)
        if name == path.name:
            return relative
        return self._renamed(relative, name)

    def annotation(self, annotation: Annotation, grid: Geometry) -> Annotation:
        """Return one rater's annotation with repaired copies in place."""
        if isinstance(annotation, Mapping):
            return {name: self._mask(path, grid) for name, path in annotation.items()}
        return self._mask(annotation, grid)

    def _mask(self, relative: str, grid: Geometry) -> str:
        path = self.manifest.path_of(relative)
        name = self._fitting_name(path)
        faults: dict[str, str] = {}
        if suffix_of(Path(name)) in _REWRITTEN:
            volume = read_volume(path)
            # Off its scan, or of several channels: then nothing about it is certain.
            if len(volume.channels) == 1 and volume.geometry.matches(grid):
                faults = _faults_of(volume, grid)
        if faults:
            return self._rewritten(relative, name, volume.voxels, grid, faults)
        return relative if name == path.name else self._renamed(relative, name)

    def _fitting_name(self, path: Path) -> str:
        if path.is_dir() or suffix_of(path) in _DETACHED:
            return path.name
        kind = sniff(path)
        return path.name if kind in ("dicom", "zip") else fitting_name(path, kind)

    def _renamed(self, relative: str, name: str) -> str:
        original, copy = self.manifest.path_of(relative), _beside(relative, name)
        write_with(lambda part: shutil.copyfile(original, part), self.manifest.data_root / copy)
        return self._noted(relative, copy, {"FIX-001": f"its content is that of {name}"})

    def _rewritten(
        self, relative: str, name: str, voxels: Array, grid: Geometry, faults: Mapping[str, str]
    ) -> str:
        copy = _beside(relative, name)
        path = self.manifest.data_root / copy
        whole = _whole(voxels)
        write_volume(Volume(whole, grid, ("mask",)), path)
        again = read_volume(path)
        if not (np.array_equal(again.voxels, whole) and again.geometry.matches(grid)):
            path.unlink()
            raise GeometryError(
                f"{relative}: its copy does not read back as it was written", code="FIX-005"
            )
        if name != PurePosixPath(relative).name:
            faults = {"FIX-001": f"its content is that of {name}", **faults}
        return self._noted(relative, copy, faults)

    def _noted(self, relative: str, copy: str, faults: Mapping[str, str]) -> str:
        self.fixes.append(
            Fix(
                case_id=self.case.case_id,
                codes=tuple(faults),
                original=relative,
                copy=copy,
                message="; ".join(faults.values()),
            )
        )
        return copy


def _faults_of(volume: Volume, grid: Geometry) -> dict[str, str]:
    """Name, by code, what can be repaired about a mask that lies on its scan."""
    faults: dict[str, str] = {}
    try:
        whole_numbers(values_in(volume.voxels[0]), "mask")
    except LabelError:
        return faults
    if not np.issubdtype(volume.voxels.dtype, np.integer):
        faults["FIX-002"] = f"whole numbers were stored as {volume.voxels.dtype}"
    # Placements are compared as NIfTI stores them: less than that, no file can say.
    one, other = (g.affine.astype(np.float32) for g in (volume.geometry, grid))
    if not np.array_equal(one, other):
        off_mm = volume.geometry.corner_error_mm(grid)
        faults["FIX-003"] = f"the grid was {off_mm:.2g} mm off that of the scan"
    if any(finding.code in _FORMS for finding in volume.findings):
        faults["FIX-004"] = "sform and qform disagreed; the scan lies where the mask was read"
    return faults


def _whole(voxels: Array) -> Array:
    """Round to the smallest type of integers that holds all values."""
    least, most = (np.rint(end).astype(np.int64) for end in (voxels.min(), voxels.max()))
    kind = np.result_type(np.min_scalar_type(least), np.min_scalar_type(most))
    return np.asarray(np.rint(voxels).astype(kind))


def _beside(relative: str, name: str) -> str:
    return (PurePosixPath(FOLDER) / PurePosixPath(relative).with_name(name)).as_posix()
