"""Contours drawn onto the slices of a grid.

A voxel belongs to a region when its centre lies inside its contours or on one (`scan_conversion`).
A contour belongs to the slice nearest to it, if that is within half a slice. Where several planes
of contours come to lie on one slice, as on a scan of thicker slices than the one that was drawn
on, the nearest plane is taken; slices that no plane is near stay empty. Nothing is interpolated.

Shapes: a slice is (I, J); points are N x 3, in voxels after `to_index`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import GeometryError
from medseg.core.findings import Finding, Severity
from medseg.core.geometry import Geometry
from medseg.io.dicom.rtstruct.rois import Roi, points_of
from medseg.io.dicom.rtstruct.scan_conversion import Mask, crossing_pairs, fill, without_copies

# Contours of one plane may differ this much in depth: positions are often written to 0.01 mm.
_ONE_PLANE_MM = 0.05
# A contour whose points are further apart in depth than this share of a slice is not of a slice.
_FLAT = 0.5
# Fewer points bound no area, though the voxels they lie on belong to the region.
_LEAST_POINTS = 3
# Round-off of a contour half a slice beyond the last slice.
_ROUNDING = 1e-3

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Slices of one class: by k, a mask (I, J); its contours counted; and what was noticed."""

    slices: dict[int, Mask]
    num_contours: int
    num_outside: int
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Tally:
    """What the contours of a class turned out to be."""

    num_contours: int = 0
    num_outside: int = 0
    num_beyond: int = 0
    num_bare: int = 0
    num_thin: int = 0
    kinds_without_area: set[str] = field(default_factory=set)
    furthest_mm: float = 0.0
    num_unused: int = 0
    num_doubtful_vox: int = 0
    is_striped: bool = False


def draw(rois: Iterable[Roi], onto: Geometry, *, name: str) -> Drawn:
    """Draw the regions of one class.

    Args:
        rois: the regions; their union is drawn.
        onto: the grid of the scan.
        name: of the file, for messages.

    Returns:
        The slices that hold a contour, and findings: DCM-071 contours outside the scan or beyond
        its border, DCM-073 what bounds no area or has no points, DCM-075 contours that cover each
        other in part, DCM-076 contours between slices, or on every second slice or fewer.

    Raises:
        GeometryError: DCM-072 contours across the slices of the scan.
        ReadError: DCM-037, contours whose data are no points.
    """
    slices: dict[int, Mask] = {}
    findings: list[Finding] = []
    tallies: list[_Tally] = []
    for roi in rois:
        where = f"{name} region {roi.name!r}"
        tally = _Tally(kinds_without_area=set(roi.kinds_without_area))
        tallies.append(tally)
        for k, mask in _draw_roi(roi, onto, tally, where).items():
            slices[k] = slices[k] | mask if k in slices else mask
        findings += _findings(tally, where)
    return Drawn(
        slices=slices,
        num_contours=sum(tally.num_contours for tally in tallies),
        num_outside=sum(tally.num_outside for tally in tallies),
        findings=tuple(findings),
    )


def _draw_roi(roi: Roi, onto: Geometry, tally: _Tally, where: str) -> dict[int, Mask]:
    contours = [onto.to_index(points_of(one, name=where)) for one in roi.closed]
    tally.num_bare = sum(not len(points) for points in contours)
    contours = [points for points in contours if len(points)]
    tally.num_contours = len(contours)
    tally.num_thin = sum(len(points) < _LEAST_POINTS for points in contours)
    inside = [points for points in contours if _touches(points, onto, where)]
    tally.num_beyond = sum(_reaches_beyond(points, onto) for points in inside)
    tally.num_outside = len(contours) - len(inside)
    chosen = _nearest(_planes(inside, onto.spacing_mm[2]), onto, tally)
    steps = np.diff(sorted(chosen))
    tally.is_striped = len(steps) > 1 and int(steps.min()) > 1
    drawn = {}
    for k, plane in chosen.items():
        polygons = without_copies([points[:, :2] for points in plane])
        shape = onto.shape[:2]
        tally.num_doubtful_vox += sum(both for *_, both in crossing_pairs(polygons, shape))
        drawn[k] = fill(polygons, shape)
    return drawn


