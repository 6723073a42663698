"""Families are found by name, on demand, and measured."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.networks.nets import SegResNet
from omegaconf import OmegaConf
from torch import nn

from medseg.core.errors import ConfigError
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.models import registry
from medseg.models.cost import count_flops, count_parameters
from medseg.models.padding import PaddedNetwork
from medseg.models.registry import build_model, model_names, model_settings, register_model

CONF = Path(__file__).parents[1] / "conf" / "model"


@pytest.fixture(autouse=True)
def _own_parts_forgotten():
    """Forget what a test entered: others compare the names there are with the settings on disk."""
    yield
    for name in registry._registry._builders.keys() - registry._HOMES.keys():
        del registry._registry._builders[name]


@pytest.fixture
def plan() -> Plan:
    return Plan(
        dataset="phantoms",
        spatial_dims=3,
        orientation="RAS",
        spacing_mm=(1.0, 1.0, 1.0),
        patch_vox=(16, 16, 16),
        intensity=(IntensityPlan(channel="CT", scheme="zscore"),),
        network=NetworkPlan(
            widths=(8, 16, 32), strides=((2, 2, 2), (2, 2, 2)), kernels=((3, 3, 3),) * 3
        ),
        training=TrainingPlan(batch_size=2, num_steps=10),
        device="cpu",
    )


def test_asking_for_the_names_does_not_import_monai():
    code = "import sys, medseg.models.registry as r; r.model_names(); print('monai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", model_names())
def test_the_config_file_holds_every_setting_and_its_default(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    defaults = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in model_settings(name).items()
    }
    assert config == {"name": name, **defaults}


@pytest.mark.parametrize("name", model_names())
def test_a_family_can_be_built_from_its_config_file(name, plan):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    settings = {key: value for key, value in config.items() if key != "name"}
    build_model(name, plan=plan, num_inputs=1, num_outputs=2, settings=settings)


def test_an_unknown_family_is_refused_with_the_nearest(plan):
    with pytest.raises(
        ConfigError, match=r"model=segresnt: no such model; the nearest is segresnet;.* plugins="
    ):
        build_model("segresnt", plan=plan, num_inputs=1, num_outputs=2)


def test_a_value_that_a_family_refuses_is_named(plan):
    with pytest.raises(ConfigError, match=r"model=unet: .*FOO"):
        build_model("unet", plan=plan, num_inputs=1, num_outputs=2, settings={"norm": "foo"})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("unet", {"dropout": 2.0}),
        ("resunet", {"num_res_units": 0}),
        ("segresnet", {"blocks_down": [1, 1]}),
        ("segresnet", {"norm": ["group", {"num_groups": 5}]}),
        ("mednext", {"kernel_size": 4}),
    ],
)
def test_a_setting_without_meaning_is_refused(name, settings, plan):
    with pytest.raises(ConfigError, match=f"model={name}: "):
        build_model(name, plan=plan, num_inputs=1, num_outputs=2, settings=settings)


def test_a_plugin_enters_its_own_family_but_takes_no_name_of_ours(plan):
    @register_model("one_convolution")
    def one_convolution(*, num_inputs: int, num_outputs: int, kernel_size: int = 1) -> nn.Module:
        return nn.Conv3d(num_inputs, num_outputs, kernel_size)

    assert "one_convolution" in model_names()
    network = build_model("one_convolution", plan=plan, num_inputs=1, num_outputs=2)
    assert network(torch.zeros(1, 1, 5, 6, 7)).shape == (1, 2, 5, 6, 7)
    with pytest.raises(ConfigError, match="the model name 'unet' is taken"):
        register_model("unet")(one_convolution)


def test_padding_repeats_the_last_voxels_and_leaves_no_trace_in_the_logits():
    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert torch.equal(PaddedNetwork(Spy(), multiple=(4, 4))(x), x)
    assert seen[0].shape == (1, 1, 4, 8)
    assert torch.equal(seen[0][0, 0, :, 5:], seen[0][0, 0, :, 4:5].expand(4, 3))
    assert torch.equal(seen[0][0, 0, 3], seen[0][0, 0, 2])


def test_our_segresnet_is_monais_where_strides_are_2_and_widths_double(plan):
    ours = build_model("segresnet", plan=plan, num_inputs=1, num_outputs=3).eval()
    theirs = SegResNet(
        spatial_dims=3, init_filters=8, in_channels=1, out_channels=3, blocks_down=(1, 2, 4),
        blocks_up=(1, 1),
    ).eval()  # fmt: skip
    # Ours keeps its layers in another order; within a kind of layer the order is the same.
    pairs = {"first": "convInit", "last": "conv_final", "down": "down_layers"}
    pairs |= {"up": "up_layers", "narrow": "up_samples"}
    state = ours.network.state_dict()
    for mine, his in pairs.items():
        keys = [key for key in state if key.split(".")[0] == mine]
        values = [v for k, v in theirs.state_dict().items() if k.split(".")[0] == his]
        state |= dict(zip(keys, values, strict=True))
    ours.network.load_state_dict(state)
    x = torch.randn(1, 1, 16, 24, 16)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert count_parameters(ours) == count_parameters(theirs)


def test_our_unetr_is_monais_on_the_planned_grid(plan):
    wide = replace(plan, patch_vox=(32, 16, 16))
    settings = {"hidden_size": 48, "mlp_dim": 96, "num_heads": 4}
    ours = build_model("unetr", plan=wide, num_inputs=1, num_outputs=3, settings=settings).eval()
    theirs = ours.network.network
    x = torch.randn(1, 1, 32, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_parameters_and_operations_of_a_convolution_are_the_closed_form():
    network = nn.Conv3d(2, 5, 3, padding=1)
    assert count_parameters(network) == 5 * (2 * 27 + 1)
    assert count_flops(network, (1, 2, 4, 6, 8)) == 2 * (4 * 6 * 8) * 5 * 2 * 27
    assert network.training


def test_a_library_that_is_missing_is_named(plan):
    @register_model("needs_more")
    def needs_more() -> nn.Module:
        raise ImportError("No module named 'einops'\nmore lines")

    with pytest.raises(ConfigError, match=r"model=needs_more: No module named 'einops'; install"):
        build_model("needs_more", plan=plan, num_inputs=1, num_outputs=2)
