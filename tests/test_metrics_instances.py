"""Object scores against brute force, published formulas and cases counted by hand."""

from itertools import permutations

import numpy as np
import pytest
from scipy import ndimage

from medseg.core.labels import LabelSet
from medseg.metrics.instances import Detection, detect, pooled
from medseg.metrics.lesions import count_lesions
from medseg.metrics.matching import find_contacts, match
from medseg.metrics.objects import object_measures, pool_objects, score_objects


def scattered(rng, num=6, size=14):
    """Random boxes that overlap, later ones over earlier ones; ids are not consecutive."""
    ids = np.zeros((size, size, 1), np.int32)
    for number in rng.permutation(num):
        i, j = rng.integers(0, size - 3, 2)
        height, width = rng.integers(2, 7, 2)
        ids[i : i + height, j : j + width] = 1 + 3 * number
    return ids


def shifted(ids, rng):
    """The same objects moved, eaten at, and some gone."""
    moved = np.roll(ids, rng.integers(-1, 2, 2), axis=(0, 1))
    gone = rng.choice(np.unique(ids), 1)
    return np.where((rng.random(ids.shape) < 0.15) | (moved == gone), 0, moved)


def brute_iou(prediction, reference):
    return {
        (p, r): ((prediction == p) & (reference == r)).sum()
        / ((prediction == p) | (reference == r)).sum()
        for p in np.unique(prediction[prediction > 0])
        for r in np.unique(reference[reference > 0])
    }


def brute_best(iou, threshold):
    """Most pairs, then most IoU, over all one-to-one assignments."""
    rows, columns = sorted({p for p, _ in iou}), sorted({r for _, r in iou})
    if len(rows) > len(columns):
        rows, columns, iou = columns, rows, {(r, p): value for (p, r), value in iou.items()}
    best = (0, 0.0)
    for order in permutations(columns, len(rows)):
        kept = [iou[pair] for pair in zip(rows, order, strict=True) if iou[pair] > threshold]
        best = max(best, (len(kept), sum(kept)))
    return best


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(8))
def test_matching_is_the_best_of_all_assignments(seed, threshold):
    rng = np.random.default_rng(seed)
    reference = scattered(rng)
    prediction = shifted(reference, rng) if seed % 2 else scattered(rng)
    contacts = find_contacts(prediction, reference)
    chosen = match(contacts, threshold)
    assert (
        len(set(contacts.predicted[chosen])) == len(chosen) == len(set(contacts.referenced[chosen]))
    )
    num, iou_sum = brute_best(brute_iou(prediction, reference), threshold)
    assert len(chosen) == num
    assert contacts.iou[chosen].sum() == pytest.approx(iou_sum)


def test_scores_are_the_published_fractions():
    one = Detection(num_prediction=7, num_reference=6, num_matched=4, iou_sum=3.0)
    tp, fp, fn = 4, 3, 2
    assert one.ap == tp / (tp + fp + fn)
    assert one.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert one.pq == pytest.approx(3.0 / (tp + fp / 2 + fn / 2))
    assert one.pq == pytest.approx(one.sq * one.rq)


def test_objects_on_one_side_score_zero_and_on_neither_nothing():
    none, some = np.zeros((4, 4, 1), int), np.ones((4, 4, 1), int)
    for pair in ((none, some), (some, none)):
        one = detect(find_contacts(*pair), 0.5)
        assert (one.ap, one.f1, one.pq, one.rq) == (0, 0, 0, 0)
        assert np.isnan(one.sq)
        assert count_lesions(find_contacts(*pair)).dice == 0
    neither = find_contacts(none, none)
    assert np.isnan([detect(neither, 0.5).ap, detect(neither, 0.5).pq]).all()
    assert np.isnan(count_lesions(neither).dice)


def test_an_object_in_two_halves_is_a_miss_and_two_inventions_at_half_and_one_pair_below():
    reference, prediction = np.ones((1, 8, 1), int), np.ones((1, 8, 1), int)
    prediction[:, 4:] = 2
    contacts = find_contacts(prediction, reference)
    # IoU of each half is exactly 0.5, which does not exceed 0.5.
    assert detect(contacts, 0.5).num_matched == 0
    assert detect(contacts, 0.49).num_matched == 1
    lesions = count_lesions(contacts)
    assert (lesions.num_found, lesions.num_missed, lesions.num_false) == (1, 0, 0)
    assert lesions.dice == 1


