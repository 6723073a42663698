"""`medseg cache` lists and prunes prepared cases, and touches nothing else."""

import os
import time

import pytest

from medseg.cli import main


@pytest.fixture
def cache(tmp_path):
    for name, age_days in (("new", 0), ("old", 40)):
        place = tmp_path / "liver" / name
        place.mkdir(parents=True)
        (place / "image.npy").write_bytes(bytes(2**20))
        (place / "case.json").write_text("{}")
        then = time.time() - age_days * 86400
        os.utime(place / "case.json", (then, then))
    (tmp_path / "liver" / "notes").mkdir()
    (tmp_path / "liver" / "notes" / "mine.txt").write_text("keep")
    return tmp_path


def test_the_list_counts_cases_and_their_size(cache, capsys):
    assert main(["cache", "list", "--folder", str(cache)]) == 0
    assert capsys.readouterr().out.split()[-4:] == ["liver", "2", "2", "0"]


def test_pruning_takes_old_cases_and_leaves_other_files(cache):
    assert main(["cache", "prune", "--older-than-days", "30", "--folder", str(cache)]) == 0
    assert sorted(path.name for path in (cache / "liver").iterdir()) == ["new", "notes"]
    assert main(["cache", "prune", "--folder", str(cache)]) == 0
    assert [path.name for path in (cache / "liver").iterdir()] == ["notes"]


def test_an_empty_cache_is_no_fault_and_a_wrong_folder_is(tmp_path):
    assert main(["cache", "list"]) == 0
    assert main(["cache", "prune", "--folder", str(tmp_path / "nowhere")]) == 2
