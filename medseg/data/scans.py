"""A case as voxels: its channels on one grid, and its reference on the same."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from medseg.core.errors import GeometryError, ManifestError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry, require_match
from medseg.core.labels import LabelMap, LabelSet, label_set
from medseg.core.volume import Array, Volume
from medseg.data.case import SUV, Annotation, Case, Channel
from medseg.data.manifest import Manifest
from medseg.data.raters import Consensus, consensus_of, merge_masks
from medseg.data.resample import resample_onto
from medseg.io.formats import classes_in_mask, read_label_map, read_volume

# How many values a colour image holds a voxel: red, green, blue.
_NUM_COLOURS = 3
# How many pairs of classes a finding on overlapping masks names.
_NAMED_OVERLAPS = 3
# What a binary mask file holds: 1 or 255, it is all the same.
_INSIDE = label_set({"inside": ">0"})


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
    files = _files_of(manifest, case)
    reference_name = manifest.reference_channel
    # The reference channel is read first: its grid is what the others are laid on.
    order = sorted(files, key=lambda file: reference_name not in [c.name for c in files[file]])
    reference = _read_file(manifest, case, files[order[0]])
    planes = dict(zip(reference.channels, reference.voxels, strict=True))
    findings = list(reference.findings)
    for file in order[1:]:
        volume = _read_file(manifest, case, files[file])
        findings += volume.findings
        laid = _onto(volume, reference.geometry, case, findings)
        planes |= dict(zip(volume.channels, laid, strict=True))
    for channel in manifest.channels:
        if channel.name not in case.images:
            findings.append(_filled(case, channel, missing))
            zero = np.zeros(reference.geometry.shape, np.float32)
            planes |= dict.fromkeys(channel.planes, zero)
    return Volume(
        np.stack([planes[name] for name in manifest.planes]),
        reference.geometry,
        manifest.planes,
        tuple(findings),
    )


def _files_of(manifest: Manifest, case: Case) -> dict[tuple[str, str], list[Channel]]:
    """Return which channels each file (or series of a folder) of a case holds, in order."""
    files: dict[tuple[str, str], list[Channel]] = {}
    for channel in manifest.channels:
        if channel.name in case.images:
            series_uid = case.series_uids.get(channel.name, "")
            files.setdefault((case.images[channel.name], series_uid), []).append(channel)
    return files


def in_colours(image: Volume, names: tuple[str, ...], *, file: str, case_id: str) -> Volume:
    """Return gray in three colours, or three equal colours as gray, where names ask for that.

    Args:
        image: (C, I, J, K).
        names: of the planes wanted, all of one channel.
        file: what the finding calls the image.
        case_id: of the finding, SCN-003 or SCN-004.

    Returns:
        The image itself where nothing of the kind is wanted.
    """
    voxels = image.voxels
    if len(voxels) == 1 and len(names) == _NUM_COLOURS:
        voxels = np.repeat(voxels, _NUM_COLOURS, axis=0)
        note = _note("SCN-003", case_id, f"{file}: gray, repeated in three colours")
    elif len(voxels) == _NUM_COLOURS and len(names) == 1 and (voxels == voxels[:1]).all():
        voxels = voxels[:1]
        note = _note("SCN-004", case_id, f"{file}: three equal colours, read as gray")
    else:
        return image
    return Volume(voxels, image.geometry, names, (*image.findings, note))


def _read_file(manifest: Manifest, case: Case, channels: list[Channel]) -> Volume:
    """Read one file, float32; several channels that name the same file are its planes in order."""
    first = channels[0]
    path = manifest.path_of(case.images[first.name])
    volume = read_volume(
        path,
        series_uid=case.series_uids.get(first.name),
        spacing_mm=case.spacing_mm,
        channels_axis=len(channels) > 1,
        suv=first.modality == SUV,
    )
    names = tuple(plane for channel in channels for plane in channel.planes)
    if len(channels) == 1:
        volume = in_colours(volume, names, file=path.name, case_id=case.case_id)
    found = volume.voxels.shape[0]
    if found != len(names):
        raise ManifestError(
            f"case {case.case_id!r}: {path} holds {found} values a voxel; its channels {names} "
            f"ask for {len(names)}",
            code="SCN-002",
            hint="colour images are of modality RGB; several channels may name the same file",
        )
    voxels = volume.voxels.astype(np.float32, copy=False)
    return Volume(voxels, volume.geometry, names, volume.findings)


def _onto(volume: Volume, target: Geometry, case: Case, findings: list[Finding]) -> list[Array]:
    """Return the planes of a file on the reference grid, noting any resampling."""
    if volume.geometry.unit == target.unit and volume.geometry.matches(target):
        return list(volume.voxels)
    about = ", ".join(volume.channels)
    try:
        planes = [resample_onto(plane, volume.geometry, target=target) for plane in volume.voxels]
    except GeometryError as fault:
        raise GeometryError(
            f"case {case.case_id!r}, channel {about}: {fault.message}",
            code=fault.code,
            hint=fault.hint,
        ) from fault
    shapes = f"from {volume.geometry.shape} to {target.shape} voxels"
    findings.append(_note("SCN-005", case.case_id, f"{about}: resampled {shapes}"))
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


def _note(code: str, case_id: str, message: str) -> Finding:
    return Finding(code=code, severity="note", subject=case_id, message=message)


def read_reference(manifest: Manifest, case: Case, geometry: Geometry) -> Volume:
    """Read what the raters drew, as one label map on the grid of the scan.

    Several raters become one as `manifest.consensus` says (`raters.consensus_of`).

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
    return fused(read_raters(manifest, case, geometry), manifest.consensus)


