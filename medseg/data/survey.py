"""A survey: the scans under a path, each with a verdict and why, before anything is ingested."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError, ReadError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry, Unit
from medseg.data.pool import outcomes
from medseg.io.dicom.headers.scan import Scan, scan_headers
from medseg.io.dicom.reader import is_dicom, read_series
from medseg.io.dicom.series.grouping import Series, Verdict, group_series
from medseg.io.formats import find_scans, read_volume
from medseg.io.sniff import SUFFIXES, suffix_of
from medseg.runtime.console import progress

Spacing = tuple[float, float, float]
_Placed = tuple[Geometry, tuple[Finding, ...]]
# What somebody may train on; the pixels of scouts are nobody's concern.
_SCANS: tuple[Verdict, ...] = ("volume", "slice")
# Whole files that hold something else than one volume: time points, a matrix, a line.
_NO_VOLUME = frozenset({"NII-008", "NII-023", "NRD-004"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A scan, or what stands in its place.

    Attributes:
        place: folder, archive or file, relative to what was surveyed; "." is that itself.
        series: what to give as `series_uid`; empty for files that are no DICOM.
        modality: as DICOM says it; empty for files that are no DICOM.
        description: SeriesDescription; free text, so it is shown on a screen and kept nowhere.
        num_files: how many belong to it.
        verdict: `volume`, `slice` (one), `localizer`, `damaged`, `other` (never one volume).
        reason: why it is no volume, with its code and what to do; of a volume, which of its files
            were not needed.
        shape, spacing_mm: along i, j, k; None where it cannot be placed.
        unit: `mm`, or `px` for pictures without a physical size.
        findings: what was noticed while it was read.
    """

    place: str
    series: str = ""
    modality: str = ""
    description: str = field(default="", repr=False)
    num_files: int = 1
    verdict: Verdict
    reason: str = ""
    shape: tuple[int, int, int] | None = None
    spacing_mm: Spacing | None = None
    unit: Unit = "mm"
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a row of the report, without the description."""
        return {
            "place": self.place,
            "series": self.series,
            "modality": self.modality,
            "num_files": self.num_files,
            "verdict": self.verdict,
            "reason": self.reason,
            "shape": self.shape,
            "spacing": self.spacing_mm,
            "unit": self.unit,
            "findings": [one.to_json() for one in self.findings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What lies under a path.

    Attributes:
        scans: DICOM first, volumes before the rest; then files by name.
        noticed: findings about files that belong to no scan.
    """

    scans: tuple[Surveyed, ...]
    noticed: tuple[Finding, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was noticed of scans and of other files."""
        return (*(one for scan in self.scans for one in scan.findings), *self.noticed)

    @property
    def num_by_verdict(self) -> dict[str, int]:
        """How many scans got each verdict."""
        return dict(Counter(one.verdict for one in self.scans))

    def to_json(self) -> dict[str, Any]:
        """Return the report; its keys are listed in docs/outputs.md."""
        return {
            "num_by_verdict": self.num_by_verdict,
            "scans": [one.to_json() for one in self.scans],
            "findings": [one.to_json() for one in self.noticed],
        }


def survey(source: Path, *, pixels: bool = True, num_workers: int | None = None) -> Survey:
    """Look at every scan under a path, through the real readers.

    Args:
        source: a folder, whatever is mixed in it, a .zip of DICOM, or a file.
        pixels: decode the pixels of DICOM, too; False: its headers alone say what there is.
        num_workers: processes that read other files; None: one a core, 0: none.

    Raises:
        ReadError: FIL-001 no such path, FIL-007 nothing there that could be a scan.
    """
    if not source.exists():
        raise ReadError(f"{source}: no such file or folder", code="FIL-001", hint="check the path")
    archives, files = _sources(source)
    apart = set(files)
    scans: list[Surveyed] = []
    noticed: list[Finding] = []
    for path in archives:
        try:
            headers = scan_headers(path)
        except MedsegError as refusal:
            scans.append(_refused(path, source, refusal))
            continue
        scans += _dicom(headers, source, pixels=pixels)
        noticed += (finding for file, finding in headers.noticed if file.path not in apart)
    read = outcomes(_read_file, files, num_workers=num_workers, label="reading")
    scans += (_file(path, source, one) for path, one in zip(files, read, strict=True))
    if not scans:
        raise ReadError(f"{source}: holds no scan", code="FIL-007", hint="check the path")
    return Survey(scans=tuple(scans), noticed=tuple(noticed))


def _sources(source: Path) -> tuple[list[Path], list[Path]]:
    """Return where to look for DICOM, and the files of other formats."""
    if not source.is_dir():
        return ([source], []) if is_dicom(source) else ([], [source])
    found = [path for path in find_scans(source) if path.is_file()]
    archives = [path for path in found if _is_archive(path)]
    # A series may be spread over folders, so that all of them are looked at together.
    trees = [source] if is_dicom(source) else []
    return [*trees, *archives], [path for path in found if not _is_archive(path)]


def _is_archive(path: Path) -> bool:
    return suffix_of(path) in SUFFIXES["zip"]


def _dicom(headers: Scan, source: Path, *, pixels: bool) -> Iterator[Surveyed]:
    found = group_series(headers)
    for series in progress(found, "reading") if pixels else found:
        findings, refusal = series.findings, series.refusal
        if pixels and refusal is None and series.verdict in _SCANS:
            try:
                findings = read_series(series, headers).findings
            except MedsegError as fault:
                refusal = fault
        unreadable = series.refusal is None and refusal is not None
        yield Surveyed(
            place=_relative(series.place, source),
            series=series.selector,
            modality=series.modality,
            description=series.description,
            num_files=len(series.files),
            verdict="damaged" if unreadable else series.verdict,
            reason=_why(series, refusal),
            shape=series.geometry.shape if series.geometry else None,
            spacing_mm=series.spacing_mm,
            findings=findings,
        )


def _why(series: Series, refusal: MedsegError | None) -> str:
    if refusal is not None:
        return str(refusal)
    copies = len(series.copies)
    told = f"{copies} of its files are copies of slices" if copies else ""
    return {
        "slice": "a single slice; a case where spatial_dims=2",
        "localizer": "marked as a localizer, by which scans are planned",
    }.get(series.verdict, told)


def _read_file(path: Path) -> _Placed:
    volume = read_volume(path)
    return volume.geometry, volume.findings


def _file(path: Path, source: Path, outcome: _Placed | MedsegError) -> Surveyed:
    if isinstance(outcome, MedsegError):
        return _refused(path, source, outcome)
    geometry, findings = outcome
    return Surveyed(
        place=_relative(path, source),
        verdict="volume" if geometry.shape[2] > 1 else "slice",
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        unit=geometry.unit,
        findings=findings,
    )


def _refused(path: Path, source: Path, refusal: MedsegError) -> Surveyed:
    # The place is told already; what lies above the source is nobody's concern.
    fault = refusal.message.removeprefix(f"{path}: ")
    reason = str(ReadError(fault, code=refusal.code, hint=refusal.hint))
    verdict: Verdict = "other" if refusal.code in _NO_VOLUME else "damaged"
    return Surveyed(place=_relative(path, source), verdict=verdict, reason=reason)


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()
