"""No patient tag, path or folder name comes out of a command, but where docs/privacy.md says so."""

import re
from pathlib import Path

import pytest

from benchmarks.canaries import console_hits, walk
from benchmarks.canary_search import SHARED, search
from benchmarks.canary_set import MARKERS, write_canaries
from medseg.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs" / "privacy.md"


@pytest.fixture
def run(capfd, caplog):
    def command(line):
        capfd.readouterr()
        caplog.clear()
        code = main(line)
        printed = capfd.readouterr()
        return code, printed.out + printed.err + caplog.text

    return command


def test_every_marker_is_somewhere_in_what_goes_in_and_the_search_sees_it(tmp_path):
    write_canaries(tmp_path)
    assert {hit.field for hit in search(tmp_path)} == set(MARKERS)
    assert len(MARKERS) >= 60


def test_the_list_of_what_objects_share_with_their_scan_is_the_one_in_the_docs():
    told = set(re.findall(r"`(\w+)`", DOCS.read_text().partition("nothing else:")[2][:600]))
    shared = SHARED - {"SeriesInstanceUID", "SOPInstanceUID"}
    assert shared | {"PatientSex", "StudyTime"} == told
    for name in ("manifest.json", "check.json"):
        assert f"`{name}`" in DOCS.read_text()


def test_no_marker_comes_out_of_the_way_from_ingest_to_export(tmp_path, run, monkeypatch):
    monkeypatch.setenv("MEDSEG_HOME", str(tmp_path / "work" / "home"))
    monkeypatch.chdir(tmp_path)
    printed = walk(tmp_path / "inputs", tmp_path / "work", run, num_steps=1, tracked=False)
    hits = [*search(tmp_path / "work"), *console_hits(printed)]
    assert [hit for hit in hits if not hit.allowed] == []
    assert not list((tmp_path / "work" / "copies").rglob("*.seg.dcm"))
    in_copies = [hit for hit in hits if hit.place.startswith("copies/")]
    assert in_copies == []
    assert {path.name for path in tmp_path.iterdir()} == {"inputs", "work"}


@pytest.mark.slow
def test_no_marker_comes_out_of_a_tracked_training(tmp_path, run, monkeypatch):
    monkeypatch.setenv("MEDSEG_HOME", str(tmp_path / "work" / "home"))
    printed = walk(tmp_path / "inputs", tmp_path / "work", run, num_steps=2)
    assert (tmp_path / "work" / "mlflow.db").exists()
    hits = [*search(tmp_path / "work"), *console_hits(printed)]
    assert [hit for hit in hits if not hit.allowed] == []
