"""Where a NIfTI file says its voxels lie: sform, else qform, else nowhere.

The standard (nifti1.h, "3D image (volume) orientation and location in space") allows two affines at
once and none at all. Here the sform counts where its code is positive, then the qform; a file with
neither is refused, because readers disagree about it (front and back are flipped between them).
"""

from pathlib import Path

import numpy as np

from medseg.core.errors import GeometryError
from medseg.core.findings import Finding
from medseg.core.geometry import TOLERANCE_MM, Affine, Geometry
from medseg.io.nifti_header import NiftiHeader
from medseg.io.placement import placed

# A unit quaternion rounded to float32 is off by about 1e-7; this much is another rotation.
_QUATERNION_SLACK = 1e-4
# Near half a turn the first part is the root of a rounding error. The reference implementation
# (nifti1_io.c) takes it for zero below the first bound; up to the second it may be nothing else.
_HALF_TURN = 1e-7
_MAYBE_HALF_TURN = 1e-6


# Huge numbers of a damaged header may overflow; `Geometry` refuses what comes of them.
@np.errstate(all="ignore")
def geometry_of(
    header: NiftiHeader, shape: tuple[int, int, int], path: Path
) -> tuple[Geometry, list[Finding]]:
    """Place the voxels, in RAS mm.

    Returns:
        The grid, and what was noticed: NII-012 sform unusable and qform taken instead, NII-013 the
        two disagree, NII-014 qform unusable, NII-015 no unit of length (taken as mm), NII-016
        another unit than mm, NII-017 a 2D file without a slice axis.

    Raises:
        GeometryError: NII-010 neither form, NII-011 a voxel size that is not positive, NII-012 no
            usable form.
    """
    _require_voxel_sizes(header, path)
    findings = _unit_findings(header, path)
    if header.sform_code <= 0 and header.qform_code <= 0:
        raise GeometryError(
            f"{path}: neither sform nor qform (both codes 0): orientation and position are unknown",
            code="NII-010",
            hint="export it again, or set the form in a tool that shows left and right",
        )
    if header.sform_code <= 0:
        return _placed(_qform(header, path), header, shape, path), findings
    try:
        geometry = _placed(_sform(header, findings, path), header, shape, path)
    except GeometryError as fault:
        if header.qform_code <= 0:
            raise
        geometry = _placed(_qform(header, path), header, shape, path)
        findings.append(_warning("NII-012", path, f"{fault.message}; the qform was used instead"))
        return geometry, findings
    if header.qform_code > 0:
        findings.extend(_disagreement(geometry, header, path))
    return geometry, findings


def _placed(
    affine: Affine, header: NiftiHeader, shape: tuple[int, int, int], path: Path
) -> Geometry:
    scaled = affine.copy()
    scaled[:3] *= header.unit_mm
    return placed(shape, scaled, name=str(path), code="NII-012")


def _require_voxel_sizes(header: NiftiHeader, path: Path) -> None:
    sizes = header.pixdim[1 : 1 + min(3, len(header.dim))]
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        listed = ", ".join(f"{size:g}" for size in sizes)
        raise GeometryError(
            f"{path}: pixdim: voxel sizes {listed}; expected positive numbers",
            code="NII-011",
            hint="set the true voxel size in the header, or export the scan again",
        )


def _sform(header: NiftiHeader, findings: list[Finding], path: Path) -> Affine:
    affine = np.vstack([header.srow, (0.0, 0.0, 0.0, 1.0)])
    if len(header.dim) < 3 and not affine[:3, 2].any():
        # A plane has a normal; how thick its only slice is nobody said.
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        length = float(np.linalg.norm(normal))
        affine[:3, 2] = normal / length if length else normal
        findings.append(
            Finding(
                code="NII-017",
                severity="note",
                subject=path.name,
                message="a 2D file without a slice axis; a thickness of one unit was taken",
            )
        )
    return affine


def _qform(header: NiftiHeader, path: Path, *, half_turn_below: float = _HALF_TURN) -> Affine:
    """Turn the quaternion into an affine (nifti1.h, method 2)."""
    b, c, d = header.quatern
    square = 1.0 - float(header.quatern @ header.quatern)
    # `not >=` also catches NaN.
    if not square >= -_QUATERNION_SLACK:
        raise GeometryError(
            f"{path}: qform: quaternion ({b:g}, {c:g}, {d:g}) is longer than 1",
            code="NII-012",
            hint="the header is damaged; export the scan again",
        )
    if square < half_turn_below:
        a = 0.0
        b, c, d = header.quatern / np.linalg.norm(header.quatern)
    else:
        a = float(np.sqrt(square))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sizes = header.pixdim[1:4].copy()
    # Sizes of axes the file does not have are undefined, and often zero.
    sizes[len(header.dim) :] = np.where(sizes[len(header.dim) :] > 0, sizes[len(header.dim) :], 1.0)
    sizes[2] *= -1.0 if header.pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * sizes
    affine[:3, 3] = header.qoffset
    return affine


def _disagreement(geometry: Geometry, header: NiftiHeader, path: Path) -> list[Finding]:
    try:
        others = [
            _placed(_qform(header, path, half_turn_below=bound), header, geometry.shape, path)
            for bound in (_HALF_TURN, _MAYBE_HALF_TURN)
        ]
    except GeometryError as fault:
        return [_warning("NII-014", path, f"{fault.message}; the sform was used")]
    error_mm = min(geometry.corner_error_mm(other) for other in others)
    if error_mm <= TOLERANCE_MM:
        return []
    found = f"sform and qform disagree by up to {error_mm:.3g} mm; the sform was used"
    return [_warning("NII-013", path, found)]


def _unit_findings(header: NiftiHeader, path: Path) -> list[Finding]:
    if not header.unit_declared:
        found = "no unit of length is declared; mm was taken"
        return [Finding(code="NII-015", severity="note", subject=path.name, message=found)]
    if header.unit_mm != 1.0:
        found = f"the header's unit is {header.unit_mm:g} mm; positions were turned into mm"
        return [Finding(code="NII-016", severity="note", subject=path.name, message=found)]
    return []


def _warning(code: str, path: Path, message: str) -> Finding:
    return Finding(
        code=code,
        severity="warning",
        subject=path.name,
        # Findings are logged, where no folder of the user's should appear.
        message=message.removeprefix(f"{path}: "),
        hint="look at the scan in a viewer before trusting left and right",
    )
