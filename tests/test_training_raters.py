"""Training on several raters: what is prepared from their masks, and what of it is kept apart."""

import nibabel
import numpy as np
import pytest
from dataset_on_paper import paper_case, paper_manifest

from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.data.raters import majority, training_targets
from medseg.data.staple import staple
from medseg.training.preparation import Preparation

PLAN = Plan(
    dataset="raters",
    spatial_dims=3,
    orientation="RAS",
    spacing_mm=(None, None, None),
    patch_vox=(8, 8, 8),
    intensity=(IntensityPlan(channel="T1", scheme="zscore"),),
    network=NetworkPlan(widths=(4,), strides=(), kernels=((3, 3, 3),)),
    training=TrainingPlan(batch_size=1, num_steps=1),
    device="cpu",
)


@pytest.fixture
def drawn(tmp_path, rng):
    """A scan that five raters marked, three of them carelessly, and their label maps."""
    truth = rng.integers(0, 3, (9, 8, 10)).astype(np.uint8)
    missed = (0, 0.02, 0.6, 0.6, 0.6)
    maps = [np.where(rng.random(truth.shape) < p, 0, truth).astype(np.uint8) for p in missed]
    nibabel.save(nibabel.Nifti1Image(rng.random(truth.shape), np.eye(4)), tmp_path / "scan.nii")
    for number, one in enumerate(maps):
        nibabel.save(nibabel.Nifti1Image(one, np.eye(4)), tmp_path / f"{number}.nii")
    return maps


def prepared(tmp_path, consensus):
    labels = tuple(f"{number}.nii" for number in range(5))
    case = paper_case("a", images={"T1": "scan.nii"}, labels=labels, raters=tuple("vwxyz"))
    manifest = paper_manifest([case], data_root=tmp_path, consensus=consensus)
    targets = training_targets(manifest.training_cases, consensus)
    return Preparation(manifest, PLAN, tmp_path / "cache")(targets)


def test_every_rater_is_a_target_whose_mean_is_the_soft_target(tmp_path, drawn):
    cases = prepared(tmp_path, "soft")
    assert {one.case.case_id for one in cases} == {"a"}
    targets = np.stack([one.open_label() for one in cases])
    assert np.array_equal(targets, drawn)


def test_a_cache_never_gives_the_reference_of_another_consensus(tmp_path, drawn):
    # All of them in one folder, one after the other.
    found = {how: prepared(tmp_path, how) for how in ("majority", "staple", "soft")}
    assert np.array_equal(found["majority"][0].open_label(), majority(drawn))
    assert np.array_equal(found["staple"][0].open_label(), staple(drawn))
    assert not np.array_equal(majority(drawn), staple(drawn))
    folders = {one.folder for cases in found.values() for one in cases}
    assert len(folders) == 1 + 1 + 5