def test_lesions_counted_by_hand():
    reference = np.zeros((20, 1, 1), int)
    reference[0:4], reference[6:8], reference[10:12] = 1, 2, 3
    prediction = np.zeros_like(reference)
    prediction[2:4], prediction[7:9], prediction[15:16] = 1, 2, 3
    lesions = count_lesions(find_contacts(prediction, reference))
    assert (lesions.num_found, lesions.num_missed, lesions.num_false) == (2, 1, 1)
    # 2*2/(4+2) and 2*1/(2+2), over two found, one missed, one false.
    assert lesions.dice == pytest.approx((4 / 6 + 1 / 2) / 4)
    assert lesions.recall == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(4))
def test_lesion_dice_is_what_masks_piece_by_piece_give(seed):
    rng = np.random.default_rng(seed)
    drawn, _ = ndimage.label(rng.random((12, 12, 3)) < 0.12)
    found, _ = ndimage.label(rng.random((12, 12, 3)) < 0.12)
    dice, num_false = [], 0
    for r in range(1, drawn.max() + 1):
        joined = np.isin(found, np.setdiff1d(found[drawn == r], 0))
        total = joined.sum() + (drawn == r).sum()
        dice.append(2 * (joined & (drawn == r)).sum() / total)
    for p in range(1, found.max() + 1):
        num_false += not drawn[found == p].any()
    lesions = count_lesions(find_contacts(found, drawn))
    assert lesions.num_false == num_false
    assert lesions.dice == pytest.approx(np.sum(dice) / (len(dice) + num_false))


def cells_in_tissue(ignore_value=None):
    return LabelSet.from_json(
        {
            "labels": [
                {"name": "tissue", "values": 1},
                {"name": "cell", "values": 2, "kind": "thing"},
            ],
            "ignore_value": ignore_value,
        }
    )


def test_stuff_is_one_segment_and_things_are_told_apart():
    classes = np.ones((6, 6, 1), np.uint8)
    classes[0:2, 0:2], classes[4:6, 4:6] = 2, 2
    ids = np.zeros(classes.shape, np.int32)
    ids[0:2, 0:2], ids[4:6, 4:6] = 1, 2
    merged = (ids > 0).astype(np.int32)
    tissue, cell = score_objects((classes, merged), (classes, ids), labels=cells_in_tissue())
    assert (tissue.panoptic.num_reference, tissue.panoptic.pq) == (1, 1)
    # One predicted object covers both: IoU 4 / 8 with each, which does not exceed a half.
    assert (cell.panoptic.num_prediction, cell.panoptic.num_reference, cell.panoptic.pq) == (
        1,
        2,
        0,
    )
    assert (cell.lesions.num_found, cell.lesions.num_false) == (2, 0)


def test_ignored_voxels_belong_to_nobody_and_objects_mostly_there_are_no_fault():
    reference = np.zeros((10, 1, 1), np.uint8)
    reference[0:4], reference[6:10] = 2, 3
    prediction = np.zeros_like(reference)
    prediction[0:4], prediction[5:10] = 2, 2
    ids = np.zeros(reference.shape, np.int32)
    ids[0:4], ids[5:10] = 1, 2
    labels = cells_in_tissue(ignore_value=9)
    _, cell = score_objects(
        (prediction, ids), (reference, np.where(reference == 2, 1, 0)), labels=labels
    )
    assert (cell.panoptic.num_prediction, cell.panoptic.pq) == (1, 1)


