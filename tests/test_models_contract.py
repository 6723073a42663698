"""Every network keeps one contract: 2D and 3D, any strides, any input size."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from medseg.core.errors import ConfigError
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.losses.deep_supervision import DeepSupervision
from medseg.losses.registry import build_loss
from medseg.models.registry import build_model, model_names

NUM_INPUTS, NUM_OUTPUTS = 2, 3
ISOTROPIC = ((2, 2, 2), (2, 2, 2))
THICK_SLICES = ((2, 2, 1), (2, 2, 2))

# Transformers are tested at a size that trains within a test.
SMALL: dict[str, dict[str, object]] = {
    "swinunetr": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "unetr": {"hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
}

# MONAI's transformers need it, and medseg does not install it.
NEEDS_EINOPS = ("swinunetr", "unetr")


def make_plan(
    dims: int = 3,
    strides: tuple[tuple[int, int, int], ...] = ISOTROPIC,
    *,
    deep_supervision: bool = False,
) -> Plan:
    levels = [(s[0], s[1], s[2] if dims == 3 else 1) for s in strides]
    return Plan(
        dataset="phantoms",
        spatial_dims=dims,
        orientation="RAS",
        spacing_mm=(1.0, 1.0, 1.0),
        patch_vox=(16, 16, 16 if dims == 3 else 1),
        intensity=tuple(IntensityPlan(channel=c, scheme="zscore") for c in ("CT", "PET")),
        network=NetworkPlan(
            widths=(8, 16, 32),
            strides=tuple(levels),
            kernels=tuple((3, 3, 3 if dims == 3 else 1) for _ in range(3)),
            deep_supervision=deep_supervision,
        ),
        training=TrainingPlan(batch_size=2, num_steps=10),
        device="cpu",
    )


def make_network(name: str, plan: Plan) -> nn.Module:
    torch.manual_seed(0)
    return build_model(
        name,
        plan=plan,
        num_inputs=NUM_INPUTS,
        num_outputs=NUM_OUTPUTS,
        settings=SMALL.get(name, {}),
    )


def outputs_of(network: nn.Module, x: Tensor) -> Iterator[Tensor]:
    logits = network(x)
    yield from (logits,) if isinstance(logits, Tensor) else logits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are computed faster by one thread, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=model_names())
def name(request: pytest.FixtureRequest) -> str:
    if request.param in NEEDS_EINOPS:
        pytest.importorskip("einops", reason=f"model={request.param} needs einops")
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
    shapes = [
        tuple(out.shape[2:]) for out in outputs_of(network, torch.randn(2, 2, *(9, 7, 5)[:dims]))
    ]
    assert shapes[0] == (9, 7, 5)[:dims]


@pytest.mark.parametrize("deep_supervision", [False, True], ids=["single", "deep_supervision"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_loss_reaches_every_parameter(name, dims, deep_supervision):
    network = make_network(name, make_plan(dims, deep_supervision=deep_supervision)).train()
    shape = (32, 32, 16)[:dims]
    loss = DeepSupervision(build_loss("dice_ce", num_outputs=NUM_OUTPUTS, ignore_index=None))
    label = torch.randint(0, NUM_OUTPUTS, (2, *shape))
    loss(network(torch.randn(2, NUM_INPUTS, *shape)), label).backward()
    still = [n for n, w in network.named_parameters() if w.grad is None or not w.grad.any()]
    # A bias before a normalisation changes nothing, so its gradient is round-off at most.
    assert [n for n in still if not n.endswith("bias")] == []
    assert [n for n, w in network.named_parameters() if w.grad is None] == []


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
        settings=SMALL.get(name, {}),
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


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_two_scans_can_be_learned_by_heart(name, dims):
    shape = (32, 32, 16)[:dims]
    x, label = two_scans(shape)
    network = make_network(name, make_plan(dims)).train()
    loss = DeepSupervision(build_loss("dice_ce", num_outputs=NUM_OUTPUTS, ignore_index=None))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        outputs = tuple(outputs_of(network, x))
        if worst_dice(outputs[0].argmax(1), label) > 0.95:
            return
        loss(outputs, label).backward()
        optimizer.step()
    pytest.fail("Dice stayed under 0.95 for 400 steps")


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
