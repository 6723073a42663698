"""DICOM SR: the volumes, codes and references written are those that other readers find."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from pydicom.sr.codedict import codes

from medseg.core.errors import WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import CodedTerm, Label, LabelSet
from medseg.core.volume import Volume
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.seg.report import write_sr
from medseg.io.dicom.seg.segmentation import write_seg
from medseg.io.dicom.series_writer import write_series

BIN = str(Path(sys.executable).parent)
LABELS = LabelSet(
    labels=(
        Label(
            name="Milz",
            values=(7,),
            colour=(200, 30, 90),
            code=CodedTerm(value="78961009", scheme="SCT", meaning="Spleen"),
        ),
        Label(
            name="Läsion",
            values=(9,),
            colour=(10, 240, 20),
            code=CodedTerm(value="4147007", scheme="SCT", meaning="Mass"),
        ),
        Label(name="rest", values=(11,), colour=(1, 2, 3)),
    )
)


@pytest.fixture(params=["BINARY", "LABELMAP"])
def report(request, tmp_path):
    """A scan in `scan/`, its mask in `m.seg.dcm`, and the volumes in `m.sr.dcm`."""
    affine = np.array([[-0.8, 0, 0, 10], [0, -1.1, 0, 20], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])
    voxels = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)
    write_series(
        Volume(voxels[None], Geometry((5, 4, 3), affine)),
        tmp_path / "scan",
        modality="CT",
        patient_id="phantom",
        seed="scan",
    )
    geometry = read_dicom(tmp_path / "scan").geometry
    label_map = np.zeros((5, 4, 3), np.uint8)
    label_map[:2], label_map[4, 0, 0] = 1, 2
    write_seg(
        label_map,
        tmp_path / "m.seg.dcm",
        geometry=geometry,
        labels=LABELS,
        source=tmp_path / "scan",
        kind=request.param,
    )
    # 24, 1 and 0 voxels of 0.8 x 1.1 x 2.5 mm.
    volumes_ml = {"Milz": 24 * 2.2e-3, "Läsion": 2.2e-3, "rest": 0.0}
    write_sr(
        volumes_ml,
        tmp_path / "m.sr.dcm",
        labels=LABELS,
        seg=tmp_path / "m.seg.dcm",
        source=tmp_path / "scan",
    )
    return tmp_path


def test_highdicom_finds_every_volume_on_its_segment(report):
    document = srread(report / "m.sr.dcm")
    seg = pydicom.dcmread(report / "m.seg.dcm")
    source = pydicom.dcmread(next((report / "scan").iterdir()))
    groups = document.content.get_volumetric_roi_measurement_groups()
    found = {}
    for number, group in enumerate(groups, start=1):
        (measurement,) = group.get_measurements()
        assert measurement.name == codes.SCT.Volume
        assert (measurement.unit.value, measurement.unit.scheme_designator) == ("ml", "UCUM")
        found[group.tracking_identifier] = measurement.value
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert segment.referenced_sop_class_uid == seg.SOPClassUID
        assert segment.referenced_segment_numbers == [number]
        assert segment[1].name == codes.DCM.SourceSeriesForSegmentation
        assert segment[1].value == source.SeriesInstanceUID
    assert found == pytest.approx({"Milz": 0.0528, "Läsion": 0.0022, "rest": 0}, rel=1e-9)
    assert [group.finding_type.value for group in groups] == ["78961009", "4147007", "85756007"]
    assert [group.finding_category.value for group in groups] == [
        "123037004", "49755003", "85756007",
    ]  # fmt: skip


def test_the_report_lists_the_segmentation_and_every_slice_as_evidence(report):
    document = pydicom.dcmread(report / "m.sr.dcm")
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    listed = {
        instance.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    files = [report / "m.seg.dcm", *(report / "scan").iterdir()]
    assert listed == {pydicom.dcmread(path).SOPInstanceUID for path in files}
    flags = (document.CompletionFlag, document.VerificationFlag, document.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")


@pytest.mark.skipif(shutil.which("tid1500reader", path=BIN) is None, reason="dcmqi is absent")
def test_dcmqi_reads_the_same_volumes(report):
    subprocess.run(
        [
            shutil.which("tid1500reader", path=BIN),
            "--inputDICOM", report / "m.sr.dcm",
            "--outputMetadata", report / "m.json",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    groups = json.loads((report / "m.json").read_text())["Measurements"]
    found = {}
    for group in groups:
        (item,) = group["measurementItems"]
        assert item["quantity"]["CodeValue"] == "118565006"
        assert item["units"]["CodeValue"] == "ml"
        assert group["measurementMethod"]["CodeValue"] == "126030"
        found[group["TrackingIdentifier"]] = float(item["value"])
    assert found == pytest.approx({"Milz": 0.0528, "Läsion": 0.0022, "rest": 0}, rel=1e-6)
    assert [group["ReferencedSegment"] for group in groups] == [1, 2, 3]


# Debian's dicom3tools and dcmtk are older than LABELMAP: to them it is no segmentation.
@pytest.mark.parametrize("report", ["BINARY"], indirect=True)
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools are absent")
def test_dciodvfy_finds_no_error(report):
    done = subprocess.run(
        ["dciodvfy", report / "m.sr.dcm"], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("report", ["BINARY"], indirect=True)
@pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dcmtk is absent")
def test_dcmtk_reads_the_document_as_the_template_asks(report):
    done = subprocess.run(
        ["dsrdump", "--verbose", report / "m.sr.dcm"], capture_output=True, text=True, check=True
    )
    assert "Enhanced SR Document" in done.stdout
    # An older dcmtk says that it cannot check UTF-8 letter by letter.
    said = [line for line in done.stderr.splitlines() if "Specific Character Set" not in line]
    assert not [line for line in said if line.startswith(("E:", "W:"))]


def test_a_source_without_a_study_is_refused(report):
    for path in (report / "scan").iterdir():
        header = pydicom.dcmread(path)
        del header.StudyInstanceUID
        header.save_as(path)
    seg = pydicom.dcmread(report / "m.seg.dcm")
    del seg.StudyInstanceUID
    seg.save_as(report / "m.seg.dcm")
    with pytest.raises(WriteError, match="DCM-051"):
        write_sr(
            dict.fromkeys(LABELS.names, 1.0),
            report / "again.sr.dcm",
            labels=LABELS,
            seg=report / "m.seg.dcm",
            source=report / "scan",
        )
    assert not (report / "again.sr.dcm").exists()
