"""De-identified copies: what stays is listed, all else goes, and scans stay equal."""

import warnings
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.pixels import compress
from pydicom.uid import RLELossless

from medseg.core.errors import ReadError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.deidentification import allowed
from medseg.io.dicom.deidentification.copies import write_copies
from medseg.io.dicom.deidentification.deidentify import Pseudonyms, deidentify
from medseg.io.dicom.deidentification.moments import moved, moved_datetime
from medseg.io.dicom.headers.sources import find_files
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.series_writer import write_series

# In lower case with a caret: no code string, number, date or UID may look like it.
MARKER = "geheim^marker"
SHAPE = (6, 5, 7)
# PS3.15 Table E.1-1, groups 0008 to 0040: what the basic profile removes, empties or replaces
# (X, Z, D and their combinations), and the UIDs that it replaces (U).
REMOVED = """
00080015 00080020 00080021 00080022 00080023 00080024 00080025 0008002A 00080030 00080031 00080032
00080033 00080034 00080035 00080050 00080080 00080081 00080082 00080090 00080092 00080094 00080096
0008009C 0008009D 00080201 00081010 00081030 0008103E 00081040 00081041 00081048 00081049 00081050
00081052 00081060 00081062 00081070 00081072 00081080 00081084 00081110 00081111 00081120 00081140
00082111 00082112 00084000 00100010 00100020 00100021 00100030 00100032 00100040 00100050 00100101
00100102 00101000 00101001 00101002 00101005 00101010 00101020 00101030 00101040 00101050 00101060
00101080 00101081 00101090 00101100 00102000 00102110 00102150 00102152 00102154 00102155 00102160
00102180 001021A0 001021B0 001021C0 001021D0 001021F0 00102203 00102297 00102299 00104000 00120010
00120020 00120021 00120030 00120031 00120040 00120042 00120050 00120051 00120060 00120071 00120072
00120081 00120082 00160050 00160051 0016002B 0016004B 0016004D 0016004E 0016004F 00160072 00160074
00180010 00181000 00181004 00181005 00181007 00181008 00181009 0018100A 00181030 00181400 001811BB
00184000 00185011 0018700A 00189185 00189367 00189369 0018936A 00189371 00189373 0018937B 0018937F
00189424 00189516 00189517 00189937 0018A003 00200010 00203401 00203406 00204000 00209158 00284000
00320012 00321020 00321021 00321030 00321032 00321033 00321060 00321066 00321067 00321070 00324000
00340001 00340002 00340005 00340007 00380004 00380010 00380011 00380014 0038001E 00380020 00380021
00380040 00380050 00380060 00380061 00380062 00380064 00380300 00380400 00380500 00384000 00400001
00400002 00400003 00400004 00400005 00400006 00400007 00400009 0040000B 00400010 00400011 00400012
00400241 00400242 00400243 00400244 00400245 00400250 00400251 00400253 00400254 00400275 00400280
00400310 0040050A 00400512 00400513 0040051A 00400551 00400555 00400562 00400600 00400602 00400610
00401001 00401002 00401004 00401005 0040100A 00401010 00401011 00401101 00401102 00401103 00401104
00401400 00402001 00402008 00402009 00402010 00402011 00402016 00402017 00402400 0040A123 0040A730
"""
REPLACED_UIDS = """
00080014 00080018 00080058 00081155 00081195 00083010 00181002 0018100B 00182042 0020000D 0020000E
00200052 00200200 00209161 00209164 00281199 00281214 00400554 0040A124 0040A171
"""


def tags(listed):
    return {int(tag, 16) for tag in listed.split()}


def tags_of(keywords):
    return {tag_for_keyword(keyword) for keyword in keywords}


@pytest.fixture
def who():
    return Pseudonyms(patient_id="P7", key=bytes(range(32)))


@pytest.fixture
def voxels():
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 1000


def series(folder, voxels, modality="CT", seed="x"):
    affine = np.diag([-0.8, -1.2, 2.0, 1.0])
    affine[:3, 3] = 20, 30, -40
    scan = Volume(voxels[None], Geometry(voxels.shape, affine))
    write_series(scan, folder, modality=modality, patient_id=MARKER, seed=seed)
    return folder


