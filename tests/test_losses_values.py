"""Losses against MONAI's, torch's, and the formulas of their papers written out in NumPy.

Axes: B batch, L label (0 is background), IJK voxels.
"""

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, TverskyLoss
from torch import Tensor
from torch.nn import functional

from medseg.losses.registry import build_loss

NUM_OUTPUTS = 4


@pytest.fixture
def logits_BLIJK() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return (torch.randn(3, NUM_OUTPUTS, 6, 5, 4, generator=generator) * 2).requires_grad_()


@pytest.fixture
def label_BIJK() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(0, NUM_OUTPUTS, (3, 6, 5, 4), generator=generator)
    label[0][label[0] == 2] = 0  # a class that is absent from a scan
    return label


def evaluate(name: str, logits: Tensor, label: Tensor, **settings: object) -> Tensor:
    loss = build_loss(name, num_outputs=NUM_OUTPUTS, ignore_index=None, settings=settings)
    return loss(logits, label)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_dice_and_cross_entropy_and_their_gradient_are_monais(
    logits_BLIJK, label_BIJK, batch, squared
):
    ours = evaluate("dice_ce", logits_BLIJK, label_BIJK, batch_dice=batch, squared=squared)
    monai = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=batch, squared_pred=squared
    )
    theirs = monai(logits_BLIJK, label_BIJK[:, None])
    theirs = theirs + functional.cross_entropy(logits_BLIJK, label_BIJK)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(gradient(ours, logits_BLIJK), gradient(theirs, logits_BLIJK), atol=1e-6)


def test_the_terms_of_dice_ce_are_weighted(logits_BLIJK, label_BIJK):
    dice, ce = (evaluate(name, logits_BLIJK, label_BIJK) for name in ("dice", "ce"))
    both = evaluate("dice_ce", logits_BLIJK, label_BIJK, dice_weight=0.25, ce_weight=3)
    assert torch.allclose(both, 0.25 * dice + 3 * ce)


def test_class_weights_are_torchs(logits_BLIJK, label_BIJK):
    weights = [0.1, 1.0, 5.0, 2.0]
    ours = evaluate("ce", logits_BLIJK, label_BIJK, class_weights=weights)
    theirs = functional.cross_entropy(logits_BLIJK, label_BIJK, torch.tensor(weights))
    assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("batch", [False, True])
def test_tversky_is_monais(logits_BLIJK, label_BIJK, batch):
    ours = evaluate("tversky", logits_BLIJK, label_BIJK, alpha=0.2, beta=0.9, batch_dice=batch)
    theirs = TverskyLoss(
        include_background=False, to_onehot_y=True, softmax=True, alpha=0.2, beta=0.9, batch=batch
    )(logits_BLIJK, label_BIJK[:, None])
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["dice", "dice_ce", "dice_focal", "generalised_dice", "topk", "tversky"]
)
def test_slices_share_one_dice_a_batch_and_volumes_have_one_each(name, logits_BLIJK, label_BIJK):
    settings = {"dice_weight": 1.0} if name == "topk" else {}
    slices = logits_BLIJK[..., 0], label_BIJK[..., 0]
    for seen, shared in ((slices, True), ((logits_BLIJK, label_BIJK), False)):
        unasked = evaluate(name, *seen, **settings)
        assert torch.equal(unasked, evaluate(name, *seen, batch_dice=shared, **settings))
        assert not torch.equal(unasked, evaluate(name, *seen, batch_dice=not shared, **settings))


def test_tversky_of_two_halves_is_dice(logits_BLIJK, label_BIJK):
    halves = evaluate("tversky", logits_BLIJK, label_BIJK, alpha=0.5, beta=0.5, smooth=1e-6)
    assert torch.allclose(halves, evaluate("dice", logits_BLIJK, label_BIJK, smooth=2e-6))


def test_generalised_dice_is_the_formula_of_sudre(logits_BLIJK, label_BIJK):
    p = logits_BLIJK.detach().softmax(1).flatten(2).double().numpy()
    one_hot = np.stack([label_BIJK.flatten(1) == n for n in range(NUM_OUTPUTS)], 1).astype(float)
    losses = []
    for scan in range(1, 3):  # the scans in which all classes are present
        volume = one_hot[scan, 1:].sum(1)
        weight = 1 / volume**2
        both = (p[scan, 1:] * one_hot[scan, 1:]).sum(1)
        size = p[scan, 1:].sum(1) + volume
        losses.append(1 - 2 * (weight * both).sum() / (weight * size).sum())
    ours = evaluate("generalised_dice", logits_BLIJK[1:], label_BIJK[1:], smooth=0.0)
    assert ours.item() == pytest.approx(np.mean(losses), abs=1e-6)


def test_generalised_dice_is_pushed_away_from_a_class_that_is_absent(logits_BLIJK, label_BIJK):
    slope = gradient(evaluate("generalised_dice", logits_BLIJK, label_BIJK), logits_BLIJK)
    assert slope[0, 2].sum() > 0


def test_topk_is_the_mean_of_the_largest_entropies(logits_BLIJK, label_BIJK):
    each = functional.cross_entropy(logits_BLIJK, label_BIJK, reduction="none").flatten()
    hardest = each.sort(descending=True).values[:36].mean()  # a tenth of 3 x 6 x 5 x 4
    assert torch.allclose(evaluate("topk", logits_BLIJK, label_BIJK), hardest)
    assert torch.allclose(evaluate("topk", logits_BLIJK, label_BIJK, share=1), each.mean())


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
def test_focal_is_the_formula_of_lin(logits_BLIJK, label_BIJK, gamma):
    p = logits_BLIJK.detach().softmax(1).gather(1, label_BIJK[:, None]).double()
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    ours = evaluate("dice_focal", logits_BLIJK, label_BIJK, gamma=gamma, dice_weight=0.0)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["dice", "generalised_dice", "tversky"])
def test_a_scan_without_any_annotated_class_does_not_dilute_the_others(
    name, logits_BLIJK, label_BIJK
):
    loss = build_loss(name, num_outputs=NUM_OUTPUTS, ignore_index=None)
    annotated_BL = torch.tensor([[True] * NUM_OUTPUTS] * 3)
    annotated_BL[2, 1:] = False
    both = loss(logits_BLIJK, label_BIJK, annotated_BL=annotated_BL)
    alone = loss(logits_BLIJK[:2], label_BIJK[:2], annotated_BL=annotated_BL[:2])
    assert float(both.detach()) == pytest.approx(float(alone.detach()), rel=1e-5)
