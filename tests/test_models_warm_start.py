"""Weights to begin from: what fits is taken to the number, what does not is named."""

import pytest
import torch
from small_networks import SHALLOW, make_plan
from torch import nn

from medseg.core.errors import CheckpointError
from medseg.models.checkpoint import RECONSTRUCTION
from medseg.models.registry import build_model
from medseg.models.tensor_file import save_tensors
from medseg.models.warm_start import copy_fitting, inflate, load_warm_start


def network(num_inputs: int, num_outputs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(num_inputs, 4, 3, padding=1), nn.PReLU(), nn.Conv3d(4, num_outputs, 1)
    )


def test_what_fits_is_taken_and_the_rest_begins_at_random():
    source, target = network(1, 2, 0), network(1, 5, 1)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    found = copy_fitting(source.state_dict(), target, num_inputs=1)
    assert found.taken == ("0.weight", "0.bias", "1.weight")
    assert found.missing == ("2.weight", "2.bias")
    assert found.unused == ("2.weight", "2.bias")
    after, offered = target.state_dict(), source.state_dict()
    assert all(torch.equal(after[name], offered[name]) for name in found.taken)
    assert all(torch.equal(after[name], before[name]) for name in found.missing)
    # 4 x 27 + 4 + 1 of these, and 4 x 5 + 5 that are left.
    assert found.share == pytest.approx(113 / 138)
    assert found.lines()[0] == "init: 81.9% of the weights taken, in 3 tensors"


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (2, 3)])
def test_an_inflated_first_layer_responds_to_equal_channels_as_before(old, new):
    source, target = network(old, 2, 0), network(new, 2, 1)
    found = copy_fitting(source.state_dict(), target, num_inputs=new)
    assert found.inflated == ("0.weight",)
    image = torch.randn(1, 1, 5, 5, 5)
    repeated = (image.expand(-1, n, -1, -1, -1) for n in (old, new))
    before, after = (net(x) for net, x in zip((source, target), repeated, strict=True))
    assert torch.allclose(before, after, atol=1e-5)


def test_layers_inside_are_never_inflated():
    source = {"weight": torch.randn(4, 8, 3, 3, 3)}
    found = copy_fitting(source, nn.Conv3d(6, 4, 3, bias=False), num_inputs=1)
    assert not found.taken
    assert not found.inflated
    assert inflate(source["weight"], 2).shape == (4, 2, 3, 3, 3)


@pytest.mark.parametrize("name", ["unet", "resunet", "mednext"])
def test_outputs_as_many_as_channels_are_not_taken_for_channels(name):
    """Transposed convolutions count outputs where others count inputs."""
    plan, settings = make_plan(), SHALLOW.get(name, {})
    source, target = (
        build_model(name, plan=plan, num_inputs=1, num_outputs=outputs, settings=settings)
        for outputs in (3, 1)
    )
    found = copy_fitting(source.state_dict(), target, num_inputs=1)
    assert not found.inflated
    assert found.missing


def test_outputs_that_were_images_begin_at_random_where_their_number_fits(tmp_path):
    source, target = network(2, 2, 0), network(2, 2, 1)
    before = target.state_dict()["2.weight"].clone()
    kept = {"weights": source.state_dict(), "trained_with": {"objective": RECONSTRUCTION}}
    save_tensors(kept, tmp_path / "model.pt")
    ends = {"2.weight", "2.bias"}
    found = load_warm_start(tmp_path, target, num_inputs=2, ends=ends)
    assert found.taken == ("0.weight", "0.bias", "1.weight")
    assert found.missing == found.unused == ("2.weight", "2.bias")
    assert torch.equal(target.state_dict()["2.weight"], before)
    save_tensors({**kept, "trained_with": {"objective": "classes"}}, tmp_path / "model.pt")
    assert not load_warm_start(tmp_path, target, num_inputs=2, ends=ends).missing


def test_a_file_of_which_nothing_fits_is_refused(tmp_path):
    save_tensors({"weights": {"other": torch.zeros(3)}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"CKP-006 .*none of its 1 weights fits"):
        load_warm_start(tmp_path, network(1, 2, 0), num_inputs=1)
    save_tensors({"network": {}}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"CKP-006 .*holds no weights"):
        load_warm_start(tmp_path / "state.pt", network(1, 2, 0), num_inputs=1)
