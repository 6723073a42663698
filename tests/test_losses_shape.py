"""Losses that look at distances and skeletons, against brute force, MONAI and their papers.

Axes: B batch, L label (0 is background), IJK voxels.
"""

import numpy as np
import pytest
import torch
from monai.losses import HausdorffDTLoss, SoftclDiceLoss
from torch import Tensor
from torch.nn import functional

from medseg.losses.comparison import Comparison, compare
from medseg.losses.distance import signed_distances
from medseg.losses.registry import build_loss
from medseg.losses.skeleton import soft_skeleton

# Weights with which only the term itself is left of a loss.
ALONE = {"dice_weight": 0.0, "ce_weight": 0.0}


def seen(label: Tensor, *, num_outputs: int, ignore_index: int | None = None) -> Comparison:
    logits = torch.zeros(len(label), num_outputs, *label.shape[1:])
    return compare(logits, label, ignore_index=ignore_index, annotated_BL=None)


def brute_distances(label: np.ndarray, index: int, edges: tuple[float, ...]) -> np.ndarray:
    """Try every pair of voxels; 9 is a voxel to ignore."""
    known = np.argwhere(label != 9)
    found = np.zeros(label.shape)
    for voxel in np.argwhere(label != 9):
        inside = label[tuple(voxel)] == index
        others = [v for v in known if (label[tuple(v)] == index) != inside]
        if others:
            nearest = min(np.linalg.norm((v - voxel) * edges) for v in others)
            found[tuple(voxel)] = -nearest if inside else nearest
    return found


@pytest.mark.parametrize("shape", [(6, 5), (5, 4, 3)])
@pytest.mark.parametrize("ignored", [False, True])
def test_distances_are_those_to_the_nearest_known_voxel_of_the_other_side(rng, shape, ignored):
    label = rng.integers(0, 3, shape) * (rng.random(shape) < 0.4)
    if ignored:
        label[rng.random(shape) < 0.3] = 9
    edges = (1.0, 0.5, 3.0)
    own = signed_distances(
        seen(torch.from_numpy(label)[None], num_outputs=3, ignore_index=9), edges
    )
    for index in (1, 2):
        expected = brute_distances(label, index, edges[: len(shape)])
        assert np.allclose(own[0, index - 1].numpy()[label != 9], expected[label != 9])


def test_a_class_without_an_edge_has_no_distances():
    label = torch.stack([torch.ones(4, 4, dtype=torch.int64), torch.zeros(4, 4, dtype=torch.int64)])
    assert not signed_distances(seen(label, num_outputs=2), None).any()


def test_the_boundary_loss_is_half_the_squared_distance_between_two_flat_edges():
    # Kervadec et al., equation 5: the loss approximates the integral of squared distances between
    # two boundaries. A wall at 8, predicted at 8 + d: phi of the d wrong voxels is 1, 2, ..., d.
    label = torch.zeros(1, 20, 4, dtype=torch.int64)
    label[:, :8] = 1
    for d in (1, 3, 6):
        logits = torch.zeros(1, 2, 20, 4)
        logits[:, 1] = torch.where(torch.arange(20) < 8 + d, 50.0, -50.0)[None, :, None]
        loss = build_loss(
            "boundary",
            num_outputs=2,
            ignore_index=None,
            spacing_mm=(2.0, 1.0, 1.0),
            settings={"boundary_weight": 1.0, **ALONE},
        )(logits, label)
        assert loss.item() == pytest.approx(2.0 * d * (d + 1) / 2 / 20, rel=1e-5)


def test_a_far_error_costs_more_than_a_near_one_of_the_same_volume():
    label = torch.zeros(1, 24, 24, dtype=torch.int64)
    label[:, 2:6, 2:6] = 1

    def cost(name: str, start: int) -> float:
        wrong = label.clone()
        wrong[:, start : start + 2, 2:6] = 1
        logits = functional.one_hot(wrong, 2).movedim(-1, 1) * 50.0
        return build_loss(name, num_outputs=2, ignore_index=None, settings=ALONE)(
            logits, label
        ).item()

    for name in ("boundary", "hausdorff_dt"):
        assert cost(name, 20) > 3 * cost(name, 6)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(7, 6), (6, 5, 4)])
def test_the_hausdorff_term_is_monais_where_every_class_has_an_edge(alpha, shape):
    generator = torch.Generator().manual_seed(4)
    label = torch.randint(0, 3, (2, *shape), generator=generator)
    logits = torch.randn(2, 3, *shape, generator=generator) * 3
    ours = build_loss(
        "hausdorff_dt",
        num_outputs=3,
        ignore_index=None,
        settings={"hausdorff_weight": 1.0, "alpha": alpha, **ALONE},
    )(logits, label)
    theirs = HausdorffDTLoss(alpha=alpha, to_onehot_y=True, softmax=True)(logits, label[:, None])
    assert torch.allclose(ours, theirs, rtol=1e-4)


