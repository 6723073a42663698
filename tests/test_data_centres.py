"""Patches are aimed at voxels, classes or lesions as asked, each as often as it should be."""

from collections import Counter

import numpy as np
import pytest
import torch

from medseg.core.geometry import Geometry
from medseg.data.cache import CachedCase, prepare_cases
from medseg.data.case import Case
from medseg.data.centres import centres_of, find_lesions
from medseg.data.patches import PatchSampler
from medseg.transforms.chains import Prepared

SHAPE = (24, 24, 12)
NUM_DRAWS = 4000


def label_map() -> torch.Tensor:
    """Class 1: components of 512, 1 and 1 voxels; class 2: one of 8; 3 is to be ignored."""
    label = torch.zeros(SHAPE, dtype=torch.uint8)
    label[0:8, 0:8, 0:8] = 1
    label[20, 3, 3] = 1
    label[20, 20, 10] = 1
    label[12:14, 12:14, 2:4] = 2
    label[:, 23, :] = 3
    return label


@pytest.fixture
def cached(tmp_path) -> CachedCase:
    case = Case(case_id="a", patient_id="a", images={"MR": "a.nii"}, labels=("b.nii",))

    def prepare(_case: Case) -> Prepared:
        return Prepared(torch.zeros(1, *SHAPE), label_map(), Geometry(SHAPE, np.eye(4)))

    return prepare_cases([case], prepare, folder=tmp_path, recipe={"v": 1})[0]


def drawn(case: CachedCase, sampling, seed: int = 0) -> Counter[str]:
    """How often each of the four components is aimed at."""
    centres = centres_of(case, num_classes=2, sampling=sampling)
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    for _ in range(NUM_DRAWS):
        i, j, k = centres.draw(rng).tolist()
        index = int(LABEL[i, j, k])
        found["b" if index == 2 else "large" if i < 8 else "low" if j < 8 else "high"] += 1
        assert index in (1, 2)
    return found


LABEL = label_map().numpy()
# Shares by hand: of 522 voxels; of two classes; of two classes and three lesions in the first.
EXPECTED = {
    "foreground": {"large": 512 / 522, "low": 1 / 522, "high": 1 / 522, "b": 8 / 522},
    "class": {"large": 256 / 514, "low": 0.5 / 514, "high": 0.5 / 514, "b": 1 / 2},
    "lesion": {"large": 1 / 6, "low": 1 / 6, "high": 1 / 6, "b": 1 / 2},
}


@pytest.mark.parametrize("sampling", EXPECTED)
def test_each_component_is_aimed_at_as_often_as_the_rule_says(cached, sampling):
    found = drawn(cached, sampling)
    for name, share in EXPECTED[sampling].items():
        # Four standard deviations of a binomial count, and one draw.
        tolerance = 4 * (NUM_DRAWS * share * (1 - share)) ** 0.5 + 1
        assert abs(found[name] - NUM_DRAWS * share) <= tolerance


def test_lesions_touch_by_corners_and_keep_at_most_500_voxels():
    label = np.zeros((12, 12, 12), dtype=np.uint8)
    label[:10, :10, :10] = 1
    label[10, 10, 10] = 1  # by a corner only
    label[0, 0, 11] = 2
    voxels, lesion, class_of = find_lesions(label, num_classes=int(label.max()))
    assert class_of.tolist() == [1, 2]
    assert np.bincount(lesion).tolist() == [500, 1]
    assert (label[tuple(voxels.T)] == class_of[lesion]).all()
    assert len({tuple(v) for v in voxels.tolist()}) == 501


def test_lesions_are_found_once_and_kept_with_the_case(cached):
    first = centres_of(cached, num_classes=2, sampling="lesion")
    np.save(cached.folder / "label.npy", np.zeros(SHAPE, dtype=np.uint8))
    again = centres_of(cached, num_classes=2, sampling="lesion")
    assert all(np.array_equal(a, b) for a, b in zip(first.groups, again.groups, strict=True))
    assert len(again.groups) == 4


def test_a_case_without_any_class_is_aimed_nowhere(tmp_path):
    case = Case(case_id="a", patient_id="a", images={"MR": "a.nii"}, labels=("b.nii",))

    def prepare(_case: Case) -> Prepared:
        empty = torch.zeros(SHAPE, dtype=torch.uint8)
        return Prepared(torch.zeros(1, *SHAPE), empty, Geometry(SHAPE, np.eye(4)))

    bare = prepare_cases([case], prepare, folder=tmp_path, recipe={"v": 1})
    for sampling in EXPECTED:
        assert centres_of(bare[0], num_classes=2, sampling=sampling).groups == ()
        sampler = PatchSampler(
            cases=tuple(bare),
            classes=("a", "b"),
            patch_vox=(8, 8, 8),
            context_vox=(8, 8, 8),
            batch_size=1,
            foreground_share=1.0,
            seed=0,
            sampling=sampling,
        )
        assert not sampler.draw(0).label_BIJK.any()


def test_small_lesions_are_seen_by_balanced_sampling_and_hardly_by_plain(cached):
    def seen(sampling) -> int:
        sampler = PatchSampler(
            cases=(cached,),
            classes=("a", "b"),
            patch_vox=(6, 6, 6),
            context_vox=(6, 6, 6),
            batch_size=1,
            foreground_share=1.0,
            seed=0,
            sampling=sampling,
        )
        labels = [sampler.draw(step).label_BIJK for step in range(120)]
        small = [((label == 1).sum() == 1) & ~(label == 2).any() for label in labels]
        # Not always in the middle: patches are shifted about what they aim at.
        return int(sum(small))

    assert seen("foreground") < 5
    assert seen("lesion") > 25
