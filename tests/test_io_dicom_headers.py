"""The header scan: what is parsed in one pass is what pydicom makes of the same file."""

from pathlib import Path

import pydicom
import pytest
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.io.dicom.headers.attributes import number, text, unspoken
from medseg.io.dicom.headers.common import parse_common, wanted
from medseg.io.dicom.headers.scan import read_header, scan_headers
from medseg.io.dicom.headers.sources import DicomFile

KEYWORDS = [
    "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "Modality", "NumberOfFrames",
    "PatientID", "PixelPaddingValue", "PixelSpacing", "RescaleSlope", "Rows", "SOPInstanceUID",
    "SeriesDescription", "SharedFunctionalGroupsSequence", "SpecificCharacterSet",
]  # fmt: skip
# No further files are downloaded for the sake of a test, as pydicom's own look-up would.
SHIPPED = Path(pydicom.data.__file__).parent / "test_files"
TAGS = [Tag(keyword) for keyword in KEYWORDS]


@pytest.fixture
def dataset():
    # With sequences of known and of unknown length, and texts that are not ASCII.
    found = pydicom.dcmread(SHIPPED / "CT_small.dcm")
    found.SpecificCharacterSet = "ISO_IR 100"
    found.SeriesDescription = "Schädel"
    inner = pydicom.Dataset()
    inner.CodeValue = "1"
    outer = pydicom.Dataset()
    outer.PurposeOfReferenceCodeSequence = [inner]
    found.ReferencedImageSequence = [outer, pydicom.Dataset()]
    return found


def both(path: Path):
    with unspoken():
        return (
            parse_common(path.read_bytes(), wanted(TAGS)),
            pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True),
        )


def assert_same(found, expected):
    ours, _ = found
    with unspoken():
        assert {element.tag for element in ours} == {element.tag for element in expected}
        assert all(ours[element.tag] == element for element in expected)
    assert ours.original_encoding == expected.original_encoding
    for keyword in ("TransferSyntaxUID", "MediaStorageSOPClassUID"):
        assert ours.file_meta[keyword].value == expected.file_meta[keyword].value


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_both_little_endian_encodings_are_parsed_as_by_pydicom(
    dataset, tmp_path, syntax, undefined
):
    dataset["ReferencedImageSequence"].is_undefined_length = undefined
    for item in dataset.ReferencedImageSequence:
        item.is_undefined_length_sequence_item = undefined
    path = tmp_path / "ct.dcm"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    found, expected = both(path)
    assert_same(found, expected)
    content = path.read_bytes()
    assert content[found[1] : found[1] + 4] == b"\xe0\x7f\x10\x00"
    assert text(found[0], "SeriesDescription") == "Schädel"


@pytest.mark.parametrize("name", ["ExplVR_BigEnd.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm"])
def test_other_layouts_are_left_to_pydicom(name):
    path = SHIPPED / name
    assert both(path)[0] is None
    assert read_header(DicomFile(path)).dataset.Rows > 0


def test_every_file_that_pydicom_ships_is_parsed_alike_or_left_to_it():
    num_parsed = 0
    for path in SHIPPED.rglob("*.dcm"):
        found, expected = both(path)
        if found is not None:
            assert_same(found, expected)
            num_parsed += 1
    assert num_parsed > 20


def test_real_scans_are_parsed_alike(shared_data):
    for path in sorted(shared_data("dicom2nifti_cases").rglob("*.dcm")):
        found, expected = both(path)
        if found is not None:
            assert_same(found, expected)


def test_a_header_cut_anywhere_is_never_parsed_by_half(dataset, tmp_path):
    path = tmp_path / "ct.dcm"
    dataset.save_as(path)
    content = path.read_bytes()
    _, at = parse_common(content, wanted(TAGS))
    assert all(parse_common(content[:end], wanted(TAGS)) is None for end in range(0, at + 4, 7))


def test_a_value_that_several_files_share_is_not_mistaken_for_that_of_another(dataset, tmp_path):
    for k in range(3):
        dataset.ImagePositionPatient = [0, 0, k]
        dataset.SpecificCharacterSet = "ISO_IR 100" if k else "ISO_IR 144"
        dataset.SeriesDescription = "\xe4" if k else "\u0414"
        dataset.save_as(tmp_path / f"{k}.dcm")
    headers = [header.dataset for header in scan_headers(tmp_path).headers]
    assert [found.ImagePositionPatient[2] for found in headers] == [0, 1, 2]
    assert [text(found, "SeriesDescription") for found in headers] == ["\u0414", "\xe4", "\xe4"]
    assert {number(found, "RescaleSlope", name="x") for found in headers} == {1.0}
