"""Patches are a pure function of seed and step, hold what they were aimed at, and miss no case."""

from collections import Counter
from dataclasses import replace
from multiprocessing import active_children

import numpy as np
import pytest
import torch

from medseg.core.errors import ReadError
from medseg.core.geometry import Geometry
from medseg.data.cache import prepare_cases
from medseg.data.manifest import Case
from medseg.data.patches import PatchSampler, batches, cut, workers_named
from medseg.transforms.chains import Prepared

SHAPES = [(20, 24, 12), (9, 30, 8), (16, 16, 16)]


def label_of(shape):
    label = torch.zeros(shape, dtype=torch.uint8)
    label[2:4, 3:5, 1:3] = 1
    label[-1, -1, -1] = 2
    return label


@pytest.fixture
def cached(tmp_path):
    cases = [
        Case(case_id=str(n), patient_id=str(n), images={"MR": f"{n}.nii"}, labels=(f"{n}_l.nii",))
        for n in range(len(SHAPES))
    ]

    def prepare(case):
        shape = SHAPES[int(case.case_id)]
        image = torch.arange(np.prod(shape), dtype=torch.float32).reshape(1, *shape)
        return Prepared(image, label_of(shape), Geometry(shape, np.eye(4)))

    return prepare_cases(cases, prepare, folder=tmp_path, recipe={"v": 1}, num_workers=2)


def sampler(cached, **changes):
    settings = {
        "classes": ("a", "b"),
        "patch_vox": (12, 12, 12),
        "context_vox": (16, 16, 16),
        "batch_size": 2,
        "foreground_share": 0.5,
        "seed": 3,
    }
    return PatchSampler(cases=tuple(cached), **{**settings, **changes})


def test_a_step_has_the_same_batch_whenever_and_wherever_it_is_drawn(cached):
    drawn = sampler(cached)
    first, again = drawn.draw(17), sampler(cached).draw(17)
    assert torch.equal(first.image_BCIJK, again.image_BCIJK)
    for num_workers in (0, 2):
        source = batches(drawn, first=15, last=20, num_workers=num_workers, pin_memory=False)
        third = list(source)[2]
        assert torch.equal(third.image_BCIJK, first.image_BCIJK)
        assert third.case_ids == first.case_ids


def test_drawing_batches_leaves_torchs_random_numbers_alone(cached):
    before = torch.get_rng_state()
    for num_workers in (0, 1):
        next(batches(sampler(cached), first=0, last=2, num_workers=num_workers, pin_memory=False))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_killed_worker_is_named_and_other_faults_are_left_alone():
    # As PyTorch's handler of SIGCHLD says it, which raises in the middle of anything.
    died = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(ReadError, match=r"RUN-001 a process .* \(pid 7\)"), workers_named():
        raise died
    with pytest.raises(RuntimeError, match="something else"), workers_named():
        raise RuntimeError("something else")


def test_a_worker_killed_while_it_hands_a_batch_over_is_named_and_its_loader_is_gone(cached):
    def train():
        source = batches(sampler(cached), first=0, last=9, num_workers=1, pin_memory=False)
        next(source)
        raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ReadError, match="RUN-001 a process that draws") as told, workers_named():
        train()
    assert isinstance(told.value.__cause__, ConnectionResetError)
    assert not active_children()


def test_every_case_comes_once_before_any_comes_twice(cached):
    drawn = sampler(cached, batch_size=1)
    for round_ in range(5):
        ids = [drawn.draw(round_ * 3 + n).case_ids[0] for n in range(3)]
        assert sorted(ids) == ["0", "1", "2"]


def test_patches_aimed_at_a_class_hold_it_and_the_classes_come_equally_often(cached):
    drawn = sampler(cached, foreground_share=1.0, context_vox=(12, 12, 12), batch_size=1)
    seen = Counter()
    for step in range(120):
        label = drawn.draw(step).label_BIJK
        assert label.max() > 0
        seen.update(label.unique().tolist())
    assert seen[2] > 40


def test_an_aimed_voxel_is_not_always_in_the_middle(cached):
    drawn = sampler(
        cached[2:], foreground_share=1.0, patch_vox=(4, 4, 4), context_vox=(4, 4, 4), batch_size=1
    )
    places = {tuple(np.argwhere(drawn.draw(n).label_BIJK[0].numpy())[0]) for n in range(60)}
    assert len(places) > 5


