"""Every network keeps one contract: 2D and 3D, any strides, any input size."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from small_networks import (
    ISOTROPIC,
    NARROW,
    NUM_INPUTS,
    NUM_OUTPUTS,
    SHALLOW,
    THICK_SLICES,
    make_network,
    make_plan,
)
from torch import Tensor, nn

from medseg.config import build
from medseg.core.errors import ConfigError
from medseg.losses.deep_supervision import DeepSupervision
from medseg.losses.registry import build_loss
from medseg.models.registry import build_model, has_coarser_outputs, model_names

CONF = Path(__file__).parents[1] / "conf"
Drop = nn.modules.dropout._DropoutNd
MOST_STEPS, STEPS_BETWEEN_LOOKS = 400, 20


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are computed faster by one thread, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=model_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("strides", [ISOTROPIC, THICK_SLICES], ids=["isotropic", "thick_slices"])
@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 13, 5), (1, 3, 2), (1, 1, 1)])
def test_logits_have_the_size_of_any_3d_input(name, shape, strides):
    network = make_network(name, make_plan(3, strides)).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, NUM_INPUTS, *shape))
    assert logits.shape == (1, NUM_OUTPUTS, *shape)
    assert logits.isfinite().all()


@pytest.mark.parametrize("shape", [(16, 16), (37, 21), (1, 3), (1, 1)])
def test_logits_have_the_size_of_any_2d_input(name, shape):
    network = make_network(name, make_plan(2)).eval()
    with torch.no_grad():
        logits = network(torch.randn(2, NUM_INPUTS, *shape))
    assert logits.shape == (2, NUM_OUTPUTS, *shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_odd_sizes_can_be_trained_on(name, dims):
    network = make_network(name, make_plan(dims)).train()
    logits = network(torch.randn(2, NUM_INPUTS, *(9, 7, 5)[:dims]))
    assert logits.shape[2:] == (9, 7, 5)[:dims]
    logits.square().mean().backward()
    assert all(w.grad.isfinite().all() for w in network.parameters())


@pytest.mark.parametrize("deep_supervision", [False, True], ids=["single", "deep_supervision"])
@pytest.mark.parametrize(("dims", "strides"), [(2, ISOTROPIC), (3, THICK_SLICES)])
def test_the_loss_reaches_every_parameter(name, dims, strides, deep_supervision):
    plan = make_plan(dims, strides, deep_supervision=deep_supervision)
    network = make_network(name, plan).train()
    shape = (32, 32, 16)[:dims]
    loss = DeepSupervision(build_loss("dice_ce", num_outputs=NUM_OUTPUTS, ignore_index=None))
    label = torch.randint(0, NUM_OUTPUTS, (2, *shape))
    loss(network(torch.randn(2, NUM_INPUTS, *shape)), label).backward()
    still = [n for n, w in network.named_parameters() if w.grad is None or not w.grad.any()]
    # A bias before a normalisation changes nothing, so its gradient is round-off at most.
    assert [n for n in still if not n.endswith("bias")] == []
    assert [n for n, w in network.named_parameters() if w.grad is None] == []


def test_a_family_is_known_to_have_coarser_outputs_by_its_weights(name):
    plan = make_plan(2, deep_supervision=True)
    logits = make_network(name, plan).train()(torch.randn(2, NUM_INPUTS, 32, 32))
    known = has_coarser_outputs(name, plan=plan, settings=NARROW.get(name, {}))
    assert known == isinstance(logits, tuple)


def test_of_several_outputs_the_first_is_the_one_that_predicts(name):
    network = make_network(name, make_plan(2, deep_supervision=True))
    x = torch.randn(2, NUM_INPUTS, 32, 32)
    # All that tells training from prediction is held still.
    network.train()
    for layer in network.modules():
        if not list(layer.children()) and isinstance(layer, nn.modules.batchnorm._BatchNorm | Drop):
            layer.eval()
    with torch.no_grad():
        logits = network(x)
        levels = logits if isinstance(logits, tuple) else (logits,)
        assert torch.allclose(levels[0], network.eval()(x), atol=1e-5)
    sizes = [level.shape[2] for level in levels]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("dims", [2, 3])
def test_weights_move_to_another_network_and_give_the_same_logits(name, dims, tmp_path):
    first, second = (make_network(name, make_plan(dims)) for _ in range(2))
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(torch.randn_like(weight) * 0.01)
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    x = torch.randn(1, NUM_INPUTS, *(16, 16, 16)[:dims])
    with torch.no_grad():
        assert torch.equal(first.eval()(x), second.eval()(x))


def test_evaluation_repeats_itself_and_returns_one_tensor(name):
    network = make_network(name, make_plan(3, deep_supervision=True)).eval()
    x = torch.randn(1, NUM_INPUTS, 16, 16, 16)
    with torch.no_grad():
        first, second = network(x), network(x)
    assert isinstance(first, Tensor)
    assert torch.equal(first, second)


@pytest.mark.parametrize(("num_inputs", "num_outputs"), [(1, 7), (3, 2)])
def test_channels_and_outputs_are_those_asked_for(name, num_inputs, num_outputs):
    network = build_model(
        name,
        plan=make_plan(2),
        num_inputs=num_inputs,
        num_outputs=num_outputs,
        settings=NARROW.get(name, {}),
    ).eval()
    assert network(torch.randn(1, num_inputs, 16, 16)).shape == (1, num_outputs, 16, 16)


@pytest.mark.parametrize("dims", [2, 3])
def test_dropout_drops_features_and_never_a_whole_scan(name, dims):
    wrong = nn.Dropout3d if dims == 2 else nn.Dropout2d
    layers = list(make_network(name, make_plan(dims)).modules())
    assert not [layer for layer in layers if isinstance(layer, wrong)]


def test_an_unknown_setting_is_refused_naming_those_that_exist(name):
    with pytest.raises(ConfigError, match=r"no setting 'nrom'.*it takes "):
        build_model(
            name, plan=make_plan(), num_inputs=1, num_outputs=2, settings={"nrom": "instance"}
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here")
@pytest.mark.parametrize("dims", [2, 3])
def test_a_gpu_gives_the_logits_of_the_cpu(name, dims):
    network = make_network(name, make_plan(dims, THICK_SLICES)).eval()
    x = torch.randn(2, NUM_INPUTS, *(37, 21, 18)[:dims])
    # TF32 keeps ten bits of a number, which is no error of the network.
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        on_cpu = network(x)
        on_gpu = network.cuda()(x.cuda()).cpu()
    assert (on_cpu - on_gpu).abs().max() <= 1e-4 * on_cpu.abs().max().clamp(min=1)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_two_scans_can_be_learned_by_heart(name, dims):
    network = make_network(name, make_plan(dims), SHALLOW)
    assert dice_learned_by_heart(network, *two_scans((32, 32, 16)[:dims])) > 0.95


def dice_learned_by_heart(network: nn.Module, x: Tensor, label: Tensor) -> float:
    """Train with the default loss and optimizer until the Dice is above 0.95, and return it."""
    loss = DeepSupervision(build_loss("dice_ce", num_outputs=NUM_OUTPUTS, ignore_index=None))
    adamw = OmegaConf.to_container(OmegaConf.load(CONF / "optimizer" / "adamw.yaml"))
    optimizer = build(adamw, params=network.parameters())
    dice = 0.0
    for _ in range(MOST_STEPS // STEPS_BETWEEN_LOOKS):
        network.train()
        for _ in range(STEPS_BETWEEN_LOOKS):
            optimizer.zero_grad()
            loss(network(x), label).backward()
            optimizer.step()
        with torch.no_grad():
            dice = worst_dice(network.eval()(x).argmax(1), label)
        if dice > 0.95:
            break
    return dice


def worst_dice(predicted: Tensor, label: Tensor) -> float:
    scores = []
    for index in range(1, NUM_OUTPUTS):
        both = ((predicted == index) & (label == index)).sum()
        size = (predicted == index).sum() + (label == index).sum()
        scores.append(float(2 * both / size))
    return min(scores)


def two_scans(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two noisy scans of a large and a small ball, at different places."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij"))
    scans, labels = [], []
    for shift in (0, 4):
        label = torch.zeros(shape, dtype=torch.int64)
        for index, (centre, radius) in enumerate([(8 + shift, 5), (22, 4)], start=1):
            middle = torch.tensor([centre, centre, 8][: len(shape)]).view(-1, *[1] * len(shape))
            label[((grid - middle) ** 2).sum(0) <= radius**2] = index
        noise = torch.randn(NUM_INPUTS, *shape, generator=generator)
        scans.append(label.float() / math.sqrt(2) + 0.3 * noise)
        labels.append(label)
    return torch.stack(scans), torch.stack(labels)
