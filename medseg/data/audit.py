"""The audit of one case: every file opened by the real readers, every doubt a coded finding."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.findings import Finding, Severity, finding_of
from medseg.core.labels import LabelMap
from medseg.core.volume import Volume
from medseg.data.contents import digest_of_case
from medseg.data.manifest import Case, Manifest
from medseg.data.scans import read_reference, read_scan

# Header round-off must not hide a copy: positions are compared in steps of 1e-3 mm.
_PLACES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseAudit:
    """What the audit of a case saw.

    Attributes:
        case: the case.
        findings: notes, warnings and errors.
        shape, spacing_mm: of the scan; None when it cannot be read.
        class_vox: voxels a class, background first; None without a readable reference.
        voxel_digest: SHA-256 of voxels and placement, "" when the scan cannot be read; equal for
            two files of one image, however each is packed.
    """

    case: Case
    findings: tuple[Finding, ...]
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    class_vox: tuple[int, ...] | None = None
    voxel_digest: str = ""


def audit_case(manifest: Manifest) -> CaseAudit:
    """Open every file of a case and say what is wrong with it.

    Codes of its own: CHK-001 files changed since ingest, CHK-002 an image of one value, CHK-003
    an empty mask, CHK-004 a class marked that was not asked for, CHK-005 a single slice in a 3D
    dataset or several in an image of a 2D one, CHK-006 voxels that are not finite; and whatever
    readers, grids and labels refuse.

    Args:
        manifest: with this case alone, so that it is cheap to send to another process.
    """
    (case,) = manifest.cases
    findings = [*_changed(manifest, case)]
    try:
        scan = read_scan(manifest, case, missing="zero")
    except MedsegError as refusal:
        return CaseAudit(case=case, findings=(*findings, finding_of(refusal, case.case_id)))
    findings += [*_renamed(scan, case), *_doubts_of_scan(manifest, case, scan)]
    label_map: LabelMap | None = None
    if case.labels:
        try:
            reference = read_reference(manifest, case, scan.geometry)
        except MedsegError as refusal:
            findings.append(finding_of(refusal, case.case_id))
        else:
            label_map = reference.only_channel
            findings += [*_renamed(reference, case), *_doubts_of_mask(manifest, case, label_map)]
    return CaseAudit(
        case=case,
        findings=tuple(findings),
        shape=scan.geometry.shape,
        spacing_mm=scan.geometry.spacing_mm,
        class_vox=None if label_map is None else _class_vox(manifest, label_map),
        voxel_digest=_voxel_digest(scan),
    )


def _changed(manifest: Manifest, case: Case) -> Iterator[Finding]:
    if not case.digest:
        return
    try:
        found = digest_of_case(manifest)
    except MedsegError:
        # A file that is missing or leads elsewhere is reported by the reading that follows.
        return
    if found != case.digest:
        yield _finding(
            case, "CHK-001", "error", "its files changed since ingest", "ingest them again"
        )


def _doubts_of_scan(manifest: Manifest, case: Case, scan: Volume) -> Iterator[Finding]:
    absent = {p for c in manifest.channels if c.name not in case.images for p in c.planes}
    for name, voxels in zip(scan.channels, scan.voxels, strict=True):
        if name in absent:
            continue
        finite = np.isfinite(voxels)
        if not finite.all():
            found = f"channel {name}: {int((~finite).sum())} voxels are NaN or infinite"
            yield _finding(case, "CHK-006", "error", found, "export the scan again")
        elif voxels.min() == voxels.max():
            found = f"channel {name}: all voxels have the value {voxels.flat[0]:g}"
            yield _finding(case, "CHK-002", "warning", found)
    if manifest.spatial_dims == 3 and scan.geometry.shape[2] == 1:
        found = "a single slice, but the manifest has spatial_dims 3"
        yield _finding(case, "CHK-005", "error", found, "set spatial_dims to 2")


def _doubts_of_mask(manifest: Manifest, case: Case, label_map: LabelMap) -> Iterator[Finding]:
    counts = _class_vox(manifest, label_map)
    names = manifest.labels.names
    if not any(counts[1:]):
        yield _finding(case, "CHK-003", "warning", "its reference is empty: no voxel of any class")
    if case.annotated is None:
        return
    for name, count in zip(names, counts[1:], strict=True):
        if count and name not in case.annotated:
            found = f"{count} voxels of {name}, which is not among its annotated classes"
            yield _finding(case, "CHK-004", "error", found, "add it to annotated, or clear it")


def _class_vox(manifest: Manifest, label_map: LabelMap) -> tuple[int, ...]:
    num_indices = manifest.labels.num_indices
    # Voxels to ignore have an index past the last class and count for none.
    counts = np.bincount(label_map.ravel(), minlength=num_indices)[:num_indices]
    return tuple(int(count) for count in counts)


def _voxel_digest(scan: Volume) -> str:
    placement = np.round(scan.geometry.affine, _PLACES) + 0.0
    digest = hashlib.sha256(f"{scan.voxels.shape}{placement.tolist()}".encode())
    digest.update(np.ascontiguousarray(scan.voxels).data)
    return digest.hexdigest()


def _renamed(volume: Volume, case: Case) -> Iterator[Finding]:
    """Put the case id on what the readers noticed; they only know files."""
    for one in volume.findings:
        about = one.message if one.subject == case.case_id else f"{one.subject}: {one.message}"
        yield Finding(
            code=one.code,
            severity=one.severity,
            subject=case.case_id,
            message=about,
            hint=one.hint,
        )


def _finding(case: Case, code: str, severity: Severity, message: str, hint: str = "") -> Finding:
    return Finding(code=code, severity=severity, subject=case.case_id, message=message, hint=hint)
