"""Bad DICOM input: the right geometry, or one line with code, file and way out; never a guess."""

import gzip
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless, RLELossless, SecondaryCaptureImageStorage, generate_uid

from medseg.core.errors import MedsegError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.reader import find_series, is_dicom, read_dicom
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import read_volume

SHAPE = (6, 5, 7)
CANARY = "Müller^Geheim^1970"


def grid():
    affine = np.diag([-0.8, -1.2, 2.0, 1.0])
    affine[:3, 3] = 20, 30, -40
    return Geometry(SHAPE, affine)


@pytest.fixture
def voxels():
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 1000


@pytest.fixture
def folder(tmp_path, voxels):
    """A healthy CT series of seven slices, 2 mm apart."""
    write_series(
        Volume(voxels[None], grid()), tmp_path / "scan", modality="CT", patient_id=CANARY, seed="x"
    )
    return tmp_path / "scan"


def slices(folder):
    return sorted(folder.glob("slice_*.dcm"))


def edit(path, change):
    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(dataset)
        dataset.save_as(path)


def edit_all(folder, change):
    for path in slices(folder):
        edit(path, change)


def setting(**attributes):
    def change(dataset):
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def removing(*keywords):
    def change(dataset):
        for keyword in keywords:
            delattr(dataset, keyword)

    return change


def copy_of(path, name, change):
    new = path.with_name(name)
    new.write_bytes(path.read_bytes())
    edit(new, change)
    return new


def codes(volume):
    return [finding.code for finding in volume.findings]


def refusal(path, **arguments):
    with pytest.raises(MedsegError) as caught:
        read_dicom(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert "Geheim" not in message
    return message


def test_row_01_a_missing_slice_is_named_by_its_neighbours(folder):
    slices(folder)[3].unlink()
    message = refusal(folder)
    assert message.startswith("DCM-001")
    assert "1 slice missing: slice_0003.dcm at (-20, -30, -36) mm and slice_0005.dcm" in message
    assert "4 mm apart, the others 2 mm" in message


def test_row_01_uneven_spacing_is_refused(folder):
    edit(slices(folder)[6], setting(ImagePositionPatient=[-20, -30, -27.2]))
    assert "DCM-001 series" in refusal(folder)
    assert "uneven spacing" in refusal(folder)


def test_row_02_an_identical_copy_is_dropped_and_recorded(folder, voxels):
    copy_of(slices(folder)[2], "copy.dcm", setting(SOPInstanceUID=generate_uid()))
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels)
    assert codes(volume) == ["DCM-002"]


def test_row_02_two_different_slices_at_one_position_are_refused(folder):
    copy_of(slices(folder)[2], "copy.dcm", setting(PixelData=bytes(60)))
    message = refusal(folder)
    assert message.startswith("DCM-002")
    assert "copy.dcm" in message
    assert "slice_0003.dcm" in message


def test_row_04_a_localizer_inside_the_series_is_set_aside(folder, voxels):
    copy_of(
        slices(folder)[0],
        "scout.dcm",
        setting(
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            SOPInstanceUID=generate_uid(),
        ),
    )
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels)
    assert codes(volume) == ["DCM-004"]
    assert [series.verdict for series in find_series(folder)] == ["volume", "localizer"]


def test_row_05_gantry_tilt_keeps_its_sheared_grid(folder, voxels):
    for number, path in enumerate(slices(folder)):
        edit(path, setting(ImagePositionPatient=[-20, -30 + 0.5 * number, -40 + 2 * number]))
    volume = read_dicom(folder)
    sheared = np.array(grid().affine)
    sheared[1, 2] = -0.5
    assert volume.geometry.corner_error_mm(Geometry(SHAPE, sheared)) < 1e-9
    assert np.array_equal(volume.only_channel, voxels)
    assert codes(volume) == ["DCM-005"]
    assert "14.04 degrees" in volume.findings[0].message  # atan(0.5 / 2)


