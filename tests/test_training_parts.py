"""What a job says about labels reaches the parts of its training: sides, ignored voxels, edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dataset_on_paper import paper_case, paper_manifest
from drawn_objects import rows_of
from small_networks import make_plan

from medseg.core.geometry import Geometry
from medseg.core.labels import Label, LabelSet
from medseg.core.objects import Centres, Distances, ObjectPlan
from medseg.core.plan import IntensityPlan
from medseg.core.regions import Region
from medseg.data.cache import prepare_cases
from medseg.training.choices import Choices
from medseg.training.job import Job
from medseg.training.object_sizes import told_of_long_objects
from medseg.training.parts import loss_for, recipe_for, sampler_for
from medseg.training.schedule import Budget, Constant
from medseg.training.validate import validate
from medseg.transforms.augment import IntensityAugment
from medseg.transforms.chains import Prepared
from medseg.transforms.motion import SpatialAugment

SIDED = LabelSet(
    labels=(
        Label(name="left", values=(1,), colour=(255, 0, 0), partner="right"),
        Label(name="right", values=(2,), colour=(0, 255, 0), partner="left"),
    ),
    ignore_value=9,
)
IGNORED = SIDED.ignore_index
STILL = IntensityAugment(noise=0, blur=0, brightness=0, contrast=0, gamma=0)


def job_of(*, orientation="RAS", axes=(0,), spacing_mm=(1.0, 1.0, 1.0), dims=3, **chosen):
    plan = make_plan(dims)
    plan = replace(
        plan,
        orientation=orientation,
        spacing_mm=spacing_mm,
        intensity=(IntensityPlan(channel="T1", scheme="zscore"),),
        training=replace(plan.training, mirror_axes=axes),
    )
    choices = Choices(
        fold=0,
        model=("unet", {}),
        loss=("dice_ce", {}),
        make_optimizer=torch.optim.AdamW,
        schedule=Constant(),
        budget=Budget(num_steps=1, max_time_s=None),
        spatial=SpatialAugment(probability=0.0),
        intensity=STILL,
        **chosen,
    )
    manifest = paper_manifest([paper_case("a")], labels=SIDED)
    return Job(manifest=manifest, plan=plan, choices=choices)


@pytest.mark.parametrize(("orientation", "axis"), [("RAS", 0), ("ARS", 1), ("SAL", 2)])
def test_training_swaps_partners_where_it_flips_the_axis_between_them(orientation, axis):
    augment = recipe_for(job_of(orientation=orientation, axes=(axis,))).augment
    image = torch.zeros(64, 1, 16, 16, 16)
    label = torch.ones(64, 16, 16, 16, dtype=torch.int64)
    label.narrow(axis + 1, 0, 1).fill_(0)
    _, seen = augment(image, label, generator=torch.Generator().manual_seed(0))
    flipped = seen.select(axis + 1, 0).flatten(1).amax(1) > 0
    assert flipped.any()
    assert not flipped.all()
    assert (seen[flipped].amax((1, 2, 3)) == 2).all()
    assert (seen[~flipped].amax((1, 2, 3)) == 1).all()


@pytest.mark.parametrize(
    "regions", [None, (Region(name="both", members=("left", "right"), written_as="left"),)]
)
def test_voxels_to_ignore_change_nothing_in_the_loss_of_a_training(regions):
    job = job_of(regions=regions)
    loss = loss_for(job)
    logits = torch.randn(2, job.labels.num_outputs, 4, 4, 4)
    label = torch.randint(0, 3, (2, 4, 4, 4))
    label[:, 0] = IGNORED
    other = logits.clone()
    other[:, :, 0] = torch.randn_like(other[:, :, 0]) * 10
    assert torch.equal(loss(logits, label), loss(other, label))
    assert not torch.equal(loss(logits, label), loss(other, label.clamp_max(2)))


@pytest.mark.parametrize("way", [Centres(), Distances()])
def test_voxels_to_ignore_say_nothing_about_objects_in_a_training(way):
    job = job_of(objects=ObjectPlan(task="instance", way=way))
    loss = recipe_for(job).loss
    num = job.labels.num_outputs + way.num_channels(3)
    logits = torch.randn(1, num, 8, 8, 8)
    label = torch.zeros(1, 8, 8, 8, dtype=torch.int64)
    label[:, 4:] = IGNORED
    ids = torch.zeros_like(label)
    known = (ids, rows_of(ids, (1, 1, 1)))
    other = logits.clone()
    other[:, job.labels.num_outputs :, 4:] += 5
    assert torch.equal(loss(logits, label, *known), loss(other, label, *known))
    assert not torch.equal(loss(logits, label * 0, *known), loss(other, label * 0, *known))


def test_objects_are_measured_in_the_plans_voxels():
    way = ObjectPlan(task="instance", way=Centres())
    edges = [
        recipe_for(job_of(objects=way, spacing_mm=spacing)).loss.edges
        for spacing in ((1.0, 1.0, 5.0), (2.0, 2.0, 2.0))
    ]
    assert edges == [(1.0, 1.0, 5.0), (2.0, 2.0, 2.0)]


class OnePrediction:
    """Predicts the left everywhere."""

    labels = SIDED

    def segment_prepared(self, _prepared, *, onto):
        found = np.ones(onto.shape, np.uint8)
        return type("Segmentation", (), {"label_map": found})


class OneCase:
    """A prepared case whose voxels nobody asks for."""

    geometry = Geometry((4, 4, 4), np.eye(4))

    def __init__(self, **changes):
        self.case = paper_case("a", **changes)

    def open_image(self):
        return np.zeros((1, 4, 4, 4), np.float32)


def test_a_validation_passes_over_voxels_to_ignore_and_classes_nobody_annotated():
    reference = np.ones((4, 4, 4), np.uint8)
    reference[2:] = IGNORED
    half = {"reference_of": lambda case: (reference, case.geometry)}
    (score,) = validate(OnePrediction(), [OneCase()], **half)
    assert score.dice["left"] == 1
    assert np.isnan(score.dice["right"])
    (score,) = validate(OnePrediction(), [OneCase(annotated=("left",))], **half)
    assert list(score.dice) == ["left"]


@pytest.mark.parametrize(("dims", "way"), [(2, Centres()), (3, Centres()), (3, Distances())])
def test_patches_bring_along_the_centres_of_whole_objects_where_these_are_learnt(
    dims, way, tmp_path
):
    ids = torch.zeros((40, 40, 8), dtype=torch.int32)
    ids[4:30, 6:33], ids[33:38] = 1, 2

    def prepare(_case):
        image = torch.zeros(1, *ids.shape)
        return Prepared(image, (ids > 0).byte(), Geometry(tuple(ids.shape), np.eye(4)), ids)

    cases = prepare_cases([paper_case("a")], prepare, folder=tmp_path, recipe={})
    job = job_of(objects=ObjectPlan(task="instance", way=way), dims=dims)
    rows = sampler_for(job, cases).draw(0).objects_BM5
    if isinstance(way, Distances):
        assert rows is None
        return
    sizes = {1: 26 * 27, 2: 5 * 40}
    depth = 1 if dims == 2 else 8
    found = {(int(n), int(size)) for n, *_, size in rows.flatten(0, 1).tolist() if np.isfinite(n)}
    assert found <= {(n, size * depth) for n, size in sizes.items()}
    assert found


class Drawn:
    """A prepared case with one object of some length along j."""

    def __init__(self, length):
        self.ids = np.zeros((40, 40, 8), np.int32)
        self.ids[4:8, 2 : 2 + length] = 1

    def open_ids(self):
        return self.ids


def test_objects_that_are_far_longer_than_patches_are_told_where_centres_are_learnt():
    job = job_of(objects=ObjectPlan(task="instance", way=Centres()))
    assert job.plan.patch_vox == (16, 16, 16)
    assert told_of_long_objects(job, [Drawn(24)]) is None
    told = told_of_long_objects(job, [Drawn(24), Drawn(25)])
    assert "50% are longer than one and a half patches" in told
    other = job_of(objects=ObjectPlan(task="instance", way=Distances()))
    assert told_of_long_objects(other, [Drawn(30)]) is None


def test_in_slices_an_object_is_as_long_as_what_a_slice_holds_of_it():
    job = job_of(objects=ObjectPlan(task="instance", way=Centres()), dims=2)
    assert job.plan.patch_vox == (16, 16, 1)
    slanting = Drawn(1)
    slanting.ids[:] = 0
    for k in range(8):
        slanting.ids[4 * k : 4 * k + 6, 4 * k : 4 * k + 6, k] = 1
    assert told_of_long_objects(job, [slanting]) is None
