"""DICOM SEG both ways: label maps on the slices of their source series, segments of any kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from highdicom import PlanePositionSequence
from highdicom.seg import Segmentation
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medseg.core.errors import WriteError
from medseg.core.geometry import Geometry, require_match
from medseg.core.labels import LabelMap, LabelSet
from medseg.core.volume import Volume
from medseg.io.dicom.class_names import require_expressible
from medseg.io.dicom.headers.attributes import UNPARSABLE, unspoken
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.pixels.stored import open_pixels
from medseg.io.dicom.reader import choose_series, find_series, geometry_of
from medseg.io.dicom.references import SEG_CLASSES, drawn_on, find_object, grid_of_source
from medseg.io.dicom.seg.drawing import Drawing, cutoff_of
from medseg.io.dicom.seg.frames import own_grid, require_described, segment_frames
from medseg.io.dicom.seg.segments import describe_segments, match_segments, segments_of
from medseg.io.dicom.seg.source import (
    EQUIPMENT,
    UTF_8,
    absent_ids,
    frames_first,
    source_instances,
    warn_of_empty,
)
from medseg.io.dicom.series.grouping import Series
from medseg.runtime.files import written_whole


def write_seg(
    label_map_IJK: LabelMap,
    path: Path,
    *,
    geometry: Geometry,
    labels: LabelSet,
    source: Path,
    series_uid: str | None = None,
    kind: Literal["BINARY", "LABELMAP"] = "BINARY",
) -> None:
    """Write a label map as a DICOM SEG on the slices of its source series.

    Every class becomes a segment (its number is the class's index) with its name, code and colour;
    frames without a marked voxel are left out, and a class without any is named in a warning. The
    file carries the patient's name, ids and dates from the source, as a PACS needs them: it is as
    identifying as the scan.

    Args:
        label_map_IJK: indices 0..N on `geometry`, or, where classes overlap, one mask a class,
            (N, I, J, K); these need `kind="BINARY"`.
        path: the file to write.
        geometry: the grid of the label map; must be that of the source, as `read_dicom` gives it.
        labels: the classes.
        source: the folder, .zip or file of the series the label map was drawn on.
        series_uid: which series of it, as for `read_dicom`.
        kind: `BINARY`, which every viewer reads, or `LABELMAP` (DICOM 2024b, a number a voxel).

    Raises:
        GeometryError: GEO-001, GEO-002, the label map does not lie on the source's slices.
        LabelError: LBL-003, values that are no index of a class.
        ReadError: the source cannot be read.
        WriteError: the file cannot be written, the source lacks what a SEG must refer to (DCM-051),
            or it cannot hold names or codes of the classes (DCM-077).
    """
    series = choose_series(find_series(source), source, series_uid=series_uid)
    require_match(geometry, geometry_of(series), name=path.name, reference_name="its DICOM source")
    require_expressible(labels, path)
    masks = frames_first(label_map_IJK, geometry, labels)
    warn_of_empty(masks, labels, path)
    with unspoken():
        instances, order = source_instances(series)
        seg = _segmentation(masks[order], instances, series, labels=labels, kind=kind, order=order)
        with written_whole(path) as stream:
            seg.save_as(stream, enforce_file_format=True)


def read_seg(
    path: Path,
    *,
    labels: LabelSet | None = None,
    onto: Geometry | None = None,
    source: Path | None = None,
    threshold: float = 0.5,
) -> Volume:
    """Read a DICOM SEG: binary, fractional or LABELMAP; frames in any order, absent ones empty.

    Args:
        path: the SEG, or a folder that holds exactly one.
        labels: the classes to translate segments into, by name, code or segment number; None
            keeps segment numbers.
        onto: the grid to place it on, such as that of its scan.
        source: in place of `onto`, the series it was drawn on (a folder, .zip or file). Without
            either, the smallest grid that holds its frames.
        threshold: the share of the largest fractional value from which a voxel is marked.

    Returns:
        One channel of indices (segment numbers without `labels`), or, where segments overlap, one
        channel of 0 and 1 a class (a segment without `labels`).

    Raises:
        ReadError: DCM-034 it is no SEG, and what pixels and functional groups may lack.
        GeometryError: DCM-033 another frame of reference than the source's, DCM-043 frames off the
            grid, DCM-001 frames that lie on no even grid.
        LabelError: LBL-003, a segment that belongs to no class.
    """
    with unspoken():
        file, dataset = _find_seg(path)
        segments = segments_of(dataset, name=file.name)
        frames = segment_frames(dataset, name=file.name)
        require_described(frames, segments, name=file.name)
        if source is not None:
            onto = grid_of_source(drawn_on(dataset), source, name=file.name, what="SEG")
        grid = onto or own_grid(frames, name=file.name)
        numbers = {int(label.values[0]): int(label.values[0]) for label in segments.labels}
        if labels is not None:
            numbers = match_segments(segments, labels, name=file.name)
        drawing = Drawing(
            frames=frames,
            pixels=open_pixels(file),
            grid=grid,
            numbers=numbers,
            cutoff=cutoff_of(dataset, threshold, name=file.name),
        )
        merged = drawing.merged()
        if merged is not None:
            return Volume(merged[None], grid, ("label map",))
        classes = labels or segments
        order = sorted(numbers.values()) if labels is None else range(1, len(labels) + 1)
        return Volume(drawing.apart(list(order)), grid, classes.names)


def read_seg_labels(path: Path) -> LabelSet:
    """Return the segments of a SEG as a label set: names, numbers as values, colours, codes.

    Raises:
        ReadError: it is no SEG.
        LabelError: it describes no segment.
    """
    with unspoken():
        file, dataset = _find_seg(path)
        return segments_of(dataset, name=file.name)


def _segmentation(
    masks: NDArray[Any],
    instances: Sequence[Dataset],
    series: Series,
    *,
    labels: LabelSet,
    kind: str,
    order: Sequence[int],
) -> Segmentation:
    positions = None
    if len(instances) == 1:
        # A stack may be only some of the frames of its file.
        positions = [
            PlanePositionSequence("PATIENT", series.frames[k].plane.position_mm) for k in order
        ]
    try:
        return Segmentation(
            source_images=instances,
            pixel_array=masks,
            segmentation_type=kind,
            segment_descriptions=describe_segments(labels),
            series_instance_uid=generate_uid(),
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            plane_positions=positions,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            specific_character_set=UTF_8,
            series_description="Segmentation",
            **EQUIPMENT,
        )
    except UNPARSABLE as fault:
        raise WriteError(
            f"series {series.selector}: its headers lack what a SEG must refer to "
            f"({absent_ids(instances) or type(fault).__name__})",
            code="DCM-051",
            hint="export the series again with its ids, or write .nii.gz",
        ) from fault


def _find_seg(path: Path) -> tuple[DicomFile, Dataset]:
    return find_object(path, SEG_CLASSES, what="DICOM SEG")
