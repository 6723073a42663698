"""The benchmark of families: what is run, in which order, and what becomes of a failure."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import commands, families
from benchmarks.commands import CommandError


def chosen(*words):
    return families._line().parse_args(["out", "--data", "a=m.json", "b=m.json@2", *words])


@pytest.mark.parametrize(
    ("word", "dataset"),
    [
        ("hip=some/manifest.json", ("hip", "some/manifest.json", None)),
        ("hip_2d=some/manifest.json@2", ("hip_2d", "some/manifest.json", 2)),
        ("a=some@place/manifest.json@3", ("a", "some@place/manifest.json", 3)),
    ],
)
def test_a_dataset_is_read_from_its_word(word, dataset):
    name, path, dims = dataset
    assert families.Dataset.from_word(word) == families.Dataset(name, Path(path), dims)
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=MANIFEST"):
        families.Dataset.from_word("manifest.json")


def test_whole_tables_come_first_and_subsets_can_be_chosen():
    keys = [key for _, key in families._keys(chosen("--families", "unet,fcn", "--steps", "9"))]
    told = [(key["dataset"], key["protocol"], key["family"]) for key in keys]
    assert told[:3] == [("a", "time", "unet"), ("a", "time", "fcn"), ("a", "steps", "unet")]
    assert len(told) == 8
    some = chosen("--only-protocol", "steps", "--steps", "9", "--most-time", "8m")
    budgets = {key["budget"] for _, key in families._keys(some)}
    assert budgets == {"9 steps within 8m"}
    assert families._budget(some, "steps") == ["training.max_steps=9", "training.max_time=8m"]


def test_a_family_that_fails_is_a_row_with_the_reason_and_without_paths(tmp_path, monkeypatch):
    def refusing(*words):
        raise CommandError(f"medseg {words[0]}: FIL-001 {tmp_path}/m.json: cannot be read")

    monkeypatch.setattr(families, "medseg", refusing)
    monkeypatch.setattr(
        "sys.argv", ["families", str(tmp_path / "out"), "--data", "a=m.json", "--families", "unet"]
    )
    families.main()
    families.main()
    ledger = (tmp_path / "out" / "families.jsonl").read_text()
    errors = [json.loads(line)["error"] for line in ledger.splitlines()]
    assert errors == ["medseg plan: FIL-001 PATH: cannot be read"] * 2
    assert str(tmp_path) not in ledger


def test_a_command_that_fails_tells_its_last_line():
    with pytest.raises(CommandError, match="'nonsense' is not a command"):
        commands.medseg("nonsense")
    assert commands.medseg("--version").peak_mib > 1
