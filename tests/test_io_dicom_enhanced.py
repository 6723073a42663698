"""Enhanced multi-frame files and PET units: the same voxels as single frames, and closed forms."""

import warnings

import highdicom
import numpy as np
import pydicom
import pytest

from medseg.core.errors import ReadError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Volume
from medseg.io.dicom.reader import find_series, read_dicom
from medseg.io.dicom.rtstruct.reading import read_rtstruct
from medseg.io.dicom.rtstruct.writing import write_rtstruct
from medseg.io.dicom.seg.segmentation import read_seg, write_seg
from medseg.io.dicom.series_writer import write_series

SHAPE = (6, 5, 7)


@pytest.fixture
def voxels():
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 1000


def write(voxels, folder, modality="CT"):
    affine = np.diag([-0.8, -1.2, 2.0, 1.0])
    affine[:3, 3] = 20, 30, -40
    scan = Volume(voxels[None], Geometry(voxels.shape, affine))
    return write_series(scan, folder, modality=modality, patient_id="phantom", seed="x")


@pytest.fixture
def enhanced(tmp_path, voxels, rng):
    """One enhanced CT made by highdicom from single frames, with its frames shuffled."""
    slices = [pydicom.dcmread(path) for path in write(voxels, tmp_path / "single")]
    slices = [slices[n] for n in rng.permutation(len(slices))]
    for number, dataset in enumerate(slices):
        dataset.InstanceNumber = number + 1
        dataset.LossyImageCompression = "00"
        dataset.AcquisitionDateTime = "20000101000000"
    path = tmp_path / "enhanced" / "all.dcm"
    path.parent.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            slices, series_instance_uid="1.2.3", series_number=1, sop_instance_uid="1.2.3.4",
            instance_number=1,
        )  # fmt: skip
        whole.save_as(path)
    return path


def change_groups(path, change):
    dataset = pydicom.dcmread(path)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        change(index, group)
    dataset.save_as(path)


def test_an_enhanced_file_reads_like_the_single_frames_it_was_made_of(enhanced, voxels, tmp_path):
    volume, single = read_dicom(enhanced.parent), read_dicom(tmp_path / "single")
    assert volume.geometry.matches(single.geometry, 1e-9)
    assert np.array_equal(volume.only_channel, voxels)


def test_a_seg_lies_on_the_frames_of_its_enhanced_source(enhanced, voxels, tmp_path):
    scan = read_dicom(enhanced)
    labels = label_set({"organ": 1})
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[1:4, 2, 3:5] = 1
    write_seg(label_map, tmp_path / "m.dcm", geometry=scan.geometry, labels=labels, source=enhanced)
    on_source = read_seg(tmp_path / "m.dcm", labels=labels, source=enhanced)
    on_single = read_seg(tmp_path / "m.dcm", labels=labels, source=tmp_path / "single")
    assert np.array_equal(on_source.only_channel, label_map)
    assert np.array_equal(on_single.only_channel, label_map)


