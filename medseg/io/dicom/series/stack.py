"""A stack: frames put in order along their normal, and the affine that their positions give.

Order and spacing come from ImagePositionPatient alone; instance numbers and slice thickness are
claims, positions are measurements. Nothing is straightened, filled in or made up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import GeometryError
from medseg.core.findings import Finding
from medseg.core.geometry import TOLERANCE_MM, Geometry
from medseg.io.dicom.series.frames import Frame

# Directions of two slices of one stack may differ by this much in any cosine (text rounding).
ORIENTATION_TOLERANCE = 1e-4
# Positions are often rounded to 0.01 mm; a missing slice is off by a whole spacing.
_SPACING_TOLERANCE = 0.01
_ROUNDING_MM = 0.02
# Pixel sizes of two slices of one stack may differ by this much (text rounding).
_PIXEL_TOLERANCE_MM = 1e-4
# A gantry tilt below this angle (rad) does not move a slice by a voxel in any scan.
_TILT_TOLERANCE = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Thickness of a lone slice that does not say; it only names a unit, nothing is measured along it.
_DEFAULT_THICKNESS_MM = 1.0

SamePixels = Callable[[Frame, Frame], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames in the order of k, on their grid; `findings` tell what was dropped or noticed."""

    frames: tuple[Frame, ...]
    geometry: Geometry
    findings: tuple[Finding, ...]


def build_stack(frames: Sequence[Frame], *, name: str, same_pixels: SamePixels) -> Stack:
    """Order frames along their normal and compute the grid they lie on.

    Args:
        frames: at least one, of one orientation within `ORIENTATION_TOLERANCE`.
        name: the series, for messages.
        same_pixels: tells whether two frames hold the same values; asked only for frames at one
            position.

    Raises:
        GeometryError: DCM-001 a missing slice or uneven spacing, DCM-002 two different slices at
            one position, DCM-005 slices that do not lie on a line, DCM-021 another matrix or pixel
            size among them.
    """
    _require_one_matrix(frames, name)
    findings: list[Finding] = []
    normal = frames[0].plane.normal
    ordered = sorted(frames, key=lambda frame: float(normal @ frame.plane.position_mm))
    findings += _orientation_findings(ordered, name)
    ordered, dropped = _without_copies(ordered, same_pixels)
    if dropped:
        findings.append(
            _note("DCM-002", name, f"{dropped} identical copies of slices were dropped")
        )
    if len(ordered) == 1:
        step, notes = _lone_slice(ordered[0], name)
    else:
        step, notes = _step_of(ordered, name)
    geometry = Geometry((*ordered[0].shape, len(ordered)), _affine(ordered[0], step))
    return Stack(tuple(ordered), geometry, (*findings, *notes))


