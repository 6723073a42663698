"""Writing an RTSTRUCT: classes become closed contours on the slices of their source series."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from medseg.core.errors import WriteError
from medseg.core.geometry import Geometry, require_match
from medseg.core.labels import Label, LabelMap, LabelSet
from medseg.io.dicom.class_names import MAX_NAME, require_expressible
from medseg.io.dicom.headers.attributes import UNPARSABLE, text, unspoken
from medseg.io.dicom.reader import choose_series, find_series, geometry_of
from medseg.io.dicom.references import read_header
from medseg.io.dicom.rtstruct.outlines import outlines_of
from medseg.io.dicom.seg.source import EQUIPMENT, FILED_BY, UTF_8, frames_first, warn_of_empty
from medseg.io.dicom.series.grouping import Series
from medseg.runtime.files import written_whole

# All that is copied from the source: whose it is, and of which study (PS3.3 C.7.1.1, C.7.2.1).
_COPIED = (*FILED_BY, "StudyInstanceUID")
# What an RTSTRUCT calls the study in its references (retired, and still what readers expect).
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
# A decimal string (DS) holds 16 characters (PS3.5 6.2).
_DECIMALS = "%.8f"
_FURTHEST_MM = 1e6
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])

# Contours of one class: the slice k each lies on, and its corners in voxels, N x 2.
_Outlines = list[tuple[int, NDArray[np.float64]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """The series that is drawn on, and the header of its first file."""

    series: Series
    header: Dataset

    @property
    def sop_class(self) -> str:
        return text(self.header, "SOPClassUID")

    def image(self, k: int) -> Dataset:
        """Return a reference to slice k."""
        frame = self.series.frames[k]
        image = Dataset()
        image.ReferencedSOPClassUID = self.sop_class
        image.ReferencedSOPInstanceUID = frame.sop_uid
        if (text(self.header, "NumberOfFrames") or "1") != "1":
            image.ReferencedFrameNumber = frame.index + 1
        return image


def write_rtstruct(
    label_map_IJK: LabelMap,
    path: Path,
    *,
    geometry: Geometry,
    labels: LabelSet,
    source: Path,
    series_uid: str | None = None,
) -> None:
    """Write a label map as an RTSTRUCT on the slices of its source series.

    Every class becomes a region with its name, code and colour; its contours run through the edges
    of voxels, so a reader that fills them by voxel centres gets the same voxels back. Holes are
    keyholes in contours of type CLOSED_PLANAR, which more readers know than CLOSEDPLANAR_XOR; each
    contour refers to the image it lies on. A class without voxels is a region without contours,
    and is named in a warning.

    The file carries the patient's name, ids and dates from the source, as a PACS needs them: it is
    as identifying as the scan.

    Args:
        label_map_IJK: indices 0..N on `geometry`, or, where classes overlap, one mask a class,
            (N, I, J, K).
        path: the file to write.
        geometry: the grid of the label map; must be that of the source, as `read_dicom` gives it.
        labels: the classes.
        source: the folder, .zip or file of the series the label map was drawn on.
        series_uid: which series of it, as for `read_dicom`.

    Raises:
        GeometryError: GEO-001, GEO-002, the label map does not lie on the source's slices.
        LabelError: LBL-003, values that are no index of a class.
        ReadError: the source cannot be read.
        WriteError: DCM-051 the source lacks what contours must refer to; DCM-077 names or
            positions that the format cannot hold; and the file cannot be written.
    """
    series = choose_series(find_series(source), source, series_uid=series_uid)
    require_match(geometry, geometry_of(series), name=path.name, reference_name="its DICOM source")
    require_expressible(labels, path)
    _require_near(geometry, path)
    masks_KJI = frames_first(label_map_IJK, geometry, labels)
    warn_of_empty(masks_KJI, labels, path)
    with unspoken():
        scan = _scan_of(series)
        dataset = _structure_set(scan)
        _add_regions(dataset, labels, frame_of_reference=series.frame_of_reference)
        for index, outlines in _outlines(masks_KJI, len(labels)).items():
            dataset.ROIContourSequence[index - 1].ContourSequence = [
                _contour(corners, geometry, k=k, image=scan.image(k)) for k, corners in outlines
            ]
        with written_whole(path) as stream:
            dataset.save_as(stream, enforce_file_format=True)


def _require_near(geometry: Geometry, path: Path) -> None:
    if np.abs(geometry.corners).max() >= _FURTHEST_MM / 2:
        raise WriteError(
            f"{path.name}: lies more than {_FURTHEST_MM / 2:g} mm from the origin, which no "
            "contour can say exactly",
            code="DCM-077",
            hint="look at the positions in the headers of the scan",
        )


def _scan_of(series: Series) -> _Scan:
    header = read_header(series.frames[0].file)
    scan = _Scan(series=series, header=header)
    needed = (scan.sop_class, series.study_uid, series.frame_of_reference)
    if not all(needed) or not all(frame.sop_uid for frame in series.frames):
        raise WriteError(
            f"series {series.selector}: its headers lack what an RTSTRUCT must refer to",
            code="DCM-051",
            hint="StudyInstanceUID, SOPInstanceUID and FrameOfReferenceUID must be there",
        )
    return scan


def _structure_set(scan: _Scan) -> Dataset:
    """Return the modules of PS3.3 A.19 without any region."""
    now = datetime.now().astimezone()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    # Contours of more than 64 KiB cannot be encoded with explicit VR (PS3.3 C.8.8.6).
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SpecificCharacterSet = UTF_8
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    dataset.InstanceCreationDate = dataset.StructureSetDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.StructureSetTime = now.strftime("%H%M%S")
    for keyword in _COPIED:
        setattr(dataset, keyword, _value(scan.header, keyword))
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Segmentation"
    dataset.OperatorsName = ""
    dataset.Manufacturer = EQUIPMENT["manufacturer"]
    dataset.ManufacturerModelName = EQUIPMENT["manufacturer_model_name"]
    dataset.SoftwareVersions = EQUIPMENT["software_versions"]
    dataset.StructureSetLabel = "medseg"
    dataset.FrameOfReferenceUID = scan.series.frame_of_reference
    dataset.PositionReferenceIndicator = ""
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_space(scan)]
    return dataset


def _value(source: Dataset, keyword: str) -> Any:
    try:
        value = source.get(keyword)
    except UNPARSABLE:
        return ""
    return "" if value is None else value


def _space(scan: _Scan) -> Dataset:
    series = scan.series
    referenced = Dataset()
    referenced.SeriesInstanceUID = series.uid
    referenced.ContourImageSequence = [scan.image(k) for k in range(series.num_slices)]
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = series.study_uid
    study.RTReferencedSeriesSequence = [referenced]
    space = Dataset()
    space.FrameOfReferenceUID = series.frame_of_reference
    space.RTReferencedStudySequence = [study]
    return space


def _add_regions(dataset: Dataset, labels: LabelSet, *, frame_of_reference: str) -> None:
    """Describe every class, without contours."""
    regions, contours, observations = [], [], []
    for number, label in enumerate(labels.labels, start=1):
        region = Dataset()
        region.ROINumber = number
        region.ReferencedFrameOfReferenceUID = frame_of_reference
        region.ROIName = label.name[:MAX_NAME].strip()
        region.ROIGenerationAlgorithm = "AUTOMATIC"
        regions.append(region)
        drawn = Dataset()
        drawn.ReferencedROINumber = number
        drawn.ROIDisplayColor = list(label.colour)
        contours.append(drawn)
        observations.append(_observation(number, label))
    dataset.StructureSetROISequence = regions
    dataset.ROIContourSequence = contours
    dataset.RTROIObservationsSequence = observations


def _observation(number: int, label: Label) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    # Organ, target, avoidance: a plan's question, which a segmentation does not answer.
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    if label.code is not None:
        concept = Dataset()
        concept.CodeValue = label.code.value
        concept.CodingSchemeDesignator = label.code.scheme
        concept.CodeMeaning = label.code.meaning
        observation.RTROIIdentificationCodeSequence = [concept]
    return observation


def _outlines(masks_KJI: NDArray[Any], num_classes: int) -> dict[int, _Outlines]:
    """Return the outlines of every class that has voxels, slice by slice, by its index."""
    found: dict[int, _Outlines] = {}
    for k, plane_JI in enumerate(masks_KJI):
        for index in _classes_on(plane_JI, num_classes):
            mask_JI = plane_JI[..., index - 1] > 0 if plane_JI.ndim == 3 else plane_JI == index
            outlines = outlines_of(mask_JI.T)
            found.setdefault(index, []).extend((k, corners) for corners in outlines)
    return found


def _classes_on(plane_JI: NDArray[Any], num_classes: int) -> Sequence[int]:
    if plane_JI.ndim == 3:
        marked = plane_JI.any(axis=(0, 1))
    else:
        marked = np.bincount(plane_JI.ravel(), minlength=num_classes + 1)[1:] > 0
    return [int(n) + 1 for n in np.flatnonzero(marked)]


def _contour(
    corners: NDArray[np.float64], geometry: Geometry, *, k: int, image: Dataset
) -> Dataset:
    index = np.column_stack([corners, np.full(len(corners), float(k))])
    points_mm = geometry.to_world(index) * _LPS_TO_RAS
    contour = Dataset()
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points_mm)
    # As one text: pydicom would make an object of every number, and check each.
    decimals = "\\".join(np.char.mod(_DECIMALS, points_mm.ravel()).tolist())
    contour.add(DataElement("ContourData", "DS", decimals, already_converted=True))
    return contour