def edit_all(folder, change):
    for path in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(dataset)
            dataset.save_as(path)


def copy(source, folder, who, **settings):
    treated = write_copies(list(find_files(source)), folder, who, **settings)
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())], treated


def same(one, other):
    return one.geometry.matches(other.geometry) and np.array_equal(one.voxels, other.voxels)


def test_every_listed_attribute_has_its_standard_name():
    groups = [allowed.KEPT, allowed.UIDS, allowed.CLASS_UIDS, allowed.MOMENTS, allowed.SEQUENCES]
    groups += [allowed.EMPTIED, allowed.DUMMIES, allowed.HASHED, set(allowed.TEXTS)]
    groups += [set(allowed.ALWAYS_EMPTY)]
    for group in groups:
        assert None not in tags_of(group), sorted(group)
    listed = [keyword for group in groups for keyword in group]
    assert len(listed) == len(set(listed))


def test_nothing_that_the_basic_profile_removes_is_kept_but_the_weight_for_suv():
    kept = tags_of([*allowed.KEPT, *allowed.TEXTS, *allowed.HASHED, *allowed.SEQUENCES])
    assert kept & tags(REMOVED) == tags_of(["PatientWeight"])
    assert not kept & tags(REPLACED_UIDS)
    assert not tags_of(allowed.CLASS_UIDS) & tags(REPLACED_UIDS)
    assert tags_of(allowed.UIDS) <= tags(REPLACED_UIDS)


def test_no_text_of_any_attribute_of_the_standard_comes_out(who, tmp_path):
    """Every attribute of the dictionary holds the marker, as text, at the top and in an item."""
    texts = pydicom.Dataset()
    for tag, (_, _, _, _, keyword) in DicomDictionary.items():
        if tag >> 16 > 2 and keyword not in ("", "PixelData"):
            texts[tag] = pydicom.DataElement(tag, "UT", MARKER)
    inside = pydicom.Dataset()
    inside.update(texts)
    full = pydicom.Dataset()
    full.update(texts)
    for keyword in [*sorted(allowed.SEQUENCES), "RequestAttributesSequence"]:
        full[keyword] = pydicom.DataElement(tag_for_keyword(keyword), "SQ", [inside])
    full.add_new(0x00091001, "LO", MARKER)
    done = deidentify(full, who)
    assert MARKER not in str(done.dataset)
    assert "geheim" not in str(done.dataset)
    assert not [element for element in done.dataset.iterall() if element.tag.is_private]
    assert ("(0009,1001)", "private", "dropped") in done.treated
    assert full.PatientComments == MARKER
    assert full["RequestAttributesSequence"].VR == "SQ"


@pytest.mark.parametrize(
    ("keyword", "representation"),
    [("BurnedInAnnotation", "CS"), ("StackID", "SH"), ("RescaleType", "LO"), ("Modality", "CS")],
)
def test_texts_of_the_right_kind_do_not_come_out_either(keyword, representation, who):
    full = pydicom.Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full.add_new(tag_for_keyword(keyword), representation, MARKER)
        full.ImageType = ["ORIGINAL", "PRIMARY", MARKER]
    clean = deidentify(full, who).dataset
    assert "geheim" not in str(clean)
    assert list(clean.ImageType) == ["ORIGINAL", "PRIMARY", "OTHER"]


def test_ids_uids_and_the_profile_are_written_and_agree_between_files(voxels, who, tmp_path):
    source = series(tmp_path / "scan", voxels)
    first, *others = copy(source, tmp_path / "copy", who)[0]
    original = pydicom.dcmread(sorted(source.iterdir())[0])
    assert (first.PatientID, first.PatientName) == ("P7", "P7")
    assert (first.PatientBirthDate, first.AccessionNumber, first.PatientSex) == ("", "", "")
    assert first.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in first.DeidentificationMethodCodeSequence] == ["113100"]
    for keyword in sorted(allowed.UIDS - {"DimensionOrganizationUID"}):
        new = first[keyword].value
        assert new.is_valid
        assert new.startswith("2.25.")
        assert new != original[keyword].value
        agree = {dataset[keyword].value for dataset in (first, *others)}
        assert len(agree) == (len(others) + 1 if keyword == "SOPInstanceUID" else 1)
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert "SourceApplicationEntityTitle" not in first.file_meta