def test_objects_seen_through_scribbles_alone_are_found_and_stuff_is_whole():
    labels = cells_in_tissue(ignore_value=9)
    ids = np.zeros((60, 12, 1), np.int32)
    for number, row in enumerate(range(0, 60, 10), start=1):
        ids[row : row + 8, 2:10] = number
    truth = np.where(ids > 0, 2, 1).astype(np.uint8)
    # Of every cell and of the tissue, one voxel in eight was looked at.
    reference = np.where(np.arange(60)[:, None, None] % 8 == 0, truth, 3).astype(np.uint8)
    drawn = np.where(reference == 2, ids, 0)
    tissue, cell = score_objects((truth, ids), (reference, drawn), labels=labels)
    assert (tissue.panoptic.num_matched, tissue.panoptic.pq) == (1, 1)
    assert cell.panoptic.num_reference == cell.panoptic.num_matched > 3
    assert (cell.panoptic.pq, cell.lesions.num_missed, cell.lesions.num_false) == (1, 0, 0)


def panoptic_of_the_paper(predicted, drawn, ignored):
    """Kirillov et al., section 4.1, pair by pair."""
    matched, iou_sum, forgiven = [], 0.0, 0
    ids = [p for p in np.unique(predicted[predicted > 0]) if ((predicted == p) & ~ignored).any()]
    for p in ids:
        mask = (predicted == p) & ~ignored
        for r in np.unique(drawn[mask & (drawn > 0)]):
            own = drawn == r
            iou = (mask & own).sum() / (mask | own).sum()
            if iou > 0.5:
                matched.append(p)
                iou_sum += iou
    for p in ids:
        share = ignored[predicted == p].mean()
        forgiven += p not in matched and share > 0.5
    return len(matched), len(ids) - forgiven, iou_sum


@pytest.mark.parametrize("seed", range(12))
def test_ignored_voxels_count_as_in_the_paper(seed):
    rng = np.random.default_rng(seed)
    drawn, _ = ndimage.label(rng.random((14, 14, 1)) < 0.45)
    predicted, _ = ndimage.label((rng.random((14, 14, 1)) < 0.1) ^ (drawn > 0))
    ignored = ndimage.binary_dilation(rng.random((14, 14, 1)) < 0.05, iterations=2)
    reference = np.where(ignored, 3, np.where(drawn > 0, 2, 0)).astype(np.uint8)
    drawn = np.where(ignored, 0, drawn)
    _, cell = score_objects(
        (np.where(predicted > 0, 2, 0).astype(np.uint8), predicted),
        (reference, drawn),
        labels=cells_in_tissue(ignore_value=9),
    )
    num_matched, num_prediction, iou_sum = panoptic_of_the_paper(predicted, drawn, ignored)
    found = cell.panoptic
    assert (found.num_matched, found.num_prediction) == (num_matched, num_prediction)
    assert found.iou_sum == pytest.approx(iou_sum)


def test_classes_that_nobody_annotated_give_no_row():
    empty = np.zeros((2, 2, 1), np.uint8)
    scores = score_objects(
        (empty, empty), (empty, empty), labels=cells_in_tissue(), annotated=("cell",)
    )
    assert [one.class_name for one in scores] == ["cell"]


def test_pooled_scores_are_those_of_all_images_side_by_side(rng):
    labels = cells_in_tissue()
    rows, images = [], []
    for _ in range(3):
        reference = scattered(rng)
        prediction = shifted(reference, rng)
        images.append((prediction, reference))
        maps = [(np.where(ids > 0, 2, 0).astype(np.uint8), ids) for ids in images[-1]]
        rows.append(score_objects(*maps, labels=labels, thresholds=(0.3, 0.5))[1].to_row())
    whole = [
        np.concatenate([p[side] + 100 * n * (p[side] > 0) for n, p in enumerate(images)])
        for side in (0, 1)
    ]
    together = find_contacts(*whole)
    pool = pool_objects(rows, (0.3, 0.5))
    assert pool["ap_30"] == pytest.approx(detect(together, 0.3).ap)
    assert pool["pq"] == pytest.approx(detect(together, 0.5).pq)
    assert pool["num_missed"] == count_lesions(together).num_missed
    assert {*object_measures((0.3, 0.5))} <= set(rows[0])
    parts = [detect(find_contacts(*pair), 0.3) for pair in images]
    assert pooled(parts).pq == pytest.approx(detect(together, 0.3).pq)
