"""A checkpoint is data: everything needed to use a network, nothing that runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medseg.core.errors import CheckpointError
from medseg.core.fingerprint import CaseFingerprint, Fingerprint, Intensity
from medseg.core.labels import label_set
from medseg.core.objects import Centres, ObjectPlan
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.models.checkpoint import Checkpoint, load_checkpoint, network_of, save_checkpoint
from medseg.models.registry import build_model
from medseg.models.tensor_file import load_tensors, save_tensors

PLAN = Plan(
    dataset="phantoms",
    spatial_dims=3,
    orientation="RAS",
    spacing_mm=(1.0, 1.0, None),
    patch_vox=(16, 16, 16),
    intensity=(IntensityPlan(channel="CT", scheme="clip_zscore", low=-100.0, high=300.0),),
    network=NetworkPlan(
        widths=(4, 8, 16), strides=((2, 2, 1), (2, 2, 2)), kernels=((3, 3, 3),) * 3
    ),
    training=TrainingPlan(batch_size=2, num_steps=10),
    device="cpu",
)
INTENSITY = Intensity(mean=1.0, std=2.0, low=0.0, high=3.0, minimum=-1.0, maximum=4.0)
FINGERPRINT = Fingerprint(
    cases=(
        CaseFingerprint(
            case_id="007",
            shape=(20, 20, 10),
            spacing_mm=(1.0, 1.0, 2.0),
            orientation="RAS",
            class_vox=(3000, 500, 500),
        ),
    ),
    channels=(("CT", "CT"),),
    foreground=(INTENSITY,),
    whole=(INTENSITY,),
    unit="mm",
    manifest_digest="0" * 64,
)


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    network = build_model(
        "resunet", plan=PLAN, num_inputs=1, num_outputs=3, settings={"act": "relu"}
    )
    return Checkpoint(
        weights=network.state_dict(),
        plan=PLAN,
        labels=label_set({"liver": 1, "spleen": [2, 3]}),
        fingerprint=FINGERPRINT,
        model="resunet",
        settings={"act": "relu"},
        scores={"dice": 0.5},
        versions={"medseg": "0.1.0"},
        trained_with={"channel_dropout": 0.0},
    )


def test_a_checkpoint_comes_back_as_it_was(checkpoint, tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(checkpoint, path)
    loaded = load_checkpoint(path)
    assert replace(loaded, weights={}) == replace(checkpoint, weights={})
    assert loaded.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(loaded.weights[k], checkpoint.weights[k]) for k in loaded.weights)


def test_how_objects_are_told_apart_comes_back_and_widens_the_network(checkpoint, tmp_path):
    objects = ObjectPlan(task="panoptic", way=Centres(unit_vox=8), least_ml=0.1)
    network = build_model("unet", plan=PLAN, num_inputs=1, num_outputs=3 + 4)
    wide = replace(
        checkpoint, model="unet", settings={}, weights=network.state_dict(), objects=objects
    )
    save_checkpoint(wide, tmp_path / "model.pt")
    loaded = load_checkpoint(tmp_path / "model.pt")
    assert loaded.objects == objects
    with torch.no_grad():
        assert network_of(loaded)(torch.randn(1, 1, 16, 16, 16)).shape[1] == 7


def test_a_checkpoint_that_knows_nothing_of_objects_loads(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    value = dict(load_tensors(tmp_path / "model.pt"))
    del value["objects"]
    save_tensors(value, tmp_path / "earlier.pt")
    loaded = load_checkpoint(tmp_path / "earlier.pt")
    assert loaded.objects is None
    assert replace(loaded, weights={}) == replace(checkpoint, weights={})


def test_its_network_gives_the_logits_of_the_one_that_was_trained(checkpoint, tmp_path):
    trained = network_of(checkpoint)
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    loaded = network_of(load_checkpoint(tmp_path / "model.pt"))
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(trained(x), loaded(x))
    assert not loaded.training


def test_plain_torch_loads_it_and_finds_plain_values(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    value = torch.load(tmp_path / "model.pt", weights_only=True)
    assert value["format"] == "medseg checkpoint"
    assert value["plan"]["patch_vox"] == (16, 16, 16)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_and_a_finding(checkpoint, tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(checkpoint, path)
    save_checkpoint(replace(checkpoint, scores={"dice": 0.9}), path)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.write_bytes(body)
    loaded = load_checkpoint(path)
    assert loaded.scores == {"dice": 0.5}
    assert [(f.code, f.severity) for f in loaded.findings] == [("CKP-002", "warning")]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"format": "medseg state"}, "CKP-003"),
        ({"version": 99}, "CKP-004"),
        ({"plan": {}}, "CKP-005"),
        ({"plan": None}, "CKP-005"),
        ({"labels": {"labels": []}}, "CKP-005"),
        ({"fingerprint": {"cases": [{}]}}, "CKP-005"),
        ({"weights": None}, "CKP-005"),
        ({"model": 3}, "CKP-005"),
        ({"objects": {"task": "instance"}}, "CKP-005"),
    ],
)
def test_a_file_that_is_whole_but_wrong_is_refused(checkpoint, tmp_path, change, code):
    path = tmp_path / "model.pt"
    save_checkpoint(checkpoint, path)
    save_tensors({**load_tensors(path), **change}, tmp_path / "changed.pt")
    with pytest.raises(CheckpointError) as refusal:
        load_checkpoint(tmp_path / "changed.pt")
    assert refusal.value.code == code


def test_the_state_of_a_training_is_told_from_a_checkpoint(tmp_path):
    save_tensors({"optimizer": {}, "step": 3}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"is not a checkpoint; it holds optimizer, step"):
        load_checkpoint(tmp_path / "state.pt")


def test_weights_of_another_network_are_refused_in_one_line(checkpoint):
    with pytest.raises(CheckpointError, match=r"CKP-005 .*do not fit model=unet") as refusal:
        network_of(replace(checkpoint, model="unet"))
    assert "\n" not in str(refusal.value)


def test_no_path_of_this_machine_is_in_the_file(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    assert str(Path.home()).encode() not in (tmp_path / "model.pt").read_bytes()
