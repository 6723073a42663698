"""A dataset of DICOM scans copied without its patients, and the manifest of the copies.

Only what a case names is copied: localizers, reports, screen shots and whatever else lies beside
the scans stays behind. Masks become plain NIfTI label maps.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.core.errors import ManifestError, MedsegError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet, label_set
from medseg.data.case import Annotation, Case
from medseg.data.layouts.found import CopyRequest, Skipped
from medseg.data.manifest import Manifest
from medseg.data.mask_files import exclusive_label_map
from medseg.data.pool import outcomes
from medseg.io.dicom.deidentification.copies import Treated, write_copies
from medseg.io.dicom.deidentification.deidentify import Pseudonyms
from medseg.io.dicom.reader import choose_series, find_series, is_dicom, read_dicom
from medseg.io.dicom.series.grouping import Series
from medseg.io.formats import read_label_map, write_label_map
from medseg.privacy import keyed_uid

_UNSAFE = re.compile(r"[^\w-]+")
_INSIDE = label_set({"inside": ">0"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """The manifest of the copies, what could not be copied, and what became of which attribute."""

    manifest: Manifest
    failed: tuple[Skipped, ...]
    treated: Treated


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The only case of a manifest, to be copied in another process."""

    manifest: Manifest
    asked: CopyRequest
    key: bytes = field(repr=False)


def deidentified(
    manifest: Manifest, asked: CopyRequest, *, key: bytes, num_workers: int | None = None
) -> Copies:
    """Copy the cases of a manifest without what says whose they are.

    Args:
        manifest: whose images are all DICOM; its ids become folder names and patient ids.
        asked: where to, and which options.
        key: from which UIDs and dates are drawn (`privacy.project_key`).
        num_workers: processes; None: one a core; 0: none.

    Returns:
        The manifest of the copies, without digests. A case that is refused is listed as failed:
        PRV-003 text may be burned into its pixels, PRV-004 an image that is not DICOM, PRV-005 a
        copy that does not read back as its original did.

    Raises:
        ManifestError: ING-007 no case could be copied.
    """
    jobs = [
        _Job(manifest=replace(manifest, cases=(case,)), asked=asked, key=key)
        for case in manifest.cases
    ]
    good: list[Case] = []
    failed: list[Skipped] = []
    treated: Treated = Counter()
    found = outcomes(_copied, jobs, num_workers=num_workers, label="de-identifying")
    for case, one in zip(manifest.cases, found, strict=True):
        if isinstance(one, MedsegError):
            failed.append(Skipped(subject=case.case_id, reason=str(one), failed=True))
        else:
            good.append(one[0])
            treated.update(one[1])
    if not good:
        raise ManifestError(
            f"{manifest.name}: no case could be de-identified; the first says: {failed[0].reason}",
            code="ING-007",
        )
    copies = replace(manifest, data_root=asked.folder.absolute(), cases=tuple(good))
    return Copies(manifest=copies, failed=tuple(failed), treated=treated)


def _copied(job: _Job) -> tuple[Case, Treated]:
    """Copy a case into a folder of its own, whole or not at all."""
    (case,) = job.manifest.cases
    folder = job.asked.folder
    part: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        copy, treated = _Copier(job, case, part).copy()
        if (folder / case.case_id).exists():
            shutil.rmtree(folder / case.case_id)
        part.replace(folder / case.case_id)
    except OSError as fault:
        raise WriteError(
            f"{folder}: case {case.case_id!r} could not be copied: {fault.strerror}",
            code="OUT-001",
        ) from fault
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return copy, treated


class _Copier:
    """Copies the images and masks of one case."""

    def __init__(self, job: _Job, case: Case, part: Path) -> None:
        self.manifest, self.case, self.part = job.manifest, case, part
        self.burned_in = job.asked.burned_in
        self.pseudonyms = Pseudonyms(
            patient_id=case.patient_id, key=job.key, keep_intervals=job.asked.keep_intervals
        )
        self.treated: Treated = Counter()

    def copy(self) -> tuple[Case, Treated]:
        """Write the copies; return the case that names them."""
        images: dict[str, str] = {}
        series_uids: dict[str, str] = {}
        grids: dict[str, Geometry] = {}
        for number, name in enumerate(self.case.images):
            relative = f"{number}_{_UNSAFE.sub('_', name)}"
            selector, grids[name] = self._image(name, self.part / relative)
            images[name] = f"{self.case.case_id}/{relative}"
            if selector:
                series_uids[name] = selector
        grid = grids[self.manifest.reference_channel]
        labels = tuple(
            self._labels(annotation, grid, f"label_{rater}")
            for rater, annotation in enumerate(self.case.labels)
        )
        case = replace(
            self.case,
            images=images,
            labels=labels,
            series_uids=series_uids,
            digest="",
            image_digest="",
        )
        return case, self.treated

    def _image(self, name: str, folder: Path) -> tuple[str, Geometry]:
        """Copy one series; return what selects it among its copies ("" if alone), and its grid."""
        path = self.manifest.path_of(self.case.images[name])
        if not is_dicom(path):
            raise ReadError(
                f"{path.name}: is not DICOM, the only format that can be de-identified",
                code="PRV-004",
                hint="NIfTI, NRRD and MHA are read without their texts; copies are not needed",
            )
        asked = self.case.series_uids.get(name)
        series = choose_series(find_series(path), path, series_uid=asked)
        files = list(dict.fromkeys(frame.file for frame in series.frames))
        self.treated += write_copies(files, folder, self.pseudonyms, burned_in=self.burned_in)
        selector = self._selector(series, folder)
        original = read_dicom(path, series_uid=asked)
        copy = read_dicom(folder, series_uid=selector or None)
        same = copy.geometry.matches(original.geometry)
        if not same or not np.array_equal(copy.voxels, original.voxels, equal_nan=True):
            raise ReadError(
                f"series {series.selector}: its copy does not read back as the original does",
                code="PRV-005",
                hint="nothing was kept of it; please report the kind of image",
            )
        return selector, original.geometry

    def _selector(self, series: Series, folder: Path) -> str:
        if len(find_series(folder)) == 1:
            return ""
        return f"{keyed_uid(series.uid, key=self.pseudonyms.key)}:{series.part}".rstrip(":")

    def _labels(self, annotation: Annotation, grid: Geometry, name: str) -> Annotation:
        """Write one rater's annotation as it is understood, on the grid it lies on."""
        if isinstance(annotation, str):
            return self._mask(annotation, grid, f"{name}.nii.gz", self.manifest.labels)
        return self._class_masks(annotation, grid, name)

    def _class_masks(self, files: Mapping[str, str], grid: Geometry, name: str) -> Annotation:
        return {
            label: self._mask(path, grid, f"{name}_{number}.nii.gz", _INSIDE)
            for number, (label, path) in enumerate(files.items())
        }

    def _mask(self, relative: str, grid: Geometry, name: str, labels: LabelSet) -> str:
        path = self.manifest.path_of(relative)
        volume = read_label_map(path, labels, onto=grid)
        label_map_IJK = exclusive_label_map(volume, path)
        write_label_map(label_map_IJK, self.part / name, geometry=volume.geometry, labels=labels)
        return f"{self.case.case_id}/{name}"
