"""Which axes of an NRRD file are space, which are channels, and where the samples lie."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.core.errors import GeometryError, ReadError
from medseg.core.findings import Finding
from medseg.core.geometry import Affine, Geometry, Unit
from medseg.io.nrrd_header import NrrdHeader
from medseg.io.placement import affine_of, image_affine, placed
from medseg.io.voxels import note

# To RAS, for each world that says where left, front and up are.
_TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_MM_PER_UNIT = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3}
_CHANNEL_KINDS = ("vector", "3-vector", "covariant-vector", "rgb-color", "3-color")
_DOMAIN_KINDS = ("", "domain", "space")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedAxes:
    """The grid of the samples, and which axis (if any) holds channels."""

    geometry: Geometry
    channel: int | None
    findings: tuple[Finding, ...] = ()


def place_axes(header: NrrdHeader, path: Path, *, channels_axis: bool) -> PlacedAxes:
    """Sort the axes of a file into space and channels.

    Raises:
        ReadError: NRD-004 axes that are neither.
        GeometryError: NRD-005 no orientation or no position.
    """
    if header.directions:
        spatial = [n for n, step in enumerate(header.directions) if step is not None]
    else:
        spatial = [n for n, kind in enumerate(header.kinds) if kind in _DOMAIN_KINDS]
    others = [n for n in range(len(header.sizes)) if n not in spatial]
    if len(spatial) not in (2, 3) or len(others) > 1:
        raise ReadError(
            f"{path}: sizes {header.sizes}, of which {len(spatial)} axes lie in space; expected "
            "2 or 3, and at most one axis of channels",
            code="NRD-004",
            hint="split the file into one a channel or time point",
        )
    channel = others[0] if others else None
    if channel is not None:
        _require_channels(header, channel, path, channels_axis=channels_axis)
    i, j, k = (*(header.sizes[n] for n in spatial), 1)[:3]
    if header.directions:
        affine, findings = _placed_in_space(header, spatial, path)
    else:
        affine, findings = _placed_in_plane(header, spatial, path)
    unit: Unit = "px" if not header.directions and not findings else "mm"
    geometry = placed((i, j, k), affine, name=str(path), code="NRD-005", unit=unit)
    return PlacedAxes(geometry=geometry, channel=channel, findings=findings)


def _require_channels(header: NrrdHeader, channel: int, path: Path, *, channels_axis: bool) -> None:
    kind, size = header.kinds[channel], header.sizes[channel]
    if size == 1 or kind in _CHANNEL_KINDS or (channels_axis and kind in ("", "list")):
        return
    raise ReadError(
        f"{path}: axis {channel + 1} of {size} samples and kind {kind or 'unknown'!r}: the file "
        "does not say that it holds channels",
        code="NRD-004",
        hint="channels: ingest it once for each (images.A=FILE images.B=FILE; in Python "
        "channels_axis=True); time points: split the file",
    )


def _placed_in_space(
    header: NrrdHeader, spatial: list[int], path: Path
) -> tuple[Affine, tuple[Finding, ...]]:
    signs = _TO_RAS.get(header.space)
    steps = [step for n in spatial if (step := header.directions[n]) is not None]
    if signs is None or header.origin is None or {len(v) for v in (*steps, header.origin)} != {3}:
        raise GeometryError(
            f"{path}: space {header.space or 'missing'!r}, origin {header.origin}: expected a "
            "space such as left-posterior-superior, and vectors of three numbers in it",
            code="NRD-005",
            hint="export it from a tool that writes space, space directions and space origin",
        )
    findings: list[Finding] = []
    if len(steps) == 2:
        normal = np.cross(steps[0], steps[1])
        length = float(np.linalg.norm(normal)) or 1.0
        steps.append(tuple(float(n) / length for n in normal))
        found = "a plane in space without a slice axis; a thickness of 1 mm was taken"
        findings.append(note("NRD-007", path.name, found))
    scale = _scale_mm(header, path, findings)
    affine = np.diag([*signs, 1.0]) @ affine_of(steps, header.origin)
    return np.asarray(np.diag([scale, scale, scale, 1.0]) @ affine), tuple(findings)


def _placed_in_plane(
    header: NrrdHeader, spatial: list[int], path: Path
) -> tuple[Affine, tuple[Finding, ...]]:
    """Place a 2D image as any image without a space, with its spacings where it has them."""
    if len(spatial) != 2:
        raise GeometryError(
            f"{path}: sizes {header.sizes} without space directions: orientation and position are "
            "unknown",
            code="NRD-005",
            hint="export it from a tool that writes space, space directions and space origin",
        )
    spacings = [header.spacings[n] for n in spatial] if header.spacings else []
    if not spacings or not np.isfinite(spacings).all():
        return image_affine(), ()
    found = "spacings without a space: taken as mm in the plane of an image"
    return image_affine((*spacings, 1.0)), (note("NRD-008", path.name, found),)


def _scale_mm(header: NrrdHeader, path: Path, findings: list[Finding]) -> float:
    units = {unit.lower() for unit in header.units}
    if not units:
        return 1.0
    if len(units) > 1 or not units <= _MM_PER_UNIT.keys():
        raise GeometryError(
            f"{path}: space units {', '.join(header.units)}; expected mm",
            code="NRD-005",
            hint="export it in mm",
        )
    scale = _MM_PER_UNIT[units.pop()]
    if scale != 1.0:
        found = f"the header's unit is {scale:g} mm; positions were turned into mm"
        findings.append(note("NRD-009", path.name, found))
    return scale
