"""Plans follow from numbers: spacing, patch, levels and budgets for data of every shape."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.core.errors import ConfigError, PlanError
from medseg.core.fingerprint import CaseFingerprint, Fingerprint, Intensity
from medseg.core.labels import LabelSet, label_set
from medseg.core.plan import Plan
from medseg.models.registry import build_model
from medseg.planning.plan_file import override, read_plan, write_plan
from medseg.planning.rules import make_plan
from medseg.runtime.hardware import Hardware, gpu_of

CPU = Hardware(device="cpu", num_cores=2, memory_bytes=2**34, name="2 cores")
GPU = Hardware(device="cuda", num_cores=8, memory_bytes=24 * 2**30, name="a GPU")
PLAIN = Intensity(mean=50.0, std=20.0, low=0.0, high=100.0, minimum=-10.0, maximum=120.0)


def fingerprint(
    shapes=((36, 50, 35),), spacings=((1, 1, 1),), unit="mm", modality="MR", share=0.05
):
    cases = tuple(
        CaseFingerprint(
            case_id=str(n),
            shape=shape,
            spacing_mm=spacing,
            orientation="RAS",
            class_vox=(1 + int(np.prod(shape) * (1 - share)), int(np.prod(shape) * share)),
        )
        for n, (shape, spacing) in enumerate(zip(shapes, spacings, strict=True))
    )
    return Fingerprint(
        cases=cases,
        channels=(("image", modality),),
        foreground=(PLAIN,),
        whole=(replace(PLAIN, low=-500.0),),
        unit=unit,
        manifest_digest="",
    )


def plan_for(found, *, dims=3, hardware=CPU, labels=None):
    labels = labels or label_set({"organ": 1})
    return make_plan(found, labels, dataset="test", spatial_dims=dims, hardware=hardware)


def test_a_small_scan_is_taken_whole():
    plan = plan_for(fingerprint())
    assert plan.patch_vox == (40, 56, 40)
    assert plan.spacing_mm == (1, 1, 1)


def test_on_a_cpu_the_first_convolution_halves_and_on_a_gpu_it_does_not():
    large = fingerprint(shapes=((200, 200, 200),))
    assert not plan_for(large).network.full_resolution
    on_gpu = plan_for(large, hardware=GPU).network
    assert on_gpu.full_resolution
    # Levels of full resolution are no further than one: each next one has half of it.
    assert on_gpu.strides == ((2, 2, 2),) * 5


@pytest.mark.parametrize("shape", [(1, 1, 1), (6, 6, 6), (12, 12, 3)])
@pytest.mark.parametrize("name", ["unet", "dynunet", "segresnet", "unetplusplus"])
def test_the_smallest_cases_have_plans_that_networks_can_be_built_of(shape, name):
    plan = plan_for(fingerprint(shapes=(shape,)))
    assert len(plan.network.widths) >= 3
    network = build_model(name, plan=plan, num_inputs=1, num_outputs=2).eval()
    assert network(torch.zeros(1, 1, *shape)).shape == (1, 2, *shape)


def test_coarse_slices_are_pooled_and_convolved_later():
    plan = plan_for(fingerprint(shapes=((300, 300, 30),), spacings=((1, 1, 5),)))
    assert plan.network.strides[0] == (2, 2, 1)
    assert plan.network.kernels[0] == (3, 3, 1)
    assert plan.network.kernels[-1] == (3, 3, 3)
    assert plan.patch_vox[0] == plan.patch_vox[1] > plan.patch_vox[2]


def test_the_finer_cases_decide_a_very_coarse_axis():
    spacings = tuple((1.0, 1.0, z) for z in (4, 5, 5, 6, 6, 6, 7, 7, 8, 8, 8))
    plan = plan_for(fingerprint(shapes=((200, 200, 40),) * 11, spacings=spacings))
    assert plan.spacing_mm[2] == 5


def test_cases_too_large_for_a_cpu_are_resampled_coarser_and_on_a_gpu_they_are_not():
    large = fingerprint(shapes=((512, 512, 300),), spacings=((0.8, 0.8, 1.5),))
    spacing = plan_for(large).spacing_mm
    assert spacing[0] == spacing[1] > 0.8
    assert spacing[2] / spacing[0] < 1.5 / 0.8
    assert plan_for(large, hardware=GPU).spacing_mm == (0.8, 0.8, 1.5)


def test_images_in_pixels_keep_their_grid_and_are_mirrored_both_ways():
    image = fingerprint(shapes=((256, 320, 1),), unit="px", modality="microscopy")
    plan = plan_for(image, dims=2)
    assert plan.spacing_mm == (None, None, None)
    assert plan.patch_vox[2] == 1
    assert plan.training.mirror_axes == (0, 1)
    assert all(stride[2] == 1 for stride in plan.network.strides)


def test_2d_plans_of_volumes_keep_the_slices_as_they_are():
    plan = plan_for(fingerprint(shapes=((200, 200, 40),), spacings=((1, 1, 5),)), dims=2)
    assert plan.spacing_mm == (1, 1, None)
    assert plan.patch_vox[2] == 1


@pytest.mark.parametrize(
    ("modality", "scheme", "low"),
    [("CT", "clip_zscore", 0), ("PT", "clip_zscore", -500), ("MR", "zscore", 0)],
)
def test_quantities_keep_their_scale_and_other_scans_their_own(modality, scheme, low):
    entry = plan_for(fingerprint(modality=modality)).intensity[0]
    assert (entry.scheme, entry.low) == (scheme, low)


def test_bodies_are_mirrored_left_to_right_only():
    assert plan_for(fingerprint()).training.mirror_axes == (0,)


def test_a_radiograph_is_not_turned_upside_down():
    image = fingerprint(shapes=((256, 320, 1),), unit="px", modality="DX")
    assert plan_for(image, dims=2).training.mirror_axes == (0,)


def test_tiny_spacings_keep_their_digits():
    found = fingerprint(shapes=((800, 800, 1),), spacings=((1.3e-4, 1.3e-4, 1),), modality="SEM")
    assert plan_for(found, dims=2).spacing_mm == (1.3e-4, 1.3e-4, None)


def test_classes_with_a_side_are_not_mirrored():
    by_name = label_set({"left kidney": 1, "kidney_right": 2})
    assert plan_for(fingerprint(), labels=by_name).training.mirror_axes == ()
    entries = [
        {"name": "nier links", "values": 1, "partner": "nier rechts"},
        {"name": "nier rechts", "values": 2, "partner": "nier links"},
    ]
    by_partner = LabelSet.from_json({"labels": entries})
    assert plan_for(fingerprint(), labels=by_partner).training.mirror_axes == ()
    assert plan_for(fingerprint(), labels=label_set({"bright": 1})).training.mirror_axes == (0,)


def test_rare_classes_are_aimed_at_more_often():
    common, rare = plan_for(fingerprint()), plan_for(fingerprint(share=0.001))
    assert rare.training.foreground_share > common.training.foreground_share


def test_classes_that_few_cases_were_annotated_for_are_not_rare_for_that():
    one, other = fingerprint(shapes=((10, 10, 10),) * 2, spacings=((1, 1, 1),) * 2).cases
    cases = (replace(one, class_vox=(988, 12, None)), replace(other, class_vox=(1000, None, 0)))
    found = replace(fingerprint(), cases=cases)
    assert found.class_share == pytest.approx((0.988, 0.012, 0))
    assert plan_for(found).training.foreground_share == 0.5
    assert Fingerprint.from_json(found.to_json()) == found


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 700)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    dims=st.sampled_from([2, 3]),
    hardware=st.sampled_from([CPU, GPU]),
)
def test_every_dataset_gets_a_plan_whose_patch_suits_its_network(shape, spacing, dims, hardware):
    plan = plan_for(fingerprint(shapes=(shape,), spacings=(spacing,)), dims=dims, hardware=hardware)
    assert Plan.from_json(plan.to_json()) == plan
    assert len(plan.network.widths) == len(plan.network.kernels)
    # The constructor checks divisibility; the budget may be passed by rounding up only.
    limit = {"cpu": 2**17, "cuda": 2**22}[hardware.device]
    assert np.prod(plan.patch_vox) <= 1.3 * limit


def test_a_plan_survives_its_file(tmp_path):
    plan = plan_for(fingerprint())
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan


def test_a_broken_plan_names_the_file_and_the_key(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"dataset": "x"}')
    with pytest.raises(PlanError, match=r"plan\.json: plan: the key 'network' is missing"):
        read_plan(path)


def test_keys_of_a_plan_can_be_set_and_others_are_refused():
    plan = override(plan_for(fingerprint()), {"batch_size": 5, "patch_vox": [32, 32, 32]})
    assert plan.training.batch_size == 5
    assert plan.patch_vox == (32, 32, 32)
    with pytest.raises(ConfigError, match="did you mean patch_vox"):
        override(plan, {"patch_vx": [1, 1, 1]})
    with pytest.raises(PlanError, match="multiple of 8"):
        override(plan, {"patch_vox": [33, 32, 32]})


def test_keys_of_the_network_can_be_set_together_where_they_depend_on_each_other():
    plan = plan_for(fingerprint())
    assert not plan.network.deep_supervision
    assert override(plan, {"deep_supervision": True}).network.deep_supervision
    chosen = {"widths": [8, 16], "strides": [[1, 2, 2]], "kernels": [[1, 3, 3], [3, 3, 3]]}
    network = override(plan, chosen).network
    assert (network.widths, network.strides) == ((8, 16), ((1, 2, 2),))
    with pytest.raises(PlanError, match="2 widths, 3 strides"):
        override(plan, {"widths": [8, 16]})


def test_a_plan_can_be_made_for_a_gpu_that_is_elsewhere():
    large = fingerprint(shapes=((512, 512, 400),), spacings=((0.8, 0.8, 1),))
    medium, larger = (plan_for(large, hardware=gpu_of(memory)) for memory in (8, 24))
    # The network of nnU-Net's residual presets, which differ by patch and batch alone.
    assert medium.network.widths == larger.network.widths == (32, 64, 128, 256, 320, 320)
    assert medium.network.strides == larger.network.strides == ((2, 2, 2),) * 5
    assert medium.device == "cuda"
    assert np.prod(medium.patch_vox) < np.prod(larger.patch_vox)
    for wrong in (0, True, "24GB"):
        with pytest.raises(ConfigError, match=f"gpu_memory_gib={wrong}: expected a number above 0"):
            gpu_of(wrong)