def test_what_lies_outside_the_scan_is_zero():
    array = np.arange(24).reshape(2, 3, 4) + 1
    box = cut(array, (-1, 1, 2), (3, 4, 4))
    assert box.shape == (3, 4, 4)
    assert np.array_equal(box[1:, :2, :2], array[:2, 1:3, 2:4])
    assert box[0].max() == box[:, 2:].max() == box[:, :, 2:].max() == 0


def test_a_box_beyond_the_scan_is_empty():
    assert cut(np.ones((3, 3, 3)), (5, 0, 0), (2, 2, 2)).max() == 0


def test_classes_that_nobody_annotated_are_told_apart(tmp_path, cached):
    partly = replace(cached[0], case=replace(cached[0].case, annotated=("b",)))
    batch = sampler([partly, cached[1]]).draw(0)
    rows = dict(zip(batch.case_ids, batch.annotated_BL.tolist(), strict=True))
    assert rows == {"0": [True, False, True], "1": [True, True, True]}
    assert sampler(cached).draw(0).annotated_BL is None


def test_a_prepared_case_is_read_from_disk_until_its_files_or_its_recipe_change(tmp_path):
    calls = []

    def prepare(case):
        calls.append(case.digest)
        image = torch.zeros(1, 4, 4, 4)
        return Prepared(image, None, Geometry((4, 4, 4), np.eye(4)))

    def case(digest):
        return Case(
            case_id="a", patient_id="a", images={"MR": "a.nii"}, labels=("b",), digest=digest
        )

    for digest, recipe in (("1", {"v": 1}), ("1", {"v": 1}), ("2", {"v": 1}), ("2", {"v": 2})):
        prepare_cases([case(digest)], prepare, folder=tmp_path, recipe=recipe)
    assert calls == ["1", "2", "2"]


def test_a_preparation_that_fails_leaves_nothing_behind(tmp_path):
    case = Case(case_id="a", patient_id="a", images={"MR": "a.nii"}, labels=("b",))

    class Broken:
        image_CIJK = torch.zeros(1, 2, 2, 2)
        label_IJK = torch.zeros(2, 2, 2, dtype=torch.uint8)

        @property
        def geometry(self):
            raise MemoryError

    with pytest.raises(MemoryError):
        prepare_cases([case], lambda _: Broken(), folder=tmp_path, recipe={})
    assert not list(tmp_path.iterdir())


def test_a_patch_brings_along_where_the_whole_objects_have_their_centres(tmp_path):
    shape, centre = (30, 28, 26), (14, 13, 12)
    ids = torch.zeros(shape, dtype=torch.int32)
    ids[4:25, 6:21, 8:17] = 9
    place = torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)

    def prepare(_case):
        label = (ids > 0).to(torch.uint8)
        return Prepared(place[None], label, Geometry(shape, np.eye(4)), ids)

    case = Case(case_id="a", patient_id="a", images={"MR": "a.nii"}, labels=("a_l.nii",))
    cached = prepare_cases([case], prepare, folder=tmp_path, recipe={})
    drawn = sampler(cached, object_dims=3, batch_size=8, context_vox=(14, 14, 14)).draw(0)
    assert drawn.objects_BM5.shape == (8, 1, 5)
    num_outside = num_inside = 0
    for image, own, (number, *at, size) in zip(
        drawn.image_BCIJK, drawn.ids_BIJK, drawn.objects_BM5[:, 0].tolist(), strict=True
    ):
        if not (own > 0).any():
            assert number == float("inf")
            continue
        assert (number, size) == (9, 21 * 15 * 9)
        if not all(0 <= a < 14 for a in at):
            num_outside += 1
        else:
            num_inside += 1
            assert image[0][tuple(int(a) for a in at)] == place[centre]
    assert num_outside
    assert num_inside
    # Kept beside the case, and read again.
    again = sampler(cached, object_dims=3, batch_size=8, context_vox=(14, 14, 14)).draw(0)
    assert torch.equal(again.objects_BM5, drawn.objects_BM5)
    assert list(cached[0].folder.glob("objects_3d_2.npz"))
    assert sampler(cached).draw(0).objects_BM5 is None
