"""docs/models.md is made of the registry and of the kept ledgers, and of nothing else."""

import json
import socket

import pytest

from benchmarks.keep import RESULTS, kept, merged, rows_in
from benchmarks.models_page import PAGE, models_page
from benchmarks.page_families import families_section
from benchmarks.page_gpu import gpu_section
from benchmarks.page_networks import known_networks
from benchmarks.page_objects import objects_section
from benchmarks.page_sides import lesions_section, partial_section, scarce_section
from medseg.models.registry import model_names

STAMP = {"commit": "0123456789ab", "versions": {"torch": "2", "monai": "1", "mlflow": "3"}}


def family_row(family, *, dice=(0.8, 0.6), num_steps=300, **changed):
    key = {"dataset": "knees", "family": family, "protocol": "time", "seed": 0, "budget": "60s",
           "set": []}  # fmt: skip
    row = {
        "key": {**key, **changed.pop("key", {})},
        "threads": 1,
        "dice": {f"case_{n}": {"bone": d + 0.1, "skin": d - 0.1} for n, d in enumerate(dice)},
        "patients": {f"case_{n}": f"patient_{n}" for n in range(len(dice))},
        "num_steps": num_steps,
        "seconds": 60.0,
        "num_parameters": 1_234_567,
        "patch_flops": 5_000_000_000,
        "case_s": 0.5,
        "peak_mib": 640.0,
        "spatial_dims": 2,
        "patch_vox": [64, 64, 1],
        "batch_size": 4,
        **STAMP,
    }
    return {**row, **changed}


def failed_row(family):
    row = family_row(family)
    return {"key": row["key"], "threads": 1, "error": "medseg train: OUT-001 no room", **STAMP}


def side_row(side, dice, *, seed="0", **changed):
    key = {"side": side, "time": "60s", "seed": seed, "set": []}
    scores = {f"case_{n}": {"bone": d} for n, d in enumerate(dice)}
    return {"key": {**key, **changed}, "dataset": "knees", "dice": scores, "num_steps": 9, **STAMP}


def lines_with(text, word):
    return [line for line in text.splitlines() if word in line]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_what_ledgers_and_registry_make_of_it():
    # python -m benchmarks.models_page writes it anew.
    assert PAGE.read_text() == models_page()


def test_every_registered_network_is_listed_with_its_paper():
    listed = {one.name: one for one in known_networks()}
    assert set(listed) == {name for name in model_names() if f"`{name}`" in PAGE.read_text()}
    assert listed["unetplusplus"].paper == "Zhou et al., DLMIA 2018"
    # A kernel of 27 taps in place of 9, and nothing else, sets 3D apart from 2D.
    assert all(one.num_parameters[3] > one.num_parameters[2] for one in listed.values())


def test_a_section_without_rows_is_left_out(tmp_path):
    sections = (
        families_section, gpu_section, objects_section, lesions_section, partial_section,
        scarce_section,
    )  # fmt: skip
    assert [section([]) for section in sections] == [""] * 6


def test_a_gpu_is_named_with_what_it_took_and_how_far_it_agrees_with_a_cpu():
    parts = {
        "device": {"name": "GPU 9"},
        "train": {
            "num_steps": 7, "dice": {"mean": 0.5}, "patch_vox": [8, 8, 8], "batch_size": 2,
            "gpu_peak_mib": {"allocated": 99.0},
        },
        "steps_real": {"step_s": 0.25},
        "steps_dummy": {"step_s": 0.125},
        "steps_compiled": {"failed": "no compiler"},
        "predict": {"case_s": 0.01},
        "predict_cpu": {"case_s": 0.5},
        "agreement": {"num_differing_vox": 3, "num_vox": 4000, "num_cases": 2},
    }  # fmt: skip
    rows = [
        {
            "key": {"part": part, "device": "cuda", "time": "40s", "set": []},
            "dataset": "knees",
            **own,
        }
        for part, own in parts.items()
    ]
    page = gpu_section(rows)
    (line,) = lines_with(page, "GPU 9")
    assert cells(line) == [
        "GPU 9", "40s", "7", "0.500", "8 x 8 x 8", "2", "0.250", "0.125", "no compiler", "99",
        "0.010", "0.500", "3 of 4000 in 2 scans",
    ]  # fmt: skip
    assert "python -m benchmarks.gpu MANIFEST OUTPUT --time 40s" in page


def test_what_a_gpu_measured_says_so():
    page = families_section([family_row("unet", gpu="GPU 9")])
    assert "1 thread, on one GPU 9." in page


def test_families_are_ordered_by_dice_behind_them_those_not_trained_and_those_that_failed():
    rows = [
        failed_row("pspnet"),
        family_row("swinunetr", dice=(0.9, 0.9), num_steps=199),
        family_row("unet", dice=(0.8, 0.6)),
        family_row("resunet", dice=(0.9, 0.7)),
    ]
    text = families_section(rows)
    table = [cells(line) for line in lines_with(text, "| `")]
    assert [row[0] for row in table[1:]] == ["`resunet`", "`unet`", "`swinunetr`", "`pspnet`"]
    assert table[1][1].startswith("0.800 [")
    assert [row[2] for row in table[1:4]] == [
        "-", "-0.100 [-0.100, -0.100]", "0.100 [0.000, 0.200]",
    ]  # fmt: skip
    assert table[2][3:-1] == ["1.23 M", "5 G", "300", "0.200", "0.50", "640"]
    assert [row[-1] for row in table[1:]] == [
        "", "", "not trained", "failed: medseg train: OUT-001 no room",
    ]  # fmt: skip
    assert "--families unet,resunet,swinunetr,pspnet --seeds 0 --threads 1" in text
    assert text == families_section(rows)


