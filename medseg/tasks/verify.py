"""`medseg verify MASK SCAN`: a written mask read again by another library, and measured.

medseg reads NIfTI, NRRD and MetaImage by its own code, DICOM SEG and RTSTRUCT through pydicom. Here
SimpleITK and highdicom read the same file; nibabel does where a NIfTI grid is sheared or has more
than three axes, which SimpleITK refuses or gets wrong; matplotlib fills an RTSTRUCT's contours.
"""

import argparse
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import EXIT_SOME_FAILED, ReadError
from medseg.core.geometry import TOLERANCE_MM, Affine, Geometry
from medseg.core.volume import Volume
from medseg.io.formats import read_volume
from medseg.io.placement import lps_to_ras
from medseg.io.sniff import sniff
from medseg.runtime.console import say

# Two voxel axes further from a right angle than this make a grid that SimpleITK refuses.
_SHEAR = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What an independent reader found.

    Attributes:
        reader: the library that read the mask.
        corner_error_mm: largest distance between a corner of the mask as that library places it
            and the same corner of the scan; infinite where the shapes differ. Of an RTSTRUCT, the
            largest distance between a corner of a contour and the nearest corner of a voxel's
            cross-section.
        num_differing_vox: voxels whose value is not the one medseg reads.
        num_vox: voxels compared.
    """

    reader: str
    corner_error_mm: float
    num_differing_vox: int
    num_vox: int

    @property
    def passed(self) -> bool:
        """Whether the mask lies where it belongs and holds what medseg reads."""
        return self.corner_error_mm <= TOLERANCE_MM and self.num_differing_vox == 0


def main(argv: list[str]) -> int:
    """Verify one mask; exit code 3 when it is displaced or read differently."""
    parser = argparse.ArgumentParser(prog="medseg verify", description=__doc__.splitlines()[0])
    parser.add_argument("mask", type=Path, help="mask that medseg wrote, of any format")
    parser.add_argument("scan", type=Path, help="the scan it was made from: a file, folder or .zip")
    parser.add_argument(
        "--series", metavar="UID", help="which series, where the scan holds several"
    )
    chosen = parser.parse_args(argv)
    found = verify_mask(chosen.mask, chosen.scan, series_uid=chosen.series)
    grid = " (not the grid of the scan)" if isinf(found.corner_error_mm) else ""
    say(
        f"{found.reader}: largest corner error {found.corner_error_mm:.3g} mm{grid}, "
        f"{found.num_differing_vox} of {found.num_vox} voxels differ from medseg's reading"
    )
    say("the mask lies where it belongs" if found.passed else "the mask is NOT where it belongs")
    return 0 if found.passed else EXIT_SOME_FAILED


def verify_mask(mask: Path, scan: Path, *, series_uid: str | None = None) -> Verification:
    """Read a mask with medseg and with another library, and compare both with the scan.

    Args:
        mask: the mask.
        scan: the scan it belongs to.
        series_uid: which series of the scan.

    Raises:
        ReadError: VER-001 the other library cannot read the mask; and what medseg refuses.
    """
    kind = sniff(mask)
    reference = read_volume(scan, series_uid=series_uid).geometry
    if kind == "dicom":
        reader, own, other, error_mm = _read_dicom(mask, scan, reference)
    else:
        volume = read_volume(mask)
        own = volume.voxels[0]
        odd = kind == "nifti" and (_is_sheared(volume.geometry) or _had_more_axes(volume))
        reader = "nibabel" if odd else "SimpleITK"
        other, affine = _by_nibabel(mask) if odd else _by_simpleitk(mask)
        shape = (other.shape[0], other.shape[1], other.shape[2])
        error_mm = Geometry(shape, affine, reference.unit).corner_error_mm(reference)
    comparable = own.shape == other.shape
    return Verification(
        reader=reader,
        corner_error_mm=error_mm,
        num_differing_vox=int(np.count_nonzero(own != other)) if comparable else own.size,
        num_vox=own.size,
    )


def _read_dicom(
    mask: Path, scan: Path, reference: Geometry
) -> tuple[str, NDArray[Any], NDArray[Any], float]:
    """Return the other reader's name, what medseg and it read, and how far corners are off."""
    from medseg.io.dicom.masks import is_rtstruct, read_dicom_labels, read_dicom_mask
    from medseg.io.dicom.seg.segmentation import read_seg

    if not is_rtstruct(mask):
        own = _combined(read_seg(mask, onto=reference).voxels)
        return "highdicom", own, *_by_highdicom(mask, reference)
    labels = read_dicom_labels(mask)
    own = _combined(read_dicom_mask(mask, labels, onto=reference, scan=scan).voxels)
    return "matplotlib", own, *_by_matplotlib(mask, reference)


def _is_sheared(geometry: Geometry) -> bool:
    angles = geometry.direction.T @ geometry.direction
    return not np.allclose(angles, np.eye(3), atol=_SHEAR)


def _had_more_axes(volume: Volume) -> bool:
    return any(finding.code == "NII-018" for finding in volume.findings)