def test_row_06_decimal_strings_of_more_than_16_characters_are_read(folder):
    def change(dataset):
        # As an unknown value it is written unchecked; readers know its representation.
        position = b"\\".join(b"%+.17f" % float(mm) for mm in dataset.ImagePositionPatient)
        dataset.add_new((0x0020, 0x0032), "UN", position + b" " * (len(position) % 2))

    edit_all(folder, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_dicom(folder).geometry.matches(grid(), 1e-9)


def test_row_07_slope_and_intercept_may_differ_from_slice_to_slice(folder, voxels):
    for number, path in enumerate(slices(folder)):
        edit(path, setting(RescaleSlope=str(1 + 0.5 * number), RescaleIntercept=str(number)))
    factor = 1 + 0.5 * np.arange(SHAPE[2])
    assert np.allclose(read_dicom(folder).only_channel, voxels * factor + np.arange(SHAPE[2]))


def test_row_08_a_slope_of_zero_is_refused(folder):
    edit_all(folder, setting(RescaleSlope="0"))
    assert refusal(folder).startswith("DCM-008 slice_0001.dcm: RescaleSlope is 0")


def test_row_08_a_ct_without_air_is_pointed_out(folder, voxels):
    edit_all(folder, setting(RescaleIntercept="1024"))
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels + 1024)
    assert [f.severity for f in volume.findings if f.code == "DCM-008"] == ["warning"]


@pytest.mark.parametrize("signed", [0, 1])
def test_rows_09_and_10_only_the_stored_bits_count(folder, signed, rng):
    low, high = (-2048, 2047) if signed else (0, 4095)
    stored = rng.integers(low, high + 1, SHAPE)
    for k, path in enumerate(slices(folder)):
        junk = rng.integers(0, 16, (SHAPE[1], SHAPE[0])) << 12
        words = ((stored[:, :, k].T & 0xFFF) | junk).astype("<u2")
        edit(
            path,
            setting(
                BitsStored=12, HighBit=11, PixelRepresentation=signed, PixelData=words.tobytes()
            ),
        )
    assert np.array_equal(read_dicom(folder).only_channel, stored)


def test_row_11_monochrome1_keeps_measured_values_and_turns_the_others(folder, voxels):
    edit_all(folder, setting(PhotometricInterpretation="MONOCHROME1"))
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels)
    assert codes(volume) == ["DCM-011"]
    edit_all(folder, setting(Modality="MR"))
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, -1 - voxels)  # -32768 + 32767 - stored
    assert codes(volume) == ["DCM-011"]


def test_row_12_rle_gives_the_same_voxels(folder, voxels):
    edit_all(folder, lambda dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    assert np.array_equal(read_dicom(folder).only_channel, voxels)


def test_row_13_an_unknown_transfer_syntax_is_named(folder):
    def change(dataset):
        dataset.PixelData = encapsulate([b"\xff\xd8 nonsense \xff\xd9"])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.102")

    edit_all(folder, change)
    message = refusal(folder)
    assert message.startswith("DCM-013")
    assert "MPEG-4" in message


def test_row_14_a_garbage_stream_is_refused_by_file_and_frame(folder):
    def change(dataset):
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.PixelData = encapsulate([bytes(range(200))])

    edit(slices(folder)[4], change)
    message = refusal(folder)
    assert message.startswith("DCM-014 slice_0005.dcm frame 1: the JPEG-LS Lossless")


def test_row_15_truncated_pixels_name_file_and_bytes(folder):
    path = slices(folder)[4]
    path.write_bytes(path.read_bytes()[:-21])
    message = refusal(folder)
    assert "DCM-015 slice_0005.dcm: pixel data is cut short: 39 bytes, expected 60" in message


def test_row_15_no_pixels_at_all_are_named(folder):
    edit(slices(folder)[4], removing("PixelData"))
    assert refusal(folder).startswith("DCM-015 slice_0005.dcm: holds no pixel data")


def test_row_18_slices_without_position_are_refused(folder):
    edit_all(folder, removing("ImagePositionPatient"))
    assert refusal(folder).startswith("DCM-018 slice_0001.dcm: has no ImagePositionPatient")


def test_row_19_no_pixel_spacing_is_refused_and_the_detectors_is_not_taken(folder):
    edit_all(folder, removing("PixelSpacing"))
    assert refusal(folder).startswith("DCM-019 slice_0001.dcm: has no PixelSpacing, so")
    edit_all(folder, setting(ImagerPixelSpacing=[0.2, 0.2]))
    assert "ImagerPixelSpacing is there, but" in refusal(folder)


def test_row_20_directions_may_differ_in_the_fifth_digit_and_the_most_is_recorded(folder, voxels):
    edit(slices(folder)[3], setting(ImageOrientationPatient=[1, 0.00004, 0, -0.00004, 1, 0]))
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels)
    assert codes(volume) == ["DCM-020"]
    assert "4.0e-05" in volume.findings[0].message


