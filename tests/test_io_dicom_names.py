"""Names and codes of classes in DICOM masks: the same class again, or refused."""

import numpy as np
import pydicom
import pytest
from oriented_scans import SHAPE, affine_of, turned, write_scan

from medseg.core.errors import LabelError, ReadError, WriteError
from medseg.core.labels import LabelSet, label_set
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.rtstruct.reading import read_rtstruct
from medseg.io.dicom.rtstruct.writing import write_rtstruct
from medseg.io.dicom.seg.segmentation import read_seg, write_seg

LIVER = {"value": "10200004", "scheme": "SCT", "meaning": "Liver"}
KIDNEY = {"value": "64033007", "scheme": "SCT", "meaning": "Kidney"}
WAYS = ((write_seg, read_seg), (write_rtstruct, read_rtstruct))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    write_scan(turned(affine_of(np.eye(3))[:3, :3]), folder / "scan")
    return folder


def coded(*classes):
    return LabelSet.from_json(
        {"labels": [{"name": n, "values": v, "code": c} for n, v, c in classes]}
    )


def halves():
    found = np.ones(SHAPE, dtype=np.uint8)
    found[:2] = 2
    return found


def written(folder, labels, write=write_seg):
    geometry = read_dicom(folder / "scan").geometry
    path = folder / "m.dcm"
    write(halves(), path, geometry=geometry, labels=labels, source=folder / "scan")
    return path


def renamed(path, names, codes=()):
    dataset = pydicom.dcmread(path)
    for segment, name in zip(dataset.SegmentSequence, names, strict=True):
        segment.SegmentLabel = name
    for segment, code in zip(dataset.SegmentSequence, codes, strict=False):
        segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = code
    dataset.save_as(path)


@pytest.mark.parametrize(("write", "read"), WAYS)
@pytest.mark.parametrize("name", ["n" * 70, "two  blanks", " outer ", "Läsion 腫瘍"])
def test_a_class_comes_back_whatever_dicom_makes_of_its_name(write, read, name, folder):
    # The stored values are swapped, so a class found by the number of its segment would be wrong.
    labels = label_set({name: 2, "other": 1})
    path = written(folder, labels, write)
    found = read(path, labels=labels, source=folder / "scan")
    assert np.array_equal(found.only_channel, halves())


@pytest.mark.parametrize("write", [write_seg, write_rtstruct])
@pytest.mark.parametrize(
    "names",
    [("a\\b", "c"), ("a\nb", "c"), (" ", "c"), ("Liver", "liver"), ("x" * 64 + "1", "x" * 64)],
)
def test_names_that_dicom_cannot_hold_are_refused_by_name(write, names, folder):
    with pytest.raises(WriteError, match=r"DCM-077 m\.dcm: class "):
        written(folder, label_set({names[0]: 1, names[1]: 2}), write)


@pytest.mark.parametrize("write", [write_seg, write_rtstruct])
@pytest.mark.parametrize(
    "change", [{"value": "1" * 17}, {"meaning": ""}, {"meaning": "m" * 65}, {"scheme": "S\\T"}]
)
def test_codes_that_dicom_cannot_hold_are_refused_by_name(write, change, folder):
    labels = coded(("liver", 1, {**LIVER, **change}), ("other", 2, None))
    with pytest.raises(WriteError, match=r"DCM-077 m\.dcm: the code of class 'liver'"):
        written(folder, labels, write)


def test_segments_of_one_name_are_one_class_and_not_that_of_their_number(folder):
    path = written(folder, label_set({"tumour": 1, "liver": 2}))
    renamed(path, ("tumour", "tumour"))
    found = read_seg(path, labels=label_set({"tumour": 1, "liver": 2}), source=folder / "scan")
    assert (found.only_channel == 1).all()


def test_the_number_of_a_segment_finds_no_class_that_another_has_by_name(folder):
    path = written(folder, label_set({"one": 1, "two": 2}))
    renamed(path, ("spleen", "hepar"))
    with pytest.raises(LabelError, match=r"LBL-003 .*'hepar' belongs to no class"):
        read_seg(path, labels=label_set({"liver": 1, "spleen": 2}), source=folder / "scan")


def test_a_code_that_two_classes_share_finds_neither(folder):
    labels = coded(("left kidney", 11, KIDNEY), ("right kidney", 12, KIDNEY))
    path = written(folder, labels)
    renamed(path, ("Kidney L", "Kidney R"))
    with pytest.raises(LabelError, match="LBL-003"):
        read_seg(path, labels=labels, source=folder / "scan")


def test_a_frame_that_names_no_segment_is_refused(folder):
    path = written(folder, label_set({"a": 1, "b": 2}))
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence
    dataset.save_as(path)
    with pytest.raises(ReadError, match=r"DCM-016 m\.dcm frame 2: does not say which segment"):
        read_seg(path, source=folder / "scan")


def test_regions_of_one_number_are_refused(folder):
    labels = label_set({"a": 1, "b": 2})
    path = written(folder, labels, write_rtstruct)
    dataset = pydicom.dcmread(path)
    dataset.StructureSetROISequence[1].ROINumber = 1
    dataset.save_as(path)
    with pytest.raises(LabelError, match=r"DCM-042 m\.dcm: several regions have the number 1"):
        read_rtstruct(path, labels=labels, source=folder / "scan")