def test_a_false_positive_in_a_scan_without_the_class_costs_by_the_hausdorff_term():
    logits = torch.full((1, 2, 9, 9), -9.0)
    logits[:, 0], logits[:, 1, 3:5, 3:5] = 0.0, 9.0
    logits.requires_grad_()
    loss = build_loss("hausdorff_dt", num_outputs=2, ignore_index=None, settings=ALONE)(
        logits, torch.zeros(1, 9, 9, dtype=torch.int64)
    )
    loss.backward()
    assert loss > 0
    assert (logits.grad[:, 1, 3:5, 3:5] > 0).all()


def brute_skeleton(mask: np.ndarray, iterations: int) -> np.ndarray:
    """Erode across faces and dilate with the whole neighbourhood, voxel by voxel, on sets."""
    voxels = [tuple(v) for v in np.ndindex(*mask.shape)]
    near = {
        v: [w for w in voxels if all(abs(a - b) <= 1 for a, b in zip(v, w, strict=True))]
        for v in voxels
    }
    cross = {
        v: [w for w in near[v] if sum(abs(a - b) for a, b in zip(v, w, strict=True)) <= 1]
        for v in voxels
    }
    shape = {v for v in voxels if mask[v]}
    found: set[tuple[int, ...]] = set()
    for _ in range(iterations + 1):
        eroded = {v for v in shape if all(w in shape for w in cross[v])}
        opened = {v for v in voxels if any(w in eroded for w in near[v])}
        found |= shape - opened
        shape = eroded
    return np.array([v in found for v in voxels]).reshape(mask.shape)


@pytest.mark.parametrize("shape", [(12, 11), (8, 7, 6)])
def test_the_skeleton_of_a_mask_is_that_of_set_morphology(rng, shape):
    mask = rng.random(shape) < 0.8
    own = soft_skeleton(torch.from_numpy(mask)[None, None].float(), None, iterations=3)
    assert np.array_equal(own[0, 0].numpy() > 0.5, brute_skeleton(mask, 3))


def test_the_skeleton_of_a_bar_is_its_middle_line():
    bar = torch.zeros(1, 1, 15, 9)
    bar[..., 1:14, 2:7] = 1
    skeleton = soft_skeleton(bar, None, iterations=3)[0, 0]
    assert skeleton[4:11, 4].all()
    assert not skeleton[4:11, [2, 3, 5, 6]].any()


@pytest.mark.parametrize("shape", [(9, 8), (7, 6, 5)])
def test_cldice_of_one_scan_and_class_is_monais(shape):
    generator = torch.Generator().manual_seed(5)
    label = (torch.rand((1, *shape), generator=generator) < 0.6).long()
    logits = torch.randn(1, 2, *shape, generator=generator) * 2
    ours = build_loss(
        "cldice", num_outputs=2, ignore_index=None, settings={"cldice_weight": 1.0, **ALONE}
    )(logits, label)
    # Its constants differ: ours has none in the harmonic mean, where the paper has none either.
    theirs = SoftclDiceLoss(
        iter_=3,
        smooth=1e-12,
        smooth_nr=1.0,
        smooth_dr=1.0,
        to_onehot_y=True,
        softmax=True,
        include_background=False,
    )(logits, label[:, None])
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_cldice_sees_a_gap_in_a_tube_that_dice_hardly_sees():
    label = torch.zeros(1, 40, 9, dtype=torch.int64)
    label[:, 2:38, 2:7] = 1
    thinner, broken = label.clone(), label.clone()
    thinner[:, 2:38, 2] = 0
    broken[:, 18:24, 2:7] = 0  # fewer voxels than the rim above, but the tube is in two

    def cost(name: str, mask: Tensor) -> float:
        logits = functional.one_hot(mask, 2).movedim(-1, 1) * 50.0
        settings = {} if name == "dice" else ALONE
        return build_loss(name, num_outputs=2, ignore_index=None, settings=settings)(
            logits, label
        ).item()

    assert cost("dice", broken) < cost("dice", thinner)
    assert cost("cldice", broken) > 3 * cost("cldice", thinner)


def test_class_weights_by_rule_are_one_over_the_share_or_its_root():
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(2, 3, 5, 5, generator=generator)
    label = torch.randint(0, 3, (2, 5, 5), generator=generator)
    share = [0.96, 0.04, 0.0]  # the last class is in no case: it weighs as the rarest
    for rule, weights in (
        ("inverse_sqrt", [1 / 0.96**0.5, 5.0, 5.0]),
        ("inverse", [1 / 0.96, 25, 25]),
    ):
        ours = build_loss(
            "ce",
            num_outputs=3,
            ignore_index=None,
            class_share=share,
            settings={"class_weights": rule},
        )(logits, label)
        theirs = functional.cross_entropy(logits, label, torch.tensor(weights))
        assert torch.allclose(ours, theirs, rtol=1e-5)
