"""The loss that tells objects apart: zero at the truth, blind where nobody looked."""

import pytest
import torch
from drawn_objects import rows_of, whole_centre_targets

from medseg.core.objects import Centres, Components, Distances
from medseg.losses.deep_supervision import DeepSupervision
from medseg.losses.registry import build_loss
from medseg.training.object_loss import ObjectLoss
from medseg.transforms.object_targets import depth_targets

EDGES = (1.0, 2.0)


def maps():
    ids = torch.zeros((2, 12, 10), dtype=torch.int64)
    ids[0, 2:6, 2:7], ids[0, 6:10, 2:7], ids[1, 1:4, 1:4] = 3, 8, 3
    return (ids > 0).long(), ids


def loss_of(way, **settings):
    classes = DeepSupervision(
        build_loss("ce", num_outputs=2, ignore_index=settings.get("ignore_index"))
    )
    return ObjectLoss(classes=classes, num_classes=2, way=way, things=(1,), edges=EDGES, **settings)


def true_heads(way, ids):
    if isinstance(way, Distances):
        return depth_targets(ids, edges=EDGES)[:, None]
    heat, offset = whole_centre_targets(ids, edges=EDGES, sigma_share=way.sigma_share)
    return torch.cat([heat[:, None], offset / way.unit_vox], dim=1)


def logits_of(label, heads):
    classes = 50 * torch.nn.functional.one_hot(label.clamp(max=1), 2).permute(0, 3, 1, 2).float()
    return torch.cat([classes, heads], dim=1)


def told(ids, **known):
    """What a batch brings along beside its label map."""
    return {"ids_BIJK": ids, "objects_BM5": rows_of(ids, EDGES), **known}


WAYS = [Centres(), Distances()]


@pytest.mark.parametrize("way", WAYS)
def test_the_truth_costs_nothing_and_an_error_costs_its_weight(way):
    label, ids = maps()
    heads = true_heads(way, ids)
    loss = loss_of(way)
    assert float(loss(logits_of(label, heads), label, **told(ids))) == pytest.approx(0, abs=1e-6)
    wrong = heads.clone()
    wrong[:, 0] += 0.5
    weight = way.heat_weight if isinstance(way, Centres) else way.distance_weight
    assert float(loss(logits_of(label, wrong), label, **told(ids))) == pytest.approx(
        weight * 0.25, rel=1e-5
    )


def test_offsets_count_inside_objects_only():
    way, (label, ids) = Centres(), maps()
    heads = true_heads(way, ids)
    heads[:, 1:] += torch.where(ids > 0, 0, 99)[:, None]
    assert float(loss_of(way)(logits_of(label, heads), label, **told(ids))) == pytest.approx(
        0, abs=1e-6
    )
    heads[:, 2] += 0.25
    assert float(loss_of(way)(logits_of(label, heads), label, **told(ids))) == pytest.approx(
        0.25, rel=1e-5
    )


@pytest.mark.parametrize("way", WAYS)
def test_ignored_voxels_and_unannotated_patches_say_nothing(way):
    label, ids = maps()
    heads = true_heads(way, ids)
    heads[0, :, 0, :] += 1
    ignored = label.clone()
    ignored[0, 0] = 2
    loss = loss_of(way, ignore_index=2)
    assert float(loss(logits_of(ignored, heads), ignored, **told(ids))) == pytest.approx(
        0, abs=1e-6
    )
    annotated = torch.tensor([[True, False], [True, True]])
    assert float(loss_of(way)(logits_of(label, heads), label, **told(ids))) > 0.01
    seen = loss_of(way)(logits_of(label, heads), label, **told(ids, annotated_BL=annotated))
    assert float(seen) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_an_object_of_which_a_part_is_ignored_says_nothing_about_its_centre_or_depth(way):
    label, ids = maps()
    truth = logits_of(label, true_heads(way, ids))
    scribbled, drawn = label.clone(), ids.clone()
    scribbled[0, 2:6, 2:5], drawn[0, 2:6, 2:5] = 2, 0
    loss = loss_of(way, ignore_index=2)
    assert float(loss(truth, scribbled, **told(drawn))) == pytest.approx(0, abs=1e-6)
    # The untouched ones still do.
    wrong = truth.clone()
    wrong[1, 2] += 1
    assert float(loss(wrong, scribbled, **told(drawn))) > 0.01


def test_an_object_that_is_ignored_beyond_the_patch_says_nothing_about_its_centre():
    way, (label, ids) = Centres(), maps()
    wrong = true_heads(way, ids)
    wrong[0] += 1
    rows = rows_of(ids, EDGES)
    logits, loss = logits_of(label, wrong), loss_of(way, ignore_index=2)
    assert float(loss(logits, label, ids, rows)) > 0.1
    rows[0, :, 4] = 0
    inside = torch.where((ids > 0)[:, None], logits, logits_of(label, true_heads(way, ids)))
    assert float(loss(inside, label, ids, rows)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_drawn_objects_teach_even_where_other_things_were_not_annotated(way):
    label, ids = maps()
    heads = true_heads(way, ids)
    loss = ObjectLoss(
        classes=lambda *_, **__: torch.zeros(()), num_classes=3, way=way, things=(1, 2), edges=EDGES
    )
    partly = torch.tensor([[True, True, False]] * 2)
    logits = torch.cat([torch.zeros(2, 3, 12, 10), heads], dim=1)
    assert float(loss(logits, label, **told(ids, annotated_BL=partly))) == pytest.approx(
        0, abs=1e-6
    )
    inside, outside = (
        torch.where((ids > 0)[:, None] == side, logits + 1, logits) for side in (True, False)
    )
    assert float(loss(inside, label, **told(ids, annotated_BL=partly))) > 0.1
    # Outside there may be a thing of the other class.
    assert float(loss(outside, label, **told(ids, annotated_BL=partly))) == pytest.approx(
        0, abs=1e-6
    )


def test_of_a_tuple_the_finest_is_asked_about_objects_and_all_about_classes():
    way, (label, ids) = Distances(), maps()
    fine = logits_of(label, true_heads(way, ids))
    coarse = torch.cat([torch.zeros((2, 2, 6, 5)), 99 * torch.ones((2, 1, 6, 5))], dim=1)
    classes = loss_of(way).classes((fine[:, :2], coarse[:, :2]), label)
    assert float(loss_of(way)((fine, coarse), label, **told(ids))) == pytest.approx(float(classes))


def test_components_cost_what_classes_cost():
    label, ids = maps()
    logits = torch.randn((2, 2, 12, 10), generator=torch.Generator().manual_seed(0))
    loss = loss_of(Components())
    assert loss(logits, label, **told(ids)) == loss.classes(logits, label)


@pytest.mark.parametrize("way", WAYS)
def test_every_channel_of_a_way_gets_a_gradient(way):
    label, ids = maps()
    heads = true_heads(way, ids) + 0.1
    logits = logits_of(label, heads).requires_grad_()
    torch.autograd.backward(loss_of(way)(logits, label, **told(ids)))
    assert (logits.grad[:, 2:].abs().sum(dim=(0, 2, 3)) > 0).all()
