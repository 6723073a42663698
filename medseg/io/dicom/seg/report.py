"""Volumes as a DICOM structured report: TID 1500, one measurement group a segment of a SEG.

Every group (TID 1411) names the segment it measures, the source series, the class with the code
that the SEG gives it, and one number: the volume in ml (UCUM), by summing voxels (DCM 126030).
"""

from collections.abc import Mapping
from pathlib import Path

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from medseg import __version__
from medseg.core.errors import WriteError
from medseg.core.labels import Label, LabelSet
from medseg.io.dicom.headers.attributes import UNPARSABLE, unspoken
from medseg.io.dicom.reader import choose_series, find_series
from medseg.io.dicom.seg.segments import category_of, concept_of
from medseg.io.dicom.seg.source import EQUIPMENT, UTF_8, source_instances
from medseg.runtime.files import written_whole

_MILLILITRE = CodedConcept("ml", "UCUM", "milliliter")
_VOXELS_SUMMED = CodedConcept("126030", "DCM", "Sum of segmented voxel volumes")


def write_sr(
    volumes_ml: Mapping[str, float],
    path: Path,
    *,
    labels: LabelSet,
    seg: Path,
    source: Path,
    series_uid: str | None = None,
) -> None:
    """Write the volumes of a SEG's segments as a measurement report.

    The report is complete, preliminary and unverified: nobody has looked at it. Like the SEG it
    carries the patient's name, ids and dates, and is as identifying as the scan.

    Args:
        volumes_ml: millilitres by class; 0 for a segment without voxels.
        path: the file to write.
        labels: the classes, in the order of the segment numbers.
        seg: the SEG, as `write_seg` wrote it.
        source: the folder, .zip or file of the series it was drawn on.
        series_uid: which series of it, as for `read_dicom`.

    Raises:
        ReadError: the source cannot be read.
        WriteError: the file cannot be written, or the source lacks what a report must refer to.
    """
    series = choose_series(find_series(source), source, series_uid=series_uid)
    with unspoken():
        instances, _ = source_instances(series)
        segmentation = dcmread(seg, stop_before_pixels=True)
        groups = [
            _group(label, volumes_ml[label.name], number, segmentation, series_uid=series.uid)
            for number, label in enumerate(labels.labels, start=1)
        ]
        report = MeasurementReport(
            observation_context=ObservationContext(observer_device_context=_observer()),
            procedure_reported=codes.SCT.ImagingProcedure,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        document = _document(report, [segmentation, *instances], selector=series.selector)
        with written_whole(path) as stream:
            document.save_as(stream, enforce_file_format=True)


def _group(
    label: Label, volume_ml: float, number: int, segmentation: Dataset, *, series_uid: str
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=generate_uid(), identifier=label.name),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(series_uid),
        ),
        finding_category=category_of(label.code),
        finding_type=concept_of(label.code),
        algorithm_id=AlgorithmIdentification(name="medseg", version=__version__),
        method=_VOXELS_SUMMED,
        measurements=[Measurement(name=codes.SCT.Volume, value=volume_ml, unit=_MILLILITRE)],
    )


def _observer() -> ObserverContext:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=["medseg", __version__]),
            name="medseg",
            manufacturer_name=EQUIPMENT["manufacturer"],
            model_name=EQUIPMENT["manufacturer_model_name"],
            serial_number=EQUIPMENT["device_serial_number"],
        ),
    )


def _document(report: MeasurementReport, evidence: list[Dataset], *, selector: str) -> EnhancedSR:
    try:
        return EnhancedSR(
            evidence=evidence,
            content=report,
            series_instance_uid=generate_uid(),
            series_number=2,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            series_description="Volumes",
            specific_character_set=UTF_8,
            is_complete=True,
            **EQUIPMENT,
        )
    except UNPARSABLE as fault:
        raise WriteError(
            f"series {selector}: its headers lack what a report must refer to "
            f"({type(fault).__name__})",
            code="DCM-051",
            hint="StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID must be there",
        ) from fault
