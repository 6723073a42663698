"""Prepared cases: what was prepared for one training is not what another one asked for."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from dataset_on_paper import paper_case, paper_manifest

from medseg.core.errors import MedsegError
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.data.manifest import Channel
from medseg.training.preparation import Preparation

PLAN = Plan(
    dataset="two channels",
    spatial_dims=3,
    orientation="RAS",
    spacing_mm=(None, None, None),
    patch_vox=(4, 4, 4),
    intensity=tuple(IntensityPlan(channel=name, scheme="none") for name in ("T1", "T2")),
    network=NetworkPlan(widths=(4,), strides=(), kernels=((3, 3, 3),)),
    training=TrainingPlan(batch_size=1, num_steps=1),
    device="cpu",
)


def test_a_missing_channel_filled_for_channel_dropout_is_missing_for_a_training_without(tmp_path):
    for name in ("t1", "mask"):
        voxels = np.ones((4, 4, 4), np.uint8)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
    case = paper_case("a", images={"T1": "t1.nii"}, labels=("mask.nii",))
    channels = tuple(Channel(name=name, modality="MR") for name in ("T1", "T2"))
    manifest = paper_manifest([case], data_root=tmp_path, channels=channels)
    filled = Preparation(manifest, PLAN, tmp_path / "cache", zero_missing=True)
    assert not filled(manifest.training_cases)[0].open_image()[1].any()
    with pytest.raises(MedsegError, match="T2"):
        replace(filled, zero_missing=False)(manifest.training_cases)
