"""A case as voxels: its channels on one grid, and its reference on the same."""

from typing import Literal

import numpy as np

from medseg.core.errors import GeometryError, ManifestError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry, require_match
from medseg.core.labels import LabelMap, LabelSet, label_set
from medseg.core.volume import Array, Volume
from medseg.data.case import Annotation, Case, Channel
from medseg.data.manifest import Manifest
from medseg.data.raters import majority, merge_masks
from medseg.data.resample import resample_onto
from medseg.io.formats import read_label_map, read_volume

# How many values a colour image holds a voxel: red, green, blue.
_NUM_COLOURS = 3


def read_scan(
    manifest: Manifest, case: Case, *, missing: Literal["fail", "zero"] = "fail"
) -> Volume:
    """Read all channels of a case, stacked on the grid of the reference channel.

    A channel on another grid is resampled linearly, and a finding says so; on the same grid its
    voxels stay what they are.

    Args:
        manifest: which channels there are, and in which order.
        case: the case to read.
        missing: `zero` fills a channel the case lacks with 0; only networks trained with channels
            dropped can make use of it.

    Returns:
        Voxels (C, I, J, K), float32, a channel for each of `manifest.planes`.

    Raises:
        ManifestError: SCN-001: a channel is missing. MAN-003, MAN-007: a path leads nowhere.
        MedsegError: what the readers refuse.
    """
    order = {channel.name: channel for channel in manifest.channels}
    reference = _read_channel(manifest, case, order[manifest.reference_channel])
    planes: list[Array] = []
    findings = list(reference.findings)
    for channel in manifest.channels:
        if channel.name == manifest.reference_channel:
            planes.extend(reference.voxels)
        elif channel.name in case.images:
            volume = _read_channel(manifest, case, channel)
            findings += volume.findings
            planes.extend(_onto(volume, reference.geometry, case, channel, findings))
        else:
            findings.append(_filled(case, channel, missing))
            planes.extend([np.zeros(reference.geometry.shape, np.float32)] * len(channel.planes))
    return Volume(
        np.stack(planes),
        reference.geometry,
        manifest.planes,
        tuple(findings),
    )


def _read_channel(manifest: Manifest, case: Case, channel: Channel) -> Volume:
    """Read one image, float32, with as many planes as its modality has."""
    path = manifest.path_of(case.images[channel.name])
    volume = read_volume(
        path, series_uid=case.series_uids.get(channel.name), spacing_mm=case.spacing_mm
    )
    found, wanted = volume.voxels.shape[0], len(channel.planes)
    voxels, findings = volume.voxels.astype(np.float32, copy=False), volume.findings
    if found == 1 and wanted == _NUM_COLOURS:
        voxels = np.repeat(voxels, _NUM_COLOURS, axis=0)
        findings += (_note("SCN-003", case, f"{path.name}: gray, repeated in three colours"),)
    elif found == _NUM_COLOURS and wanted == 1 and (voxels == voxels[:1]).all():
        voxels = voxels[:1]
        findings += (_note("SCN-004", case, f"{path.name}: three equal colours, read as gray"),)
    elif found != wanted:
        raise ManifestError(
            f"case {case.case_id!r}, channel {channel.name!r}: {path} holds {found} values a "
            f"voxel; modality {channel.modality!r} has {wanted}",
            code="SCN-002",
            hint="colour images are of modality RGB; list the others as channels of their own",
        )
    return Volume(voxels, volume.geometry, channel.planes, findings)


def _onto(
    volume: Volume, target: Geometry, case: Case, channel: Channel, findings: list[Finding]
) -> list[Array]:
    """Return the planes of a channel on the reference grid, noting any resampling."""
    if volume.geometry.unit == target.unit and volume.geometry.matches(target):
        return list(volume.voxels)
    try:
        planes = [resample_onto(plane, volume.geometry, target=target) for plane in volume.voxels]
    except GeometryError as fault:
        raise GeometryError(
            f"case {case.case_id!r}, channel {channel.name!r}: {fault.message}",
            code=fault.code,
            hint=fault.hint,
        ) from fault
    shapes = f"from {volume.geometry.shape} to {target.shape} voxels"
    findings.append(_note("SCN-005", case, f"{channel.name}: resampled {shapes}"))
    return planes


def _filled(case: Case, channel: Channel, missing: Literal["fail", "zero"]) -> Finding:
    if missing == "fail":
        raise ManifestError(
            f"case {case.case_id!r}: has no image of channel {channel.name!r}",
            code="SCN-001",
            hint="missing=zero fills it with 0, for networks trained with channels dropped",
        )
    return Finding(
        code="SCN-001",
        severity="warning",
        subject=case.case_id,
        message=f"channel {channel.name!r} is missing and was filled with 0",
    )


def _note(code: str, case: Case, message: str) -> Finding:
    return Finding(code=code, severity="note", subject=case.case_id, message=message)


def read_reference(manifest: Manifest, case: Case, geometry: Geometry) -> Volume:
    """Read what the raters drew, as one label map on the grid of the scan.

    Several raters are put to the vote (`raters.majority`); one file a class is merged in the
    order of the label set, later classes over earlier ones, and an overlap is noted.

    Args:
        manifest: its label set translates stored values.
        case: a labelled case.
        geometry: of the scan. A mask file without a physical size of its own (PNG) takes it.

    Returns:
        Indices (1, I, J, K).

    Raises:
        ManifestError: SCN-006: the case has no labels.
        GeometryError: GEO-001, GEO-002: a mask lies on another grid; both files are named.
        LabelError: values that no class declares.
    """
    if not case.labels:
        raise ManifestError(f"case {case.case_id!r}: has no reference", code="SCN-006")
    reader = _ReferenceReader(manifest, case, geometry)
    label_map = majority([reader.read(annotation) for annotation in case.labels])
    return Volume(label_map[np.newaxis], geometry, ("label",), tuple(reader.findings))


class _ReferenceReader:
    """Reads the label files of one case and keeps what was noticed on the way."""

    def __init__(self, manifest: Manifest, case: Case, geometry: Geometry) -> None:
        self.manifest, self.case, self.geometry = manifest, case, geometry
        self.findings: list[Finding] = []

    def read(self, annotation: Annotation) -> LabelMap:
        """Read one rater's annotation as indices (I, J, K)."""
        if isinstance(annotation, str):
            return self._read_file(annotation, self.manifest.labels)
        inside = label_set({"inside": ">0"})
        masks = {
            index: self._read_file(annotation[name], inside)
            for index, name in enumerate(self.manifest.labels.names, start=1)
            if name in annotation
        }
        merged, num_overlapping = merge_masks(masks)
        if num_overlapping:
            self.findings.append(
                Finding(
                    code="SCN-007",
                    severity="warning",
                    subject=self.case.case_id,
                    message=f"{num_overlapping} voxels lie in masks of several classes; "
                    "the later class counts",
                    hint="declare regions in the labels if the classes truly overlap",
                )
            )
        return merged

    def _read_file(self, relative: str, labels: LabelSet) -> LabelMap:
        path = self.manifest.path_of(relative)
        volume = read_label_map(path, labels)
        self.findings += volume.findings
        scan = self.manifest.data_root / self.case.images[self.manifest.reference_channel]
        placed = volume.geometry
        if placed.unit == "px" and placed.shape == self.geometry.shape:
            placed = self.geometry
        require_match(placed, self.geometry, name=str(path), reference_name=str(scan))
        return np.asarray(volume.only_channel)
