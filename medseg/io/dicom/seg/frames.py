"""Frames of a DICOM SEG: read in any order, and placed on a grid, absent ones empty.

Shapes: a frame is (rows, columns); voxel arrays are (I, J, K).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medseg.core.errors import GeometryError, LabelError, ReadError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet
from medseg.io.dicom.headers.attributes import number, text, whole
from medseg.io.dicom.pixels.storage import matrix_of
from medseg.io.dicom.series.enhanced import FunctionalGroups
from medseg.io.dicom.series.frames import Plane, plane_of

# Writers round positions to six digits; a frame of another grid is off by most of a voxel.
_TOLERANCE_MM = 0.01
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DEFAULT_SPACING_MM = 1.0
# No scanner makes more slices than this; a grid of more comes from positions that make no sense.
_MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFrame:
    """One plane of a SEG.

    Attributes:
        index: its place in the file, from 0.
        segment: the segment it belongs to; None in a LABELMAP, whose pixels say it.
        shape: pixels along i and j.
        plane: its place in the patient.
        step_mm: distance between planes as the file claims it; None when it does not.
    """

    index: int
    segment: int | None
    shape: tuple[int, int]
    plane: Plane
    step_mm: float | None

    @property
    def affine(self) -> NDArray[np.float64]:
        """RAS affine of the plane, with the unit normal as third axis."""
        affine = np.eye(4)
        affine[:3, 0] = np.array(self.plane.i_direction) * self.plane.spacing_mm[0]
        affine[:3, 1] = np.array(self.plane.j_direction) * self.plane.spacing_mm[1]
        affine[:3, 2] = self.plane.normal
        affine[:3, 3] = self.plane.position_mm
        return np.asarray(_LPS_TO_RAS @ affine)


def segment_frames(dataset: Dataset, *, name: str) -> list[SegmentFrame]:
    """Return the frames of a SEG in the order of the file.

    Raises:
        ReadError: DCM-016, functional groups are missing, or do not name a frame's segment.
        GeometryError: DCM-018, DCM-019, DCM-020: a frame cannot be placed.
    """
    groups = FunctionalGroups(dataset, name)
    numbered_by_pixels = text(dataset, "SegmentationType") == "LABELMAP"
    frames = []
    for index in range(groups.num_frames):
        where = f"{name} frame {index + 1}"
        measures = groups.of(index, "PixelMeasuresSequence")
        identified = groups.of(index, "SegmentIdentificationSequence")
        segment = whole(identified, "ReferencedSegmentNumber", name=where)
        if segment is None and not numbered_by_pixels:
            raise ReadError(
                f"{where}: does not say which segment it draws (ReferencedSegmentNumber)",
                code="DCM-016",
                hint="export the SEG again from where it was drawn",
            )
        frames.append(
            SegmentFrame(
                index=index,
                segment=segment,
                shape=matrix_of(dataset, name),
                plane=plane_of(
                    groups.of(index, "PlanePositionSequence"),
                    groups.of(index, "PlaneOrientationSequence"),
                    measures,
                    name=where,
                ),
                step_mm=number(measures, "SpacingBetweenSlices", name=where),
            )
        )
    return frames


def require_described(frames: Sequence[SegmentFrame], segments: LabelSet, *, name: str) -> None:
    """Refuse frames that draw a segment the file does not describe.

    Raises:
        LabelError: DCM-042.
    """
    described = {label.values[0] for label in segments.labels}
    for frame in frames:
        if frame.segment is not None and frame.segment not in described:
            raise LabelError(
                f"{name} frame {frame.index + 1}: belongs to segment {frame.segment}, which the "
                f"file does not describe (it describes {sorted(map(int, described))})",
                code="DCM-042",
                hint="export the SEG again from where it was drawn",
            )


def own_grid(frames: Sequence[SegmentFrame], *, name: str) -> Geometry:
    """Return the smallest grid that holds all frames; planes between them are empty ones.

    Raises:
        GeometryError: DCM-001, frames that do not lie evenly on one line.
    """
    positions = np.array([frame.plane.position_mm for frame in frames])
    depths_mm = positions @ frames[0].plane.normal
    first, last = int(depths_mm.argmin()), int(depths_mm.argmax())
    affine = frames[first].affine
    step_mm = _step_mm(frames[0], np.sort(depths_mm - depths_mm[first]), name)
    num_steps = round(float(depths_mm[last] - depths_mm[first]) / step_mm)
    if num_steps:
        way = _LPS_TO_RAS[:3, :3] @ (positions[last] - positions[first])
        affine[:3, 2] = way / num_steps
    else:
        affine[:3, 2] *= step_mm
    return Geometry((*frames[0].shape, num_steps + 1), affine)


def _step_mm(frame: SegmentFrame, depths_mm: NDArray[np.float64], name: str) -> float:
    """Return the distance between planes that all depths, sorted from 0, are multiples of."""
    gaps_mm = np.diff(depths_mm)
    gaps_mm = gaps_mm[gaps_mm > _TOLERANCE_MM]
    claimed_mm = abs(frame.step_mm or 0.0)
    if not len(gaps_mm):
        return claimed_mm or frame.plane.thickness_mm or _DEFAULT_SPACING_MM
    for step_mm in (claimed_mm, float(gaps_mm.min())):
        if step_mm > _TOLERANCE_MM and depths_mm[-1] / step_mm < _MAX_STEPS:
            steps = depths_mm / step_mm
            if np.abs(steps - np.rint(steps)).max() * step_mm <= 2 * _TOLERANCE_MM:
                return step_mm
    raise GeometryError(
        f"{name}: its frames lie {', '.join(f'{mm:.4g}' for mm in gaps_mm[:6])} mm apart, which "
        "no even spacing explains",
        code="DCM-001",
        hint="read it onto the grid of its scan",
    )


def place(
    pixels: NDArray[Any], frame: SegmentFrame, onto: Geometry, *, name: str
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Find the voxels of a grid that a frame's marked pixels are.

    Args:
        pixels: (rows, columns); 0 is unmarked.
        frame: where they lie.
        onto: a grid whose axes are the frame's own, in any order and direction.
        name: the file, for messages.

    Returns:
        Voxel indices, N x 3, and the pixels' values, N.

    Raises:
        GeometryError: DCM-043, the frame lies between the voxels of the grid, or marked pixels
            outside it.
    """
    to_voxels = np.linalg.inv(onto.affine) @ frame.affine
    columns, rows = frame.shape
    corners = np.array([(i, j, 0, 1) for i in (0, columns - 1) for j in (0, rows - 1)])
    found = (corners @ to_voxels.T)[:, :3]
    off_mm = np.linalg.norm((found - np.rint(found)) @ onto.affine[:3, :3].T, axis=1).max()
    axes = np.rint(to_voxels[:3, :2])
    square = np.abs(axes).sum(axis=0).tolist() == [1, 1] and np.abs(axes).sum(axis=1).max() == 1
    if off_mm > _TOLERANCE_MM or not square:
        raise GeometryError(
            f"{name} frame {frame.index + 1}: lies between the voxels of the scan (off by "
            f"{off_mm:.3g} mm, tolerance {_TOLERANCE_MM} mm)",
            code="DCM-043",
            hint="give the series the SEG was drawn on",
        )
    j, i = np.nonzero(pixels)
    index = np.stack([i, j], axis=1) @ axes.T.astype(np.intp) + np.rint(found[0]).astype(np.intp)
    if len(index) and (index.min() < 0 or (index >= onto.shape).any()):
        raise GeometryError(
            f"{name} frame {frame.index + 1}: marks voxels outside the scan",
            code="DCM-043",
            hint="give the series the SEG was drawn on",
        )
    return index, pixels[j, i]