def test_row_20_a_slice_that_is_not_parallel_is_refused(folder):
    edit(slices(folder)[6], setting(ImageOrientationPatient=[1, 0.001, 0, -0.001, 1, 0]))
    assert refusal(folder).startswith(
        "DCM-020 slice_0007.dcm: its direction cosines differ by 0.001"
    )


def test_row_21_a_slice_of_another_matrix_is_named(folder):
    edit(slices(folder)[2], setting(Rows=4, PixelData=bytes(48)))
    message = refusal(folder)
    assert message.startswith("DCM-021")
    assert "slice_0003.dcm (6 x 4 pixels of 0.8 x 1.2 mm)" in message


def test_rows_22_and_23_positions_rule_over_instance_numbers_and_thickness(folder, voxels):
    for number, path in enumerate(slices(folder)):
        edit(path, setting(InstanceNumber=100 - 7 * number, SliceThickness="5"))
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels)
    assert volume.geometry.matches(grid())


def test_row_24_the_distance_of_rows_comes_first(folder):
    assert read_dicom(folder).geometry.spacing_mm == pytest.approx((0.8, 1.2, 2.0))


@pytest.mark.parametrize(
    ("keyword", "values", "part"),
    [
        ("TemporalPositionIdentifier", (1, 2), "t=2"),
        ("EchoTime", ("10", "80"), "echo=80"),
        ("DiffusionBValue", (0.0, 1000.0), "b=1000.0"),
    ],
)
def test_row_25_time_points_echoes_and_b_values_are_told_apart(
    folder, voxels, keyword, values, part
):
    for path in slices(folder):
        edit(path, setting(**{keyword: values[0]}))
        dim = pydicom.dcmread(path)
        twice = (2 * np.frombuffer(dim.PixelData, "<i2")).astype("<i2").tobytes()
        copy_of(
            path,
            path.name.replace("slice", "other"),
            setting(**{keyword: values[1], "PixelData": twice, "SOPInstanceUID": generate_uid()}),
        )
    message = refusal(folder)
    assert message.startswith("DCM-003")
    assert f":{part} CT volume, 7 slices" in message
    chosen = next(series for series in find_series(folder) if series.part == part)
    second = read_dicom(folder, series_uid=chosen.selector)
    assert np.array_equal(second.only_channel, 2 * voxels)


def test_row_26_a_colour_capture_is_not_a_volume(folder):
    edit_all(
        folder,
        setting(
            SOPClassUID=SecondaryCaptureImageStorage,
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            PlanarConfiguration=0,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelRepresentation=0,
            PixelData=bytes(90),
        ),
    )
    assert refusal(folder).startswith("DCM-026 slice_0001.dcm: holds colours (RGB, 3 samples")


def test_row_27_other_files_are_ignored_and_counted(folder, voxels):
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 200)
    (folder / "readme.txt").write_text("patient " + CANARY)
    (folder / "report.pdf").write_bytes(b"%PDF-1.4" + bytes(300))
    write_dicomdir(folder / "DICOMDIR")
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels)
    assert [(found.code, found.subject) for found in volume.findings] == [
        ("DCM-027", "DICOMDIR"),
        ("DCM-027", "Thumbs.db and 2 more"),
    ]


def write_dicomdir(path: Path):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.FileSetID = "CD"
    dataset.save_as(path, enforce_file_format=True)