def fused(drawn: Volume, how: Consensus) -> Volume:
    """Make one label map, (1, I, J, K), of what `read_raters` read."""
    label_map = consensus_of(list(drawn.voxels), how)
    return Volume(label_map[np.newaxis], drawn.geometry, ("label",), drawn.findings)


def read_raters(manifest: Manifest, case: Case, geometry: Geometry) -> Volume:
    """Read every rater's annotation of a case as a label map of its own.

    One file a class is merged in the order of the label set, later classes over earlier ones, and
    an overlap is noted.

    Args:
        manifest: its label set translates stored values.
        case: a labelled case.
        geometry: of the scan. A mask file without a physical size of its own (PNG) takes it.

    Returns:
        Indices (R, I, J, K), a channel a rater by name ("rater 1" and so on where nobody has one).

    Raises:
        MedsegError: as `read_reference`.
    """
    if not case.labels:
        raise ManifestError(f"case {case.case_id!r}: has no reference", code="SCN-006")
    reader = _ReferenceReader(manifest, case, geometry)
    maps_RIJK = np.stack([reader.read(annotation) for annotation in case.labels])
    names = case.raters or tuple(f"rater {n}" for n in range(1, len(case.labels) + 1))
    return Volume(maps_RIJK, geometry, names, tuple(reader.findings))


def classes_in(manifest: Manifest, case: Case) -> tuple[str, ...]:
    """Return the classes that any rater of a case marked, in the order of the label set.

    Only the label files are read; whether they lie on the scan is `read_reference`'s question.

    Raises:
        ManifestError: MAN-003, MAN-007: a path leads nowhere.
        MedsegError: what the readers refuse.
    """
    found: set[str] = set()
    for annotation in case.labels:
        if isinstance(annotation, str):
            found.update(classes_in_mask(manifest.path_of(annotation), manifest.labels))
            continue
        for name, relative in annotation.items():
            if classes_in_mask(manifest.path_of(relative), _INSIDE):
                found.add(name)
    return tuple(name for name in manifest.labels.names if name in found)


class _ReferenceReader:
    """Reads the label files of one case and keeps what was noticed on the way."""

    def __init__(self, manifest: Manifest, case: Case, geometry: Geometry) -> None:
        self.manifest, self.case, self.geometry = manifest, case, geometry
        self.findings: list[Finding] = []

    def read(self, annotation: Annotation) -> LabelMap:
        """Read one rater's annotation as indices (I, J, K)."""
        if isinstance(annotation, str):
            return self._read_file(annotation, self.manifest.labels)
        masks = {
            index: self._read_file(annotation[name], _INSIDE)
            for index, name in enumerate(self.manifest.labels.names, start=1)
            if name in annotation
        }
        return self._merged(masks)

    def _merged(self, masks: Mapping[int, LabelMap]) -> LabelMap:
        """Lay one mask a class over each other, and note where they overlap."""
        merged, overlaps = merge_masks(masks)
        if overlaps:
            self.findings.append(self._overlap(overlaps))
        return merged

    def _overlap(self, overlaps: dict[tuple[int, int], int]) -> Finding:
        names = ("background", *self.manifest.labels.names)
        largest = sorted(overlaps, key=lambda pair: -overlaps[pair])[:_NAMED_OVERLAPS]
        listed = ", ".join(
            f"{names[over]} covers {overlaps[over, under]} voxels of {names[under]}"
            for over, under in largest
        )
        more = len(overlaps) - len(largest)
        return Finding(
            code="SCN-007",
            severity="warning",
            subject=self.case.case_id,
            message=f"masks overlap: {listed}{f', and {more} more pairs' if more else ''}",
            hint="list the inner class after the outer one, or declare regions",
        )

    def _read_file(self, relative: str, labels: LabelSet) -> LabelMap:
        path = self.manifest.path_of(relative)
        scan = self.manifest.data_root / self.case.images[self.manifest.reference_channel]
        volume = read_label_map(path, labels, onto=self.geometry, scan=scan)
        self.findings += volume.findings
        placed = volume.geometry
        if placed.unit == "px" and placed.shape == self.geometry.shape:
            placed = self.geometry
        require_match(placed, self.geometry, name=str(path), reference_name=str(scan))
        if len(volume.channels) == 1:
            return np.asarray(volume.only_channel)
        # Files that name their segments may mark one voxel as several classes.
        return self._merged(dict(enumerate(volume.voxels, start=1)))