def test_the_same_key_gives_the_same_copy_and_another_key_another(voxels, who, tmp_path):
    source = series(tmp_path / "scan", voxels)
    one, again = (copy(source, tmp_path / name, who)[0][0] for name in ("one", "again"))
    other = copy(source, tmp_path / "other", Pseudonyms(patient_id="P7", key=bytes(32)))[0][0]
    assert one == again
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.StudyDate != other.StudyDate


def test_place_and_values_of_every_voxel_stay(voxels, who, tmp_path):
    source = series(tmp_path / "scan", voxels)
    edit_all(source, lambda dataset: setattr(dataset, "RescaleIntercept", "-1024.123456789"))
    copy(source, tmp_path / "copy", who)
    assert same(read_dicom(source), read_dicom(tmp_path / "copy"))


@pytest.mark.parametrize("keep_intervals", [False, True])
@pytest.mark.parametrize(
    "injected",
    [
        {"RadiopharmaceuticalStartTime": "090000.5"},
        {"RadiopharmaceuticalStartTime": "2350"},
        {"RadiopharmaceuticalStartDateTime": "20191231233000.25+0100"},
    ],
)
def test_suv_stays_although_dates_move(injected, keep_intervals, voxels, tmp_path):
    def as_pet(dataset):
        tracer = pydicom.Dataset()
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = "370e6", "6586.2"
        for keyword, value in injected.items():
            setattr(tracer, keyword, value if len(value) > 4 else f"{value}00")
        dataset.RadiopharmaceuticalInformationSequence = [tracer]
        dataset.PatientWeight, dataset.DecayCorrection = "70.3", "START"
        dataset.SeriesDate = dataset.AcquisitionDate = dataset.StudyDate = "20200101"
        dataset.SeriesTime, dataset.AcquisitionTime = "001500", "001459.75"

    source = series(tmp_path / "scan", np.abs(voxels), "PT")
    edit_all(source, as_pet)
    who = Pseudonyms(patient_id="P7", key=bytes(32), keep_intervals=keep_intervals)
    first = copy(source, tmp_path / "copy", who)[0][0]
    before, after = (read_dicom(p, suv=True) for p in (source, tmp_path / "copy"))
    assert same(before, after)
    codes = [code.CodeValue for code in first.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113108"] + ["113107"] * keep_intervals
    assert first.SeriesDate[:4] != "2020"


@pytest.mark.parametrize(
    ("day", "clock", "shift_s"),
    [
        ("20200301", "000010", -20),
        ("20200301", "0000", 86_400),
        ("2020.02.29", "12:30:15.123456", -366 * 86_400 + 7),
        ("19991231", "235959.5", 1),
    ],
)
def test_a_date_and_its_time_move_together(day, clock, shift_s):
    found = moved(day, clock, shift_s)
    digits = clock.replace(":", "").split(".")[0].ljust(6, "0")
    before = datetime.strptime(day.replace(".", "") + digits, "%Y%m%d%H%M%S")
    after = datetime.strptime(found[0] + found[1].split(".")[0], "%Y%m%d%H%M%S")
    assert (after - before).total_seconds() == shift_s
    assert found[1].partition(".")[2] == clock.partition(".")[2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("20200301", "", -86_401), ("20200228", "")),
        (("", "001000", -1200), ("", "235000")),
        ((MARKER, MARKER, -5), ("", "")),
        (("20201399", "120000", -5), ("", "")),
        (("20200301", "noon", -5), ("20200229", "")),
        (("00010101", "000000", -5), ("", "")),
    ],
)
def test_half_known_moments_move_as_far_as_they_are_known(given, expected):
    assert moved(*given) == expected


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("20200301000010.5+0100", "20200229235950.5+0100"),
        ("20200301", "20200229"),
        ("2020", ""),
        (MARKER, ""),
        ("20200301999999", ""),
    ],
)
def test_datetimes_move_with_their_fraction_and_zone(stamp, expected):
    assert moved_datetime(stamp, -20) == expected