def _by_simpleitk(path: Path) -> tuple[NDArray[Any], Affine]:
    """Read voxels (I, J, K) and the affine, turned from LPS to RAS."""
    import SimpleITK

    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as fault:
        raise _unreadable(path, "SimpleITK", str(fault).splitlines()[-1]) from fault
    num_axes = image.GetDimension()
    if num_axes not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1:
        raise _unreadable(path, "SimpleITK", f"{num_axes} axes or several components; no label map")
    lps = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(num_axes, num_axes)
    lps[:num_axes, :num_axes] = direction * image.GetSpacing()
    lps[:num_axes, 3] = image.GetOrigin()
    voxels = SimpleITK.GetArrayFromImage(image).T
    return voxels.reshape((*voxels.shape, 1)[:3]), lps_to_ras(lps)


def _by_nibabel(path: Path) -> tuple[NDArray[Any], Affine]:
    """Read voxels (I, J, K) and the affine, in RAS."""
    import nibabel

    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    return voxels.reshape((*voxels.shape, 1)[:3]), np.asarray(image.affine)


def _by_highdicom(path: Path, reference: Geometry) -> tuple[NDArray[Any], float]:
    """Read segment numbers on the grid of the scan, and how far the corners of the frames are off.

    A SEG leaves out empty slices and may order axes in its own way, so its frames are a box inside
    the grid: corners are compared with the voxels of the scan that they should be.
    """
    import highdicom

    try:
        seg = highdicom.seg.segread(str(path))
        volume = seg.get_volume(combine_segments=True, skip_overlap_checks=False)
    except (ValueError, RuntimeError, AttributeError, KeyError) as fault:
        raise _unreadable(path, "highdicom", str(fault).splitlines()[0]) from fault
    own = lps_to_ras(np.asarray(volume.affine))
    exact = np.linalg.inv(reference.affine) @ own
    steps = np.rint(exact).astype(np.int64)
    box = Geometry((volume.array.shape[0], *volume.array.shape[1:3]), own)
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in box.shape], indexing="ij")).reshape(3, -1).T
    meant = ends @ steps[:3, :3].T + steps[:3, 3]
    placed = np.zeros(reference.shape, dtype=volume.array.dtype)
    if (meant < 0).any() or (meant >= reference.shape).any():
        return placed, float("inf")
    error_mm = np.linalg.norm(box.corners - reference.to_world(meant.astype(float)), axis=1).max()
    marked = np.argwhere(volume.array)
    target = marked @ steps[:3, :3].T + steps[:3, 3]
    placed[tuple(target.T)] = volume.array[tuple(marked.T)]
    return placed, float(error_mm)


def _by_matplotlib(path: Path, reference: Geometry) -> tuple[NDArray[Any], float]:
    """Fill the contours of an RTSTRUCT, the n-th region with n; return how far corners are off."""
    import pydicom
    from matplotlib.path import Path as Polygon

    dataset = pydicom.dcmread(path)
    order = {region.ROINumber: n for n, region in enumerate(dataset.StructureSetROISequence, 1)}
    filled = np.zeros(reference.shape, dtype=np.uint16)
    error_mm = 0.0
    for region in dataset.ROIContourSequence:
        if region.ReferencedROINumber not in order:
            continue
        inside = np.zeros(reference.shape, dtype=bool)
        for contour in region.get("ContourSequence", ()):
            if not contour.ContourGeometricType.startswith("CLOSED"):
                continue
            points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3) * (-1, -1, 1)
            index = reference.to_index(points)
            nearest = np.column_stack([np.floor(index[:, :2]) + 0.5, np.rint(index[:, 2])])
            off_mm = np.linalg.norm(points - reference.to_world(nearest), axis=1).max()
            k = int(nearest[0, 2])
            if not 0 <= k < reference.shape[2]:
                return filled, float("inf")
            error_mm = max(error_mm, float(off_mm))
            corners = np.vstack([index[:, :2], index[:1, :2]])
            # Only centres in the contour's own box can lie in it; others would cost the most.
            first = np.clip(np.floor(corners.min(axis=0)), 0, reference.shape[:2]).astype(int)
            last = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, reference.shape[:2]).astype(int)
            box = slice(first[0], last[0]), slice(first[1], last[1]), k
            centres = np.argwhere(np.ones(inside[box].shape, dtype=bool)) + first
            within = Polygon(corners).contains_points(centres) if len(centres) else centres
            inside[box] ^= within.reshape(inside[box].shape)
        number = order[region.ReferencedROINumber]
        filled[inside] = np.maximum(filled[inside], number)
    return filled, error_mm


def _combined(voxels: NDArray[Any]) -> NDArray[Any]:
    """Return segment numbers; where segments overlap, highdicom refuses before this matters."""
    if len(voxels) == 1:
        return np.asarray(voxels[0])
    numbers = np.arange(1, len(voxels) + 1).reshape(-1, 1, 1, 1)
    return np.asarray((voxels * numbers).max(axis=0))


def _unreadable(path: Path, reader: str, why: str) -> ReadError:
    return ReadError(
        f"{path}: {reader} cannot read it: {why.strip()}",
        code="VER-001",
        hint="medseg can read it, other tools may not; export it in another format",
    )
