"""Names and values as MLflow takes them."""

from pathlib import Path

import mlflow.utils.validation as mlflow_says
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medseg.tracking.fields import (
    MAX_KEY,
    MAX_PARAM,
    Names,
    cut,
    flat_params,
    job_name,
    job_tags,
    tag_texts,
    valid_name,
)


@given(st.text(max_size=600))
@example("")
@example("..")
@example("/a//b/./../c/")
@example("x" * 247 + "/../y")
@example("dice/Tumor ≥ 3 mm (left):ä+ß\n")
def test_mlflow_takes_every_name_we_give(name):
    mlflow_says._validate_metric_name(valid_name(name))
    mlflow_says._validate_param_name(valid_name(name))
    assert len(valid_name(name)) <= MAX_KEY


@given(st.lists(st.text(max_size=300), unique=True, max_size=30))
def test_two_metrics_never_share_a_curve(names):
    given_names = Names()
    sent = [given_names(name) for name in names]
    assert len(set(sent)) == len(names)
    assert sent == [given_names(name) for name in names]
    for name in sent:
        mlflow_says._validate_metric_name(name)


def test_a_name_that_is_fine_stays_as_it_is():
    assert valid_name("val/dice/left kidney_1.0") == "val/dice/left kidney_1.0"


def test_settings_are_flattened_with_dots():
    flat = flat_params({"model": {"name": "unet", "depth": 4}, "lr": 1e-3, "on": True, "no": None})
    assert flat == {
        "model.name": "unet",
        "model.depth": "4",
        "lr": "0.001",
        "on": "true",
        "no": "null",
    }


def test_a_list_is_one_parameter_and_an_empty_group_is_named():
    assert flat_params({"patch_vox": (64, 64, 32), "aug": {}}) == {
        "patch_vox": "[64, 64, 32]",
        "aug": "{}",
    }


def test_a_long_value_is_cut_and_says_so():
    value = flat_params({"long": "x" * 9000})["long"]
    assert len(value) == MAX_PARAM
    assert value.endswith("[cut, 9000 characters]")
    assert cut("x" * MAX_PARAM, MAX_PARAM) == "x" * MAX_PARAM


@pytest.mark.parametrize(
    "settings",
    [
        {"anything": "/home/alice/patients/MUELLER_HANS"},
        {"anything": "~/patients/MUELLER_HANS"},
        {"anything": "C:\\patients\\MUELLER_HANS"},
        {"anything": "file:///srv/MUELLER_HANS"},
        {"anything": Path("MUELLER_HANS/scan.nii.gz")},
        {"manifest": "MUELLER_HANS.json"},
        {"case": "MUELLER_HANS"},
        {"mlflow": {"uri": "http://MUELLER:HANS@server"}},
        {"many": ["/srv/MUELLER", {"deep": "/srv/HANS"}]},
    ],
)
def test_paths_and_ids_leave_only_a_digest(settings):
    for shown in (flat_params(settings), tag_texts(settings)):
        assert "MUELLER" not in str(shown)
        assert "HANS" not in str(shown)
        assert "sha256:" in str(shown)


def test_equal_paths_have_equal_digests_and_others_do_not():
    first, second, other = (
        flat_params({"manifest": name})["manifest"] for name in ("a.json", "a.json", "b.json")
    )
    assert first == second != other


def test_names_of_models_are_nobodys_path():
    names = {"checkpoint": "models:/liver@best"}
    assert flat_params(names) == names


def test_a_job_of_a_sweep_is_told_by_what_it_overrides():
    tags = job_tags(3, ["model=unet", "optimizer.lr=1e-3", "manifest='MUELLER HANS.json'"])
    assert tags["medseg.sweep.job"] == "3"
    assert tags["medseg.sweep.overrides"].startswith(
        "model=unet optimizer.lr=1e-3 manifest=sha256:"
    )


def test_a_job_of_a_sweep_is_named_by_what_it_overrides_and_by_no_path():
    words = ["model=unet", "manifest='MUELLER HANS.json'", "fold=1", "training.init=/data/HANS"]
    assert job_name("3", words) == "3 model=unet fold=1"


def test_text_that_no_database_takes_is_made_harmless():
    shown = flat_params({"note": "a\udcff\0b"})["note"]
    assert shown.encode().decode() == shown == "a? b"