def _affine(first: Frame, step_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """RAS affine of a stack from its first plane and the way to the next (PS3.3 C.7.6.2.1.1)."""
    affine = np.eye(4)
    for axis, direction in enumerate((first.plane.i_direction, first.plane.j_direction)):
        unit = np.array(direction) / np.linalg.norm(direction)
        affine[:3, axis] = unit * first.plane.spacing_mm[axis]
    affine[:3, 2] = step_mm
    affine[:3, 3] = first.plane.position_mm
    return np.asarray(_LPS_TO_RAS @ affine)


def _require_one_matrix(frames: Sequence[Frame], name: str) -> None:
    kinds: list[list[Frame]] = []
    for frame in frames:
        home = next((kind for kind in kinds if _of_one_matrix(frame, kind[0])), None)
        if home is None:
            kinds.append([frame])
        else:
            home.append(frame)
    if len(kinds) == 1:
        return
    usual = max(kinds, key=len)
    odd = [frame for kind in kinds if kind is not usual for frame in kind]
    listed = ", ".join(f"{frame.file.name} ({_kind_of(frame)})" for frame in odd[:4])
    more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
    raise GeometryError(
        f"{name}: {listed}{more} differ in matrix or pixel size from the {len(usual)} "
        f"others ({_kind_of(usual[0])})",
        code="DCM-021",
        hint="move the odd files out of the folder if they do not belong to the volume",
    )


def _of_one_matrix(frame: Frame, other: Frame) -> bool:
    apart_mm = np.subtract(frame.plane.spacing_mm, other.plane.spacing_mm)
    return frame.shape == other.shape and float(np.abs(apart_mm).max()) < _PIXEL_TOLERANCE_MM


def _orientation_findings(frames: Sequence[Frame], name: str) -> list[Finding]:
    cosines = np.array([frame.plane.i_direction + frame.plane.j_direction for frame in frames])
    largest = float(np.abs(cosines - cosines[0]).max())
    if largest <= 1e-6:
        return []
    return [
        _note("DCM-020", name, f"direction cosines differ by up to {largest:.1e} between slices")
    ]


def _without_copies(ordered: Sequence[Frame], same_pixels: SamePixels) -> tuple[list[Frame], int]:
    """Drop frames that repeat the one before them in place and in pixels."""
    kept = [ordered[0]]
    for frame in ordered[1:]:
        before = kept[-1]
        apart_mm = np.subtract(frame.plane.position_mm, before.plane.position_mm)
        if np.linalg.norm(apart_mm) > TOLERANCE_MM:
            kept.append(frame)
        elif not same_pixels(before, frame):
            raise GeometryError(
                f"{_where(before)} and {_where(frame)} lie at the same position "
                f"{_listed(frame)} mm but hold different pixels",
                code="DCM-002",
                hint="keep one of them, or split the folder if these are two time points",
            )
    return kept, len(ordered) - len(kept)


def _lone_slice(frame: Frame, name: str) -> tuple[NDArray[np.float64], list[Finding]]:
    claimed = frame.plane.thickness_mm
    thickness_mm = claimed or _DEFAULT_THICKNESS_MM
    source = "as the file claims" if claimed else "a placeholder, the file gives none"
    message = f"a single slice; its thickness is {thickness_mm:g} mm, {source}"
    return frame.plane.normal * thickness_mm, [_note("DCM-035", name, message)]


def _step_of(ordered: Sequence[Frame], name: str) -> tuple[NDArray[np.float64], list[Finding]]:
    """Return the way from one slice to the next, once all are found to be evenly spaced."""
    positions = np.array([frame.plane.position_mm for frame in ordered], dtype=np.float64)
    normal = ordered[0].plane.normal
    gaps_mm = np.diff(positions @ normal)
    # The lower median: of two gaps, the wider is the one where a slice may be missing.
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])
    tolerance_mm = max(_SPACING_TOLERANCE * usual_mm, _ROUNDING_MM)
    worst = int(np.abs(gaps_mm - usual_mm).argmax())
    if abs(gaps_mm[worst] - usual_mm) > tolerance_mm:
        raise _uneven(ordered, worst, gap_mm=float(gaps_mm[worst]), usual_mm=usual_mm, name=name)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    line = positions[0] + np.arange(len(positions))[:, None] * step
    off_mm = np.linalg.norm(positions - line, axis=1)
    if off_mm.max() > max(tolerance_mm, _ROUNDING_MM):
        odd = ordered[int(off_mm.argmax())]
        raise GeometryError(
            f"{name}: {_where(odd)} lies {off_mm.max():.3g} mm beside the line through the other "
            f"slices (tolerance {tolerance_mm:.3g} mm)",
            code="DCM-005",
            hint="the positions in the headers do not describe one straight stack",
        )
    return step, _step_findings(step, normal, float(off_mm.max()), name)


def _step_findings(
    step: NDArray[np.float64], normal: NDArray[np.float64], off_mm: float, name: str
) -> list[Finding]:
    findings = []
    across = step - (step @ normal) * normal
    tilt = float(np.arctan2(np.linalg.norm(across), step @ normal))
    if tilt > _TILT_TOLERANCE:
        findings.append(
            _note(
                "DCM-005",
                name,
                f"gantry tilt: the stack leans {np.degrees(tilt):.2f} degrees, "
                f"{np.linalg.norm(across):.3g} mm a slice; the sheared grid is kept",
            )
        )
    if off_mm > TOLERANCE_MM:
        message = f"slice positions scatter by up to {off_mm:.2g} mm around even spacing"
        findings.append(_note("DCM-001", name, message))
    return findings


def _uneven(
    ordered: Sequence[Frame], worst: int, *, gap_mm: float, usual_mm: float, name: str
) -> GeometryError:
    before, after = ordered[worst], ordered[worst + 1]
    where = (
        f"{_where(before)} at {_listed(before)} mm and {_where(after)} at {_listed(after)} mm "
        f"are {gap_mm:.4g} mm apart, the others {usual_mm:.4g} mm"
    )
    missing = round(gap_mm / usual_mm) - 1
    if missing >= 1 and abs(gap_mm - (missing + 1) * usual_mm) <= 0.1 * usual_mm:
        return GeometryError(
            f"{name}: {missing} slice{'s' if missing > 1 else ''} missing: {where}",
            code="DCM-001",
            hint="copy the series again; a gap is not filled in",
        )
    return GeometryError(
        f"{name}: uneven spacing: {where}",
        code="DCM-001",
        hint="resample the series to even spacing, or split it, before using it",
    )


def _kind_of(frame: Frame) -> str:
    i_mm, j_mm = frame.plane.spacing_mm
    return f"{frame.shape[0]} x {frame.shape[1]} pixels of {i_mm:g} x {j_mm:g} mm"


def _where(frame: Frame) -> str:
    return f"{frame.file.name} frame {frame.index + 1}" if frame.index else frame.file.name


def _listed(frame: Frame) -> str:
    return "(" + ", ".join(f"{mm:.5g}" for mm in frame.plane.position_mm) + ")"


def _note(code: str, name: str, message: str) -> Finding:
    return Finding(code=code, severity="note", subject=name, message=message)