def test_an_rtstruct_refers_to_the_frames_of_its_enhanced_source(enhanced, tmp_path, rng):
    scan = read_dicom(enhanced)
    label_map = rng.integers(0, 2, SHAPE).astype(np.uint8)
    path, labels = tmp_path / "m.dcm", label_set({"organ": 1})
    write_rtstruct(label_map, path, geometry=scan.geometry, labels=labels, source=enhanced)
    assert np.array_equal(read_rtstruct(path, labels=labels, source=enhanced).voxels[0], label_map)
    groups = pydicom.dcmread(enhanced).PerFrameFunctionalGroupsSequence
    for contour in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence:
        (image,) = contour.ContourImageSequence
        assert image.ReferencedSOPInstanceUID == "1.2.3.4"
        frame = groups[image.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        assert float(contour.ContourData[2]) == pytest.approx(frame.ImagePositionPatient[2])


def test_rescaling_may_differ_from_frame_to_frame(enhanced, voxels):
    def change(index, group):
        depth = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        own = pydicom.Dataset()
        own.RescaleSlope, own.RescaleIntercept = "2" if depth < -33 else "1", "3"
        group.PixelValueTransformationSequence = [own]

    change_groups(enhanced, change)
    factor = np.array([2, 2, 2, 2, 1, 1, 1])  # the first four slices lie below -33 mm
    assert np.array_equal(read_dicom(enhanced).only_channel, voxels * factor + 3)


def test_row_17_two_stacks_in_a_file_are_two_volumes(enhanced, voxels):
    def change(index, group):
        position = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        content = group.FrameContentSequence[0]
        content.StackID = "low" if position < -33 else "high"

    change_groups(enhanced, change)
    with pytest.raises(ReadError, match=r"DCM-003 .* 2 volumes"):
        read_dicom(enhanced)
    parts = {series.num_slices: series for series in find_series(enhanced)}
    low = read_dicom(enhanced, series_uid=parts[4].selector)
    assert np.array_equal(low.only_channel, voxels[:, :, :4])


def test_row_16_missing_functional_groups_are_named(enhanced):
    dataset = pydicom.dcmread(enhanced)
    del dataset.PerFrameFunctionalGroupsSequence[3]
    dataset.save_as(enhanced)
    with pytest.raises(ReadError, match=r"DCM-016 all\.dcm: 7 frames with 6 items"):
        read_dicom(enhanced)


def test_row_16_multi_frame_without_functional_groups_is_refused(enhanced):
    dataset = pydicom.dcmread(enhanced)
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(enhanced)
    with pytest.raises(Exception, match=r"DCM-018 all\.dcm: 7 frames without functional groups"):
        read_dicom(enhanced)


def as_pet(path, dose="370e6", start="090000.00", **attributes):
    dataset = pydicom.dcmread(path)
    tracer = pydicom.Dataset()
    tracer.RadionuclideTotalDose = dose
    tracer.RadionuclideHalfLife = "6586.2"
    tracer.RadiopharmaceuticalStartTime = start
    dataset.RadiopharmaceuticalInformationSequence = [tracer]
    dataset.PatientWeight = "70"
    dataset.DecayCorrection = "START"
    dataset.SeriesTime = dataset.AcquisitionTime = "100000"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("attributes", "factor"),
    [
        ({}, 70_000 / (370e6 * 2 ** (-3600 / 6586.2))),
        ({"SeriesTime": "113000"}, 70_000 / (370e6 * 2 ** (-3600 / 6586.2))),
        (
            {"SeriesTime": "1030", "AcquisitionTime": "1030"},
            70_000 / (370e6 * 2 ** (-5400 / 6586.2)),
        ),
        (
            {"SeriesTime": "10", "AcquisitionTime": "100000.25"},
            70_000 / (370e6 * 2 ** (-3600 / 6586.2)),
        ),
        ({"DecayCorrection": "ADMIN"}, 70_000 / 370e6),
        ({"Units": "GML"}, 1.0),
    ],
    ids=["start", "stamped-later", "no-seconds", "an-hour", "admin", "already-suv"],
)
def test_suv_follows_its_closed_form(attributes, factor, voxels, tmp_path):
    for path in write(np.abs(voxels), tmp_path, "PT"):
        as_pet(path, **attributes)
    found = read_dicom(tmp_path, suv=True).only_channel
    assert np.allclose(found, np.abs(voxels) * factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"PatientWeight": ""}, "PatientWeight is missing"),
        ({"Units": "CNTS"}, "values are in CNTS, expected BQML"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        ({"SeriesTime": "noon"}, "SeriesTime is missing or no time"),
        ({"SeriesTime": "103"}, "SeriesTime is missing or no time"),
        ({"SeriesTime": ""}, "SeriesTime is missing or no time"),
        ({"PatientWeight": "70000"}, "PatientWeight is 70000, expected kilograms"),
        ({"dose": "370"}, "RadionuclideTotalDose is 370, expected becquerels"),
        ({"start": ""}, "RadiopharmaceuticalStartTime is missing or no time"),
    ],
)
def test_suv_is_refused_where_an_ingredient_is_missing(attributes, why, voxels, tmp_path):
    for path in write(voxels, tmp_path, "PT"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            as_pet(path, **attributes)
    with pytest.raises(ReadError, match=f"DCM-040 .* no SUV: {why}"):
        read_dicom(tmp_path, suv=True)