def test_studies_move_apart_unless_intervals_are_kept(voxels, tmp_path):
    spans = {}
    for keep in (False, True):
        days = []
        for number, day in enumerate(("20200101", "20200131")):
            source = series(tmp_path / f"{keep}{number}", voxels, seed=str(number))
            edit_all(source, lambda dataset, day=day: setattr(dataset, "StudyDate", day))
            who = Pseudonyms(patient_id="P7", key=bytes(32), keep_intervals=keep)
            copies, _ = copy(source, tmp_path / f"copy {keep}{number}", who)
            days.append(datetime.strptime(copies[0].StudyDate, "%Y%m%d"))
            assert {one.StudyDate for one in copies} == {copies[0].StudyDate}
        spans[keep] = (days[1] - days[0]).days
    assert spans[True] == 30
    assert spans[False] != 30


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation is YES"),
        ({"Modality": "US"}, "it is of modality US"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "it is a secondary capture"),
    ],
)
def test_text_that_may_be_burned_in_is_refused_unless_forced(
    attributes, why, voxels, who, tmp_path
):
    source = series(tmp_path / "scan", voxels)
    edit_all(source, lambda dataset: [setattr(dataset, *pair) for pair in attributes.items()])
    with pytest.raises(ReadError, match=f"PRV-003 .*{why}.*burned_in=true"):
        copy(source, tmp_path / "copy", who)
    assert copy(source, tmp_path / "forced", who, burned_in=True)[0]
    if "BurnedInAnnotation" not in attributes:
        edit_all(source, lambda dataset: setattr(dataset, "BurnedInAnnotation", "NO"))
        assert copy(source, tmp_path / "declared", who)[0]


def test_nothing_hides_in_unused_bits_behind_the_pixels_or_before_the_header(who, tmp_path, rng):
    voxels = rng.integers(0, 4096, SHAPE).astype(np.int16)
    source = series(tmp_path / "scan", voxels)
    # Less than a row of these tiny slices: more than a row behind the pixels is refused.
    start = MARKER.encode()[:8]

    def hide(dataset):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        words = np.frombuffer(dataset.PixelData, "<u2") | 0x5000
        dataset.PixelData = words.astype("<u2").tobytes() + start
        dataset.preamble = MARKER.encode().ljust(128, b"\0")

    edit_all(source, hide)
    copies, _ = copy(source, tmp_path / "copy", who)
    for path, dataset in zip(sorted((tmp_path / "copy").iterdir()), copies, strict=True):
        assert start not in path.read_bytes()
        assert int(np.frombuffer(dataset.PixelData, "<u2").max()) < 4096
    assert same(read_dicom(source), read_dicom(tmp_path / "copy"))


def test_compressed_pixels_are_stored_plainly(voxels, who, tmp_path):
    source = series(tmp_path / "scan", voxels)
    edit_all(source, lambda dataset: compress(dataset, RLELossless, generate_instance_uid=False))
    copies, _ = copy(source, tmp_path / "copy", who)
    assert not copies[0].file_meta.TransferSyntaxUID.is_compressed
    assert same(read_dicom(source), read_dicom(tmp_path / "copy"))


@pytest.mark.slow
def test_real_series_of_many_scanners_read_back_equal(shared_data, who, tmp_path):
    from medseg.io.dicom.reader import find_series

    num_compared = 0
    for folder in sorted(path for path in shared_data("dicom2nifti_cases").iterdir()):
        if not folder.is_dir():
            continue
        for number, found in enumerate(find_series(folder)):
            if found.verdict != "volume":
                continue
            place = tmp_path / f"{folder.name}{number}"
            files = list(dict.fromkeys(frame.file for frame in found.frames))
            try:
                original = read_dicom(folder, series_uid=f"{found.uid}:{found.part}".rstrip(":"))
            except ReadError:
                continue
            write_copies(files, place, who, burned_in=True)
            one, *others = find_series(place)
            part = f":{found.part}" if others else ""
            copied = read_dicom(place, series_uid=f"{one.uid}{part}")
            assert same(original, copied), folder.name
            num_compared += 1
    assert num_compared > 10


def test_a_copy_names_no_folder_of_its_source(voxels, who, tmp_path):
    source = series(tmp_path / MARKER, voxels)
    copy(source, tmp_path / "copy", who)
    for path in Path(tmp_path / "copy").iterdir():
        assert path.stem.isdigit()
        assert MARKER.encode() not in path.read_bytes()
