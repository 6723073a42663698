import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from medseg.cli import main
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.series_writer import write_series
from medseg.io.nifti_write import write_nifti

# Free text, where people put names.
DESCRIPTION = "t1 of Ms Canary"


@pytest.fixture
def volume(rng) -> Volume:
    voxels = rng.integers(-1000, 1000, (1, 6, 5, 4)).astype(np.int16)
    return Volume(voxels, Geometry((6, 5, 4), np.diag([-1.0, -1.0, 2.5, 1.0])))


@pytest.fixture
def source(tmp_path, volume, monkeypatch) -> Path:
    """A CT series below a folder, a NIfTI file beside it; the working folder is empty."""
    write_series(volume, tmp_path / "in" / "ct", modality="CT", patient_id="P", seed="a")
    for path in (tmp_path / "in" / "ct").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SeriesDescription = DESCRIPTION
        dataset.save_as(path)
    write_nifti(volume, tmp_path / "in" / "other.nii.gz")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "in"


def checked(source: Path, *more: str) -> tuple[int, dict]:
    code = main(["check", f"source={source}", "num_workers=0", *more])
    return code, json.loads(Path("check.json").read_text())


def rows(report: dict) -> list[tuple]:
    return [
        (one["place"], one["modality"], one["verdict"], one["reason"].partition(" ")[0])
        for one in report["scans"]
    ]


def test_every_scan_of_a_folder_is_a_row_with_its_grid_and_verdict(source, capsys):
    code, report = checked(source)
    assert code == 0
    assert rows(report) == [("ct", "CT", "volume", ""), ("other.nii.gz", "", "volume", "")]
    for scan in report["scans"]:
        assert (scan["shape"], scan["spacing"], scan["unit"]) == ([6, 5, 4], [1, 1, 2.5], "mm")
    header, series = capsys.readouterr().out.splitlines()[:2]
    assert header.split() == [
        "scan", "series", "modality", "description", "slices", "spacing", "verdict", "why",
    ]  # fmt: skip
    assert series.split()[2:] == f"CT {DESCRIPTION} 4 1 x 1 x 2.5 mm volume".split()


def test_descriptions_are_shown_and_written_nowhere(source, capsys):
    checked(source)
    assert DESCRIPTION in capsys.readouterr().out
    assert DESCRIPTION not in Path("check.json").read_text()


def test_the_selector_of_a_row_chooses_its_series(source):
    write_series(
        Volume(np.zeros((1, 3, 3, 2), np.int16), Geometry((3, 3, 2), np.diag([-1.0, -1, 1, 1]))),
        source / "ct" / "second",
        modality="CT",
        patient_id="P",
        seed="b",
    )
    shapes = {
        read_dicom(source / "ct", series_uid=one["series"]).geometry.shape
        for one in checked(source)[1]["scans"]
        if one["modality"]
    }
    assert shapes == {(6, 5, 4), (3, 3, 2)}


def test_what_is_damaged_is_a_row_with_a_code_and_exit_code_3(source, volume):
    sorted((source / "ct").iterdir())[1].unlink()
    whole = (source / "other.nii.gz").read_bytes()
    (source / "other.nii.gz").write_bytes(whole[:-20])
    code, report = checked(source)
    assert code == 3
    assert rows(report) == [
        ("ct", "CT", "damaged", "DCM-001"),
        ("other.nii.gz", "", "damaged", "FIL-007"),
    ]
    # The row names the place; nothing above the source is told.
    assert str(source) not in json.dumps(report)


def test_a_file_of_several_time_points_is_none_of_our_volumes_and_not_damaged(source):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), source / "f.nii")
    code, report = checked(source)
    assert code == 0
    assert rows(report)[1] == ("f.nii", "", "other", "NII-023")


def test_pixels_are_decoded_unless_told_not_to(source):
    path = sorted((source / "ct").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-30])
    code, report = checked(source)
    assert (code, rows(report)[0][2:]) == (3, ("damaged", "DCM-015"))
    code, report = checked(source, "pixels=false")
    assert (code, rows(report)[0][2:]) == (0, ("volume", ""))


def test_a_zip_is_looked_into_and_copies_are_counted(source):
    shutil.copytree(source / "ct", source / "again")
    archive = shutil.make_archive(str(source / "packed"), "zip", source / "ct")
    _, report = checked(source)
    assert [(one["place"], one["num_files"], one["reason"]) for one in report["scans"]] == [
        ("again", 8, "4 of its files are copies of slices"),
        (Path(archive).name, 4, ""),
        ("other.nii.gz", 1, ""),
    ]


def test_a_file_that_spoils_its_folder_is_named(source):
    (source / "ct" / "empty.dcm").touch()
    code, report = checked(source)
    assert code == 3
    assert rows(report)[0][2:] == ("damaged", "DCM-028")
    assert [one["code"] for one in report["findings"]] == ["DCM-028"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["source=nowhere"], "FIL-001 nowhere: no such file or folder"),
        (["source=."], "FIL-007 .: holds no scan"),
        (["source=.", "manifest=manifest.json"], "expected one of them"),
        (["source=.", "fix=true"], "fix= is about a manifest"),
        ([], "manifest= is missing"),
    ],
)
def test_a_wrong_line_is_answered_in_one_sentence(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", *line]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_real_study_lists_scans_and_contours(shared_data, tmp_path, monkeypatch):
    folder = shared_data("sts_dicom_rtstruct")
    monkeypatch.chdir(tmp_path)
    _, report = checked(folder, "pixels=false")
    found = {one["modality"]: one for one in report["scans"] if one["verdict"] == "volume"}
    assert {name: one["shape"][2] for name, one in found.items()} == {"CT": 51, "MR": 28, "PT": 51}
    assert report["num_by_verdict"] == {"volume": 3, "other": 3}
