"""Reading DICOM: a folder, .zip or file becomes one placed volume, or a refusal with a reason."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.core.errors import MedsegError, ReadError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.headers.scan import Scan, holds_dicom, scan_headers
from medseg.io.dicom.series.grouping import Series, group_series
from medseg.io.dicom.series.suv import suv_factor
from medseg.io.dicom.series.values import read_voxels


def is_dicom(path: Path, *, recursive: bool = True) -> bool:
    """Tell whether a path is DICOM: a file, or a folder or .zip that holds at least one such file.

    Only the first bytes of files are looked at, and only until one is found.

    Args:
        path: a file or folder.
        recursive: look into the folders of a folder too.
    """
    try:
        return holds_dicom(path, recursive=recursive)
    except ReadError:
        return False


def find_series(path: Path) -> tuple[Series, ...]:
    """List the volumes under a path, and what else lies there, each with verdict and reason.

    Raises:
        ReadError: DCM-030 no DICOM files, DCM-038 an archive that cannot be read.
    """
    return group_series(scan_headers(path))


def read_dicom(path: Path, *, series_uid: str | None = None, suv: bool = False) -> Volume:
    """Read the volume under a path.

    Voxels are ordered (C, I, J, K): i counts columns, j rows, k slices along the normal of the
    image plane, so the grid is right-handed. Values are rescaled (HU for CT); see
    `values.read_voxels`.

    Args:
        path: a folder, a .zip or a file.
        series_uid: which series, by its UID or the last digits of it, and after a colon its part
            (`Series.selector`); None takes the only volume there.
        suv: turn PET activity (Bq/ml) into SUV by body weight (g/ml).

    Raises:
        ReadError: DCM-003 several volumes and none chosen, or a choice that fits none; DCM-028 an
            empty file beside the slices; DCM-040 a series that cannot be turned into SUV; and what
            `find_series` and the verdicts of series say.
        GeometryError: the chosen series cannot be placed.
    """
    scan = scan_headers(path)
    found = group_series(scan)
    series = _pick(found, path, series_uid)
    volume = read_series(series, scan, suv=suv)
    return replace(volume, findings=(*_beside(scan, found, series), *volume.findings))


def read_series(series: Series, scan: Scan, *, suv: bool = False) -> Volume:
    """Read one volume of a scan of headers; as `read_dicom`.

    Raises:
        MedsegError: as `read_dicom`.
    """
    # First of all: a file that was not copied whole explains a slice that is missing.
    _require_complete(scan, series)
    geometry = geometry_of(series)
    name = f"series {series.selector}"
    factor = suv_factor(series.frames, name=name) if suv else None
    voxels_KJI, findings = read_voxels(series.frames, modality=series.modality, name=name)
    if factor is not None:
        voxels_KJI = (voxels_KJI * factor).astype(np.float32)
    return Volume(
        np.transpose(voxels_KJI)[None],
        geometry,
        findings=(*series.findings, *findings),
    )


def choose_series(series: Sequence[Series], path: Path, *, series_uid: str | None = None) -> Series:
    """Return the series that was asked for, or the only volume among them.

    Raises:
        MedsegError: the refusal of the chosen series; DCM-003 when none or several could be meant.
    """
    chosen = _pick(series, path, series_uid)
    if chosen.refusal is not None:
        raise chosen.refusal
    return chosen


def geometry_of(series: Series) -> Geometry:
    """Return the grid of a series that can be read.

    Raises:
        MedsegError: the refusal of the series.
    """
    if series.geometry is None:
        raise series.refusal or ReadError(f"series {series.selector}: cannot be placed")
    return series.geometry


def _pick(series: Sequence[Series], path: Path, series_uid: str | None) -> Series:
    candidates = _likely(series) if series_uid is None else _matching(series, series_uid)
    if len(candidates) != 1:
        raise _undecided(candidates or series, path, series_uid)
    return candidates[0]


def _matching(series: Sequence[Series], wanted: str) -> list[Series]:
    """Series whose UID ends in the digits asked for, and whose part is the one after the colon."""
    digits, _, part = wanted.strip().partition(":")
    found = [entry for entry in series if digits and entry.uid.endswith(digits)]
    if part:
        return [entry for entry in found if entry.part == part]
    return found if len(found) == 1 else _likely(found)


def _likely(series: Sequence[Series]) -> list[Series]:
    """Series that a reader of a folder means: its volumes, or else its lone slices."""
    volumes = [entry for entry in series if entry.verdict in ("volume", "damaged")]
    lone = [entry for entry in series if entry.verdict == "slice"]
    return volumes or lone or ([*series] if len(series) == 1 else [])


def _undecided(found: Sequence[Series], path: Path, wanted: str | None) -> MedsegError:
    listed = "; ".join(_line(entry) for entry in found[:8])
    more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
    asked = "no volume to choose by itself" if wanted is None else f"series_uid={wanted} fits none"
    volumes = sum(entry.refusal is None for entry in found)
    if volumes > 1:
        asked = f"{volumes} volumes, expected one"
    return ReadError(
        f"{path}: {asked}: {listed}{more}",
        code="DCM-003",
        hint="choose one by series_uid= with the digits listed, and its part after a colon",
    )


def _line(series: Series) -> str:
    if series.geometry is None:
        return f"{series.selector} {series.modality} {series.verdict} ({series.reason})"
    return f"{series.selector} {series.modality} {series.verdict}, {series.num_slices} slices"


def _require_complete(scan: Scan, series: Series) -> None:
    """Refuse a series that shares a folder with a file that was not copied whole."""
    folders = {file.folder for file in series.files}
    for file, finding in scan.noticed:
        if finding.severity == "error" and file.folder in folders:
            raise ReadError(
                f"{finding.subject}: {finding.message}", code=finding.code, hint=finding.hint
            )


def _beside(scan: Scan, found: Sequence[Series], chosen: Series) -> list[Finding]:
    """Return what was passed over on the way to the chosen series."""
    passed = [
        Finding(
            code="DCM-004",
            severity="note",
            subject=f"series {entry.selector}",
            message=f"left out: {entry.modality} {entry.verdict}, {len(entry.files)} files",
        )
        for entry in found
        if entry is not chosen
    ]
    return _counted([one for one in scan.findings if one.severity != "error"]) + passed


def _counted(findings: Sequence[Finding]) -> list[Finding]:
    """Say once what was found of many files."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.code, finding.message), []).append(finding)
    return [
        replace(first, subject=f"{first.subject} and {len(others)} more") if others else first
        for first, *others in alike.values()
    ]
