import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.cli import main
from medseg.core.errors import ConfigError
from medseg.data.manifest import read_manifest
from medseg.tasks.ingest import stored_values

ODD = "a b;$(touch x)=,^[1]{2}ü"


def scan(path: Path, *values: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.resize(np.array(values, np.int16), (4, 4, 4))
    image = nibabel.Nifti1Image(voxels, np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """Five cases in folders of odd names; the working folder is empty."""
    folder = tmp_path / f"source {ODD}"
    for number in range(5):
        scan(folder / f"{number}" / "PET image.nii.gz", *range(number, number + 9))
        scan(folder / f"{number}" / "mask.nii.gz", 0, 0, 1)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder


def ingested(source: Path, *more: str) -> int:
    return main(
        [
            "ingest",
            f"source={source}",
            "images.PET={case}/PET image.nii.gz",
            "label={case}/mask.nii.gz",
            "labels.lesion=>0",
            "patient_is_case=true",
            "num_workers=0",
            *more,
        ]
    )


def test_ingest_and_check_work_on_odd_names_and_leave_nothing_else_behind(source, tmp_path, capsys):
    assert ingested(source, f"output={tmp_path / 'out' / ODD}") == 0
    path = tmp_path / "out" / ODD / "manifest.json"
    assert {case.case_id for case in read_manifest(path).cases} == set("01234")
    assert main(["check", f"manifest={path}", "num_workers=0"]) == 0
    report = json.loads((path.parent / "check.json").read_text())
    assert (report["num_cases"], report["findings"]) == (5, [])
    assert report["cases"][0]["class_vox"] == {"background": 43, "lesion": 21}
    assert [row["class_cases"]["lesion"] for row in report["folds"]] == [1] * 5
    assert list(Path.cwd().iterdir()) == []
    assert "5 cases (pairs)" in capsys.readouterr().out


def test_a_manifest_is_not_overwritten_unasked(source, capsys):
    assert ingested(source, "output=m.json") == 0
    assert ingested(source, "output=m.json") == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert ingested(source, "output=m.json", "overwrite=true") == 0


def test_a_case_that_cannot_be_read_gives_exit_code_3_and_its_reason(source, capsys):
    (source / "3" / "mask.nii.gz").write_bytes(b"")
    assert ingested(source, "output=m.json") == 3
    assert len(read_manifest(Path("m.json")).cases) == 4
    printed = capsys.readouterr()
    assert "FIL-0" in printed.out
    assert "1 cases could not be read" in printed.err


def test_check_says_what_is_wrong_and_ends_with_3(source, capsys):
    assert ingested(source, "output=m.json", "labels.lesion=1") == 0
    scan(source / "2" / "mask.nii.gz", 0, 7)
    assert main(["check", "manifest=m.json", "num_workers=0", "output=r.json"]) == 3
    codes = {one["code"] for one in json.loads(Path("r.json").read_text())["findings"]}
    assert {"LBL-003", "CHK-001"} <= codes
    assert "LBL-003" in capsys.readouterr().out


def test_a_leaking_manifest_is_reported_by_check(source, capsys):
    ingested(source, "output=m.json")
    value = json.loads(Path("m.json").read_text())
    value["cases"][0] |= {"split": "test", "patient_id": "p"}
    value["cases"][1] |= {"patient_id": "p"}
    Path("m.json").write_text(json.dumps(value))
    assert main(["check", "manifest=m.json", "num_workers=0"]) == 3
    assert "SPL-001" in capsys.readouterr().out
    assert json.loads(Path("check.json").read_text())["findings"][0]["code"] == "SPL-001"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["ingest"], "source= is missing"),
        (["ingest", "sorce=x"], "the nearest is source"),
        (["ingest", "source=/nowhere"], "ING-006"),
        (["check"], "manifest= is missing"),
    ],
)
def test_a_wrong_line_is_answered_in_one_sentence(line, said, capsys):
    assert main(line) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "values"),
    [(1, (1,)), ("1", (1,)), ("1,2", (1, 2)), ([1, 2], (1, 2)), (">0", ">0"), ("[3, 4]", (3, 4))],
)
def test_stored_values_are_read_however_they_are_written(text, values):
    assert stored_values("liver", text) == values


def test_stored_values_that_are_none_are_refused():
    with pytest.raises(ConfigError, match=r"labels\.liver=one"):
        stored_values("liver", "one")


def test_a_file_may_declare_classes_with_codes_and_partners_for_a_table(source, tmp_path, capsys):
    (source / "cases.csv").write_text(
        "case_id,patient_id,image.PET,label\n"
        + "".join(f"c{n},p{n},{n}/PET image.nii.gz,{n}/mask.nii.gz\n" for n in range(5))
    )
    left = {"name": "left", "values": 1, "colour": [1, 2, 3], "partner": "right"}
    left["code"] = {"value": "18639004", "scheme": "SCT", "meaning": "Left kidney"}
    right = {"name": "right", "values": 2, "partner": "left"}
    declared = tmp_path / ODD / "labels.json"
    declared.parent.mkdir()
    declared.write_text(json.dumps({"labels": [left, right]}))
    line = ["ingest", f"source={source / 'cases.csv'}", f"classes={declared}", "num_workers=0"]
    line.append("channels.PET=PT")
    assert main([*line, f"output={tmp_path / 'out'}"]) == 0
    labels = read_manifest(tmp_path / "out").labels
    assert [label.partner for label in labels.labels] == ["right", "left"]
    assert labels.labels[0].code.value == "18639004"
    again = [*line[:2], f"classes={tmp_path / 'out'}", *line[3:], f"output={tmp_path / 'two'}"]
    assert main(again) == 0
    assert read_manifest(tmp_path / "two").labels == labels
    assert main([*line, "labels.left=1", f"output={tmp_path / 'three'}"]) == 2
    assert "classes= declares all classes" in capsys.readouterr().err
