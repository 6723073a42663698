"""Every loss skips what nobody labelled, survives extreme logits, and falls when a network learns.

Axes: B batch, L label (0 is background), IJK voxels (2D: IJ).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional

from medseg.core.errors import ConfigError
from medseg.losses.deep_supervision import DeepSupervision, resize_labels
from medseg.losses.registry import build_loss, loss_names, loss_settings

CONF = Path(__file__).parents[1] / "conf" / "loss"
NUM_OUTPUTS = 4
IGNORED = 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are computed faster by one thread, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=loss_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def logits_BLIJK() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, NUM_OUTPUTS, 6, 5, 4, generator=generator) * 2


@pytest.fixture
def label_BIJK() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, NUM_OUTPUTS, (2, 6, 5, 4), generator=generator)


def evaluate(name: str, logits: Tensor, label: Tensor, *annotated: Tensor) -> Tensor:
    return build_loss(name, num_outputs=NUM_OUTPUTS, ignore_index=IGNORED)(
        logits, label, *annotated
    )


def test_the_config_file_holds_every_setting_and_its_default(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert config == {"name": name, **loss_settings(name)}


def test_perfect_logits_cost_nothing_and_wrong_ones_do(name, label_BIJK):
    right = functional.one_hot(label_BIJK, NUM_OUTPUTS).movedim(-1, 1) * 50.0
    assert evaluate(name, right, label_BIJK) < 1e-4
    assert evaluate(name, right.roll(1, dims=1), label_BIJK) > 0.5


def test_a_slice_costs_what_a_volume_of_one_slice_does(name, logits_BLIJK, label_BIJK):
    logits, label = logits_BLIJK[:1], label_BIJK[:1]
    flat = evaluate(name, logits[..., 0], label[..., 0])
    assert torch.allclose(flat, evaluate(name, logits[..., :1], label[..., :1]))


def test_ignored_voxels_change_nothing_whatever_is_predicted_there(name, logits_BLIJK, label_BIJK):
    # The last slab is ignored in one batch and cut off in the other.
    label_BIJK[:, 4:] = IGNORED
    wild = logits_BLIJK.clone()
    wild[:, :, 4:] = 1e3
    wild.requires_grad_()
    ignored = evaluate(name, wild, label_BIJK)
    ignored.backward()
    cut = evaluate(name, logits_BLIJK[:, :, :4], label_BIJK[:, :4])
    assert torch.allclose(ignored, cut, atol=1e-6)
    assert not wild.grad[:, :, 4:].any()
    assert wild.grad[:, :, :4].any()


def test_what_is_found_where_nobody_labelled_costs_nothing(name):
    truth = torch.zeros(1, 6, 5, 4, dtype=torch.int64)
    truth[:, :4] = 1
    logits = functional.one_hot(truth, NUM_OUTPUTS).movedim(-1, 1) * 50.0
    label = truth.clone()
    label[:, 2:4] = IGNORED
    assert evaluate(name, logits, label) < 1e-4
    # The wrong treatment, unlabelled means background, punishes the right answer.
    assert evaluate(name, logits, torch.where(label == IGNORED, 0, label)) > 0.05


def test_a_batch_that_nobody_labelled_costs_nothing(name, logits_BLIJK, label_BIJK):
    logits_BLIJK.requires_grad_()
    loss = evaluate(name, logits_BLIJK, torch.full_like(label_BIJK, IGNORED))
    loss.backward()
    assert loss == 0
    assert not logits_BLIJK.grad.any()


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradient_stay_finite_at_extreme_logits(
    name, logits_BLIJK, label_BIJK, scale, kind
):
    logits = (logits_BLIJK * scale).clamp(-6e4, 6e4).to(kind).requires_grad_()
    label_BIJK[0] = 0
    loss = evaluate(name, logits, label_BIJK)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_under_bf16_autocast_the_loss_is_that_of_float32(name, logits_BLIJK, label_BIJK):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = evaluate(name, logits_BLIJK, label_BIJK)
    assert torch.equal(mixed, evaluate(name, logits_BLIJK, label_BIJK))


def test_any_integer_type_of_labels_gives_the_same_loss(name, logits_BLIJK, label_BIJK):
    wide = evaluate(name, logits_BLIJK, label_BIJK)
    for kind in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(evaluate(name, logits_BLIJK, label_BIJK.to(kind)), wide)


def test_descending_the_gradient_finds_the_labels(name, label_BIJK):
    logits = torch.zeros(2, NUM_OUTPUTS, 6, 5, 4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        evaluate(name, logits, label_BIJK).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), label_BIJK)


def test_full_annotation_is_the_same_as_no_word_about_it(name, logits_BLIJK, label_BIJK):
    told = evaluate(name, logits_BLIJK, label_BIJK, torch.ones(2, NUM_OUTPUTS, dtype=torch.bool))
    assert torch.allclose(told, evaluate(name, logits_BLIJK, label_BIJK), atol=1e-6)


def test_finding_an_organ_that_nobody_annotated_costs_nothing(name):
    truth = torch.zeros(1, 6, 5, 4, dtype=torch.int64)
    truth[:, :2], truth[:, 2:4] = 1, 2
    logits = functional.one_hot(truth, NUM_OUTPUTS).movedim(-1, 1) * 50.0
    label = torch.where(truth == 2, 0, truth)  # organ 2 was there, but nobody drew it
    annotated = torch.tensor([[True, True, False, True]])
    logits.requires_grad_()
    loss = evaluate(name, logits, label, annotated)
    loss.backward()
    assert loss < 1e-4
    assert logits.grad.abs().max() < 1e-4
    # The wrong treatment, unannotated means background, punishes the right answer.
    assert evaluate(name, logits, label) > 0.3


def test_partial_annotation_equals_a_network_that_has_only_the_annotated_classes(
    name, logits_BLIJK, label_BIJK
):
    # Classes 0 and 3 become one by adding their probabilities, by hand.
    p = logits_BLIJK.double().softmax(1)
    merged = torch.stack([p[:, 0] + p[:, 3], p[:, 1], p[:, 2]], dim=1).log().float()
    label = torch.where(label_BIJK == 3, 0, label_BIJK)
    small = build_loss(name, num_outputs=3, ignore_index=None)(merged, label)
    annotated = torch.tensor([[True, True, True, False]]).expand(2, -1)
    assert torch.allclose(evaluate(name, logits_BLIJK, label_BIJK, annotated), small, atol=1e-5)


def test_an_unknown_loss_or_setting_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"loss=dice_cee: no such loss; the nearest is dice_ce"):
        build_loss("dice_cee", num_outputs=2, ignore_index=None)
    with pytest.raises(ConfigError, match=r"no setting 'smoth'; the nearest is smooth"):
        build_loss("dice", num_outputs=2, ignore_index=None, settings={"smoth": 1})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ce", {"class_weights": [1, 2]}),
        ("ce", {"class_weights": [1, 2, -1, 1]}),
        ("ce", {"class_weights": "inverse_root"}),
        ("dice_ce", {"class_weights": "inverse_sqrt"}),  # nobody told the shares
        ("hausdorff_dt", {"alpha": 0.0}),
        ("cldice", {"iterations": -1}),
        ("topk", {"share": 0.0}),
        ("dice_focal", {"gamma": 0.5}),
        ("tversky", {"alpha": 0, "beta": 0}),
    ],
)
def test_a_setting_without_meaning_is_refused(name, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        build_loss(name, num_outputs=NUM_OUTPUTS, ignore_index=None, settings=settings)


def test_deep_supervision_weighs_each_level_half_as_much_as_the_one_before(
    logits_BLIJK, label_BIJK
):
    loss = build_loss("dice_ce", num_outputs=NUM_OUTPUTS, ignore_index=None)
    levels = (logits_BLIJK, logits_BLIJK[:, :, ::2], logits_BLIJK[:, :, ::3])
    own = [loss(x, resize_labels(label_BIJK, x.shape[2:])) for x in levels]
    expected = (4 * own[0] + 2 * own[1] + own[2]) / 7
    assert torch.allclose(DeepSupervision(loss)(levels, label_BIJK), expected)
    assert torch.equal(DeepSupervision(loss)(logits_BLIJK, label_BIJK), own[0])


@pytest.mark.parametrize("size", [(6, 5, 4), (3, 5, 2), (2, 3, 1), (5, 4, 3)])
def test_resized_labels_are_torchs_nearest_ones(label_BIJK, size):
    expected = functional.interpolate(label_BIJK[:, None].double(), size, mode="nearest-exact")
    assert torch.equal(resize_labels(label_BIJK, torch.Size(size)), expected[:, 0].long())