def test_row_28_an_empty_file_looks_like_an_incomplete_copy(folder):
    (folder / "slice_0008.dcm").touch()
    assert refusal(folder).startswith("DCM-028 slice_0008.dcm: 0 bytes")


def test_row_29_files_without_a_preamble_are_read_and_pointed_out(folder, voxels):
    for path in slices(folder):
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    volume = read_dicom(folder)
    assert is_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels)
    assert [(found.code, found.subject) for found in volume.findings] == [
        ("DCM-029", "slice_0001.dcm and 6 more")
    ]


def test_row_30_a_folder_without_dicom_says_so(tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    assert "no DICOM files under it (1 other files)" in refusal(tmp_path)
    assert refusal(tmp_path / "absent").startswith("DCM-030")


def test_row_31_no_patient_tag_is_shown_whatever_its_characters(folder, caplog, capfd, recwarn):
    edit_all(
        folder,
        lambda dataset: dataset.update(
            {
                0x00100010: pydicom.DataElement(0x00100010, "PN", CANARY),
                0x00100030: pydicom.DataElement(0x00100030, "DA", "Geheim-1970"),
                0x00080005: pydicom.DataElement(0x00080005, "CS", "ISO_IR 999"),
            }
        ),
    )
    recwarn.clear()
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        series = find_series(folder)
        volume = read_dicom(folder)
    shown = [repr(series), repr(volume.findings), caplog.text, *capfd.readouterr()]
    shown += [str(warning.message) for warning in recwarn]
    assert not [text for text in shown if "Geheim" in text or "ISO_IR 999" in text]


def test_row_32_padding_below_air_becomes_air(folder, voxels):
    def change(dataset):
        pixels = np.frombuffer(dataset.PixelData, "<i2").copy()
        pixels[:5] = -2000
        dataset.PixelData = pixels.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", -2000)

    edit_all(folder, change)
    volume = read_dicom(folder)
    expected = voxels.copy()
    expected[:5, 0, :] = -1024
    assert np.array_equal(volume.only_channel, expected)
    assert codes(volume) == ["DCM-032"]


def test_row_33_two_frames_of_reference_in_a_series_are_refused(folder):
    edit(slices(folder)[5], setting(FrameOfReferenceUID="1.2.3"))
    message = refusal(folder)
    assert message.startswith("DCM-033 slice_0006.dcm: lies in another frame of reference")


@pytest.mark.parametrize(
    ("modality", "words"),
    [("SEG", "a segmentation"), ("RTSTRUCT", "contours"), ("PR", "presentation state")],
)
def test_row_34_objects_beside_images_are_called_what_they_are(folder, modality, words):
    edit_all(folder, setting(Modality=modality))
    message = refusal(folder)
    assert message.startswith("DCM-034 slice_0001.dcm: is a")
    assert words in message


def test_row_35_a_single_slice_is_read_with_a_note(folder, voxels):
    for path in slices(folder)[1:]:
        path.unlink()
    volume = read_dicom(folder)
    assert np.array_equal(volume.only_channel, voxels[:, :, :1])
    assert volume.geometry.spacing_mm == pytest.approx((0.8, 1.2, 2.0))
    assert codes(volume) == ["DCM-035"]


def test_row_36_a_volume_beyond_memory_is_refused_before_it_is_read(folder, monkeypatch):
    class Memory:
        available = 100

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    assert refusal(folder).startswith("DCM-036 series")


def test_a_file_that_breaks_off_inside_its_header_is_refused(folder):
    path = slices(folder)[3]
    path.write_bytes(path.read_bytes()[:170])
    assert refusal(folder).startswith("DCM-039 slice_0004.dcm")


def test_attributes_that_are_no_numbers_are_named_without_their_value(folder):
    text = pydicom.DataElement("ImagePositionPatient", "LO", ["Geheim", "0", "1"])
    edit(slices(folder)[3], lambda dataset: dataset.add(text))
    message = refusal(folder)
    assert "DCM-037 slice_0004.dcm: ImagePositionPatient is not 3 finite numbers" in message


def test_mutated_files_are_read_or_refused_and_nothing_else(folder, rng):
    """Flipped, cut and inserted bytes: no other exception, no warning that could quote a value."""
    edit(slices(folder)[0], lambda dataset: dataset.compress(RLELossless))
    edit(slices(folder)[1], lambda dataset: dataset.compress(JPEGLSLossless))
    codes = set()
    for number in range(120):
        path = slices(folder)[number % 3]
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                read_dicom(folder)
            except MedsegError as refusal:
                codes.add(refusal.code[:4])
        path.write_bytes(whole)
    assert codes == {"DCM-"}


def mutated(whole, rng):
    end = len(whole) if rng.random() < 0.3 else min(len(whole), 1600)
    kind, place = rng.integers(3), int(rng.integers(132, end))
    if kind == 0:
        return whole[:place]
    junk = rng.integers(0, 256, rng.integers(1, 9), dtype=np.uint8).tobytes()
    return whole[:place] + junk + whole[place + (len(junk) if kind == 1 else 0) :]


@pytest.mark.parametrize("keywords", [("RescaleIntercept",), ("RescaleSlope", "RescaleIntercept")])
def test_a_slice_without_the_rescale_of_the_others_is_refused(folder, keywords):
    edit_all(folder, setting(RescaleSlope="1", RescaleIntercept="-1024"))
    edit(slices(folder)[3], removing(*keywords))
    message = refusal(folder)
    assert message.startswith("DCM-008 slice_0004.dcm: has no RescaleIntercept")


def test_a_slice_without_a_rescale_that_changes_nothing_is_read(folder, voxels):
    edit(slices(folder)[3], removing("RescaleSlope", "RescaleIntercept"))
    assert np.array_equal(read_dicom(folder).only_channel, voxels)


def test_one_series_uid_over_two_patients_is_refused(folder):
    for path in slices(folder)[4:]:
        edit(path, setting(PatientID="somebody"))
    message = refusal(folder)
    assert message.startswith("DCM-003 slice_0005.dcm: has another PatientID")
    assert "somebody" not in message


def test_pixel_sizes_that_differ_by_rounding_alone_are_one(folder, voxels):
    edit(slices(folder)[3], setting(PixelSpacing=["0.97655", "0.97655"]))
    for path in set(slices(folder)) - {slices(folder)[3]}:
        edit(path, setting(PixelSpacing=["0.976549", "0.976549"]))
    assert np.array_equal(read_dicom(folder).only_channel, voxels)


@pytest.mark.parametrize(
    ("keyword", "mark"), [("FrameReferenceTime", "reference_ms"), ("EchoNumbers", "echo_number")]
)
def test_time_frames_of_pet_and_numbered_echoes_are_volumes_each(folder, voxels, keyword, mark):
    for path in slices(folder):
        copy_of(path, f"later_{path.name}", lambda ds: setattr(ds, "PixelData", bytes(60)))
        edit(path.with_name(f"later_{path.name}"), setting(**{keyword: "30"}))
        edit(path, setting(**{keyword: "10"}))
    parts = {series.part.partition(".")[0]: series.selector for series in find_series(folder)}
    assert sorted(parts) == [f"{mark}=10", f"{mark}=30"]
    found = read_dicom(folder, series_uid=parts[f"{mark}=10"]).only_channel
    assert np.array_equal(found, voxels)


def test_an_archive_without_its_suffix_is_read(folder, voxels, tmp_path):
    shutil.make_archive(str(tmp_path / "study"), "zip", folder)
    (tmp_path / "study.zip").rename(tmp_path / "study")
    assert np.array_equal(read_dicom(tmp_path / "study").only_channel, voxels)


def test_a_slice_packed_with_gzip_is_refused_by_name(folder, tmp_path):
    packed = tmp_path / "slice.dcm.gz"
    packed.write_bytes(gzip.compress(slices(folder)[0].read_bytes()))
    with pytest.raises(MedsegError, match=r"FIL-004 .*slice\.dcm\.gz: a DICOM file, packed with"):
        read_volume(packed)