def test_scans_of_one_patient_have_no_interval():
    row = family_row("unet", patients={"case_0": "one", "case_1": "one"})
    (line,) = lines_with(families_section([row]), "`unet`")
    assert cells(line)[1] == "0.700"
    assert "2 cases of 1 patient," in families_section([row])


def test_a_budget_of_steps_with_a_most_time_is_told_as_it_was_asked_for():
    row = family_row("unet", key={"protocol": "steps", "budget": "300 steps within 8m"})
    assert "--only-protocol steps --steps 300 --most-time 8m" in families_section([row])
    # Seconds are no part of a comparison at equal steps.
    assert "s a step" not in families_section([row])


def test_sides_are_compared_case_by_case_over_the_seeds_that_all_have():
    rows = [
        side_row("full", (0.8, 0.6)),
        side_row("wrong", (0.7, 0.5)),
        side_row("full", (0.1, 0.1), seed="1"),
    ]
    text = partial_section(rows)
    (line,) = lines_with(text, "| wrong")
    assert cells(line)[3] == "-0.100 [-0.100, -0.100]"
    assert "2 cases, 1 seed." in text
    assert "--time 60s --seeds 0 --sides full,wrong" in text
    scarce = [side_row("supervised", (0.8, 0.6), labelled=5, pretrain_time="9s")]
    assert "### knees, 5 labelled cases: 60s of training" in scarce_section(scarce)


def test_lesions_are_told_by_size():
    case = {"volume_ml": [0.05, 0.05, 0.2], "found": [True, False, True], "num_false": 3,
            "dice": 0.4}  # fmt: skip
    key = {"sampling": "lesion", "time": "60s", "seed": "0", "set": []}
    row = {"key": key, "num_steps": 7, "cases": {"a": case, "b": case}, **STAMP}
    (line,) = lines_with(lesions_section([row]), "`lesion`")
    assert cells(line) == [
        "`lesion`", "0.500 [0.500, 0.500]", "1.000 [1.000, 1.000]", "3.00", "0.400", "7",
    ]  # fmt: skip


def test_objects_are_told_by_way_and_otsu_is_no_network():
    counts = {"num_reference": 4, "num_prediction": 4, "num_found": 3, "num_missed": 1,
              "num_false": 1, "num_matched": 3, "num_matched_50": 3}  # fmt: skip
    case = {"case_id": "a", "patient_id": "a", "stratum": "", "class": "cell", **counts,
            "ap_50": 0.6, "pq": 0.5, "lesion_dice": 0.7, "matched_iou": 2.1}  # fmt: skip
    key = {"dataset": "cells", "task": "instance", "fold": "0"}
    rows = [
        {"key": {**key, "way": "otsu", "least_px": 20}, "cases": [case], **STAMP},
        {"key": {**key, "way": "centre", "seed": "0", "time": "60s", "set": []},
         "cases": [case, {**case, "case_id": "b", "patient_id": "b"}], "num_steps": 9, **STAMP},
    ]  # fmt: skip
    text = objects_section(rows)
    (line,) = lines_with(text, "| centre")
    # All cases together: 6 / (8 + 8 - 6) objects, and an IoU of 4.2 over 8 of them.
    assert cells(line)[2:] == [
        "9", "cell", "all", "2", "0.600 [0.600, 0.600]", "0.600", "0.500 [0.500, 0.500]", "0.525",
        "0.700 [0.700, 0.700]", "6", "2", "2",
    ]  # fmt: skip
    assert "--time 60s --task instance --ways centre --folds 0 --seeds 0 --otsu 20" in text


def test_a_kept_row_names_what_computed_and_nothing_of_the_machine():
    assert kept(family_row("unet"))["versions"] == {"torch": "2", "monai": "1"}
    with pytest.raises(SystemExit, match="give --dataset"):
        kept({"key": {"side": "full"}, **STAMP})
    for told in ("cannot read /home/somebody/scans/a.nii.gz", socket.gethostname()):
        with pytest.raises(SystemExit, match="a kept row must not"):
            kept({**failed_row("unet"), "error": f"refused: {told}"})


def test_of_one_key_the_latest_row_is_kept_where_the_first_one_stood():
    old = [family_row("unet", num_steps=1), family_row("fcn")]
    new = [family_row("unet", num_steps=2)]
    together = merged(old, new)
    assert [row["key"]["family"] for row in together] == ["unet", "fcn"]
    assert together[0]["num_steps"] == 2


def test_what_is_kept_in_the_repository_was_kept_by_the_rules():
    for path in RESULTS.glob("*.jsonl"):
        rows = rows_in(path)
        assert json.dumps([kept(row) for row in rows]) == json.dumps(rows)