def _touches(points: Points, onto: Geometry, where: str) -> bool:
    """Tell whether a contour lies within the box of the scan's voxels, at least in part."""
    if np.ptp(points[:, 2]) > _FLAT:
        raise GeometryError(
            f"{where}: a contour reaches through {np.ptp(points[:, 2]):.3g} slices, expected one "
            "that lies in a slice",
            code="DCM-072",
            hint="give the series the contours were drawn on; its slices are parallel to them",
        )
    low, high = points.min(axis=0), points.max(axis=0)
    low[2] = high[2] = points[:, 2].mean()
    half = 0.5 + _ROUNDING
    return bool((high >= -half).all() and (low <= np.subtract(onto.shape, 1) + half).all())


def _reaches_beyond(points: Points, onto: Geometry) -> bool:
    """Tell whether a contour leaves the box of the scan's voxels by more than a voxel in plane."""
    plane = points[:, :2]
    return bool((plane < -1.5).any() or (plane > np.add(onto.shape[:2], 0.5)).any())


def _planes(contours: Sequence[Points], step_mm: float) -> list[tuple[float, list[Points]]]:
    """Group contours by depth; return the depth of each plane, in slices, and its contours."""
    planes: list[tuple[float, list[Points]]] = []
    for points in sorted(contours, key=_depth):
        depth = _depth(points)
        if planes and (depth - planes[-1][0]) * step_mm <= _ONE_PLANE_MM:
            planes[-1][1].append(points)
        else:
            planes.append((depth, [points]))
    return planes


def _depth(points: Points) -> float:
    return float(points[:, 2].mean())


def _nearest(
    planes: Sequence[tuple[float, list[Points]]], onto: Geometry, tally: _Tally
) -> dict[int, list[Points]]:
    """Return, for every slice that a plane is nearest to, the contours of the nearest plane."""
    chosen: dict[int, tuple[float, list[Points]]] = {}
    for depth, contours in planes:
        # A plane half way between two slices belongs to the lower one.
        k = int(np.clip(np.ceil(depth - 0.5 - _ROUNDING), 0, onto.shape[2] - 1))
        off = abs(depth - k)
        if k not in chosen or off < abs(chosen[k][0] - k):
            chosen[k] = depth, contours
    tally.num_unused = len(planes) - len(chosen)
    off_slices = max((abs(depth - k) for k, (depth, _) in chosen.items()), default=0.0)
    tally.furthest_mm = off_slices * onto.spacing_mm[2]
    return {k: contours for k, (_, contours) in chosen.items()}


def _findings(tally: _Tally, where: str) -> list[Finding]:
    noticed: list[tuple[bool, str, Severity, str, str]] = [
        (
            tally.num_outside > 0,
            "DCM-071",
            "warning",
            f"{tally.num_outside} of {tally.num_contours} contours lie outside the scan and are "
            "left out",
            "look whether this is the series that was drawn on",
        ),
        (
            tally.num_beyond > 0,
            "DCM-071",
            "note",
            f"{tally.num_beyond} of {tally.num_contours} contours reach beyond the scan and are "
            "cut off at its border",
            "",
        ),
        (
            tally.num_bare > 0 or tally.num_thin > 0,
            "DCM-073",
            "note",
            f"{tally.num_bare} contours have no points and are left out; {tally.num_thin} have one "
            "or two, and mark the voxels they lie on",
            "",
        ),
        (
            bool(tally.kinds_without_area),
            "DCM-073",
            "note",
            f"contours of type {', '.join(sorted(tally.kinds_without_area))} bound no area and "
            "are left out",
            "",
        ),
        (
            tally.num_doubtful_vox > 0,
            "DCM-075",
            "warning",
            "contours of one plane cover each other in part; the "
            f"{tally.num_doubtful_vox} voxels in both are taken out, as exclusive or says",
            "look at the region in a viewer, and unite the contours if they are one piece",
        ),
        (
            tally.furthest_mm > _ONE_PLANE_MM or tally.num_unused > 0,
            "DCM-076",
            "note",
            f"contours lie up to {tally.furthest_mm:.3g} mm from their slices; {tally.num_unused} "
            "planes of contours were left for nearer ones",
            "",
        ),
        (
            tally.is_striped,
            "DCM-076",
            "warning",
            "no two neighbouring slices hold a contour; the slices between are empty",
            "interpolate the contours where they were drawn, and export them again",
        ),
    ]
    return [
        Finding(code=code, severity=severity, subject=where, message=message, hint=hint)
        for holds, code, severity, message, hint in noticed
        if holds
    ]
