import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.core.errors import PlanError
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan

NETWORK = NetworkPlan(
    widths=(16, 32, 64), strides=((2, 2, 1), (2, 2, 2)), kernels=((3, 3, 1), (3, 3, 3), (3, 3, 3))
)
PLAN = Plan(
    dataset="phantoms",
    spatial_dims=3,
    orientation="RAS",
    spacing_mm=(1.0, 1.0, 2.5),
    patch_vox=(64, 64, 32),
    intensity=(IntensityPlan(channel="CT", scheme="clip_zscore", low=-100, high=200),),
    network=NETWORK,
    training=TrainingPlan(batch_size=2, num_steps=1000),
    device="cpu",
)


def plain(**changes: object) -> dict:
    """The plan as a file holds it, with some of its keys changed."""
    return {**json.loads(json.dumps(PLAN.to_json())), **changes}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    levels = draw(st.integers(1, 5))
    strides = [draw(st.tuples(*[st.integers(1, 3)] * 3)) for _ in range(levels - 1)]
    total = np.prod([(1, 1, 1), *strides], axis=0)
    spacing = st.none() | st.floats(0.01, 10)
    return Plan(
        dataset=draw(st.text(max_size=5)),
        spatial_dims=3,
        orientation=draw(st.sampled_from(["RAS", "LPS", "PSR", "ILA"])),
        spacing_mm=draw(st.tuples(spacing, spacing, spacing)),
        patch_vox=tuple(int(n) * draw(st.integers(1, 5)) for n in total),
        intensity=(IntensityPlan(channel="T1", scheme="zscore"),),
        network=NetworkPlan(
            widths=tuple(sorted(draw(st.tuples(*[st.integers(1, 64)] * levels)))),
            strides=tuple(strides),
            kernels=((3, 3, 3),) * levels,
            deep_supervision=draw(st.booleans()),
        ),
        training=TrainingPlan(batch_size=1, num_steps=1, mirror_axes=(0, 2)),
        device="cpu",
    )  # fmt: skip


@given(plan=plans())
def test_json_gives_back_the_same_plan(plan: Plan) -> None:
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(plan=plans(), axis=st.integers(0, 2))
def test_a_patch_that_the_strides_do_not_divide_is_refused(plan: Plan, axis: int) -> None:
    stride = 1
    for entry in plan.network.strides:
        stride *= entry[axis]
    assert plan.network.stride_vox[axis] == stride
    patch = list(plan.patch_vox)
    patch[axis] += 1
    if stride == 1:
        replace(plan, patch_vox=tuple(patch))
    else:
        with pytest.raises(PlanError, match=f"along {'ijk'[axis]} is .* multiple of {stride}"):
            replace(plan, patch_vox=tuple(patch))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"spatial_dims": 4}, "expected 2 or 3"),
        ({"spatial_dims": 2}, "2D plan has 1"),
        ({"version": 2}, "this medseg reads version 1"),
        ({"orientation": "RAX"}, "orientation"),
        ({"orientation": "RRS"}, "orientation"),
        ({"orientation": "RASA"}, "orientation"),
        ({"spacing_mm": [1, 1]}, "expected i, j, k"),
        ({"spacing_mm": [1, 1, 0]}, "above 0"),
        ({"spacing_mm": [1, 1, float("nan")]}, "above 0"),
        ({"spacing_mm": [1, 1, float("inf")]}, "above 0"),
        ({"patch_vox": [64, 64]}, "expected i, j, k"),
        ({"patch_vox": [64, 0, 32]}, "along j is 0"),
        ({"patch_vox": [64, -64, 32]}, "along j is -64"),
        ({"patch_vox": 64}, "plan:"),
        ({"intensity": []}, "one entry a channel"),
        ({"intensity": [{"channel": "CT", "scheme": "none"}] * 2}, "one entry a channel"),
        ({"intensity": [{"channel": "CT", "scheme": "magic"}]}, "expected zscore"),
        ({"intensity": [{"channel": "CT", "scheme": "zscore", "std": 0}]}, "std above 0"),
        ({"intensity": [{"channel": "CT", "scheme": "zscore", "std": float("nan")}]}, "std above"),
        ({"intensity": [{"channel": "CT", "scheme": "zscore", "mean": float("nan")}]}, "numbers"),
        ({"intensity": [{"channel": "CT", "scheme": "zscore", "low": 5, "high": 5}]}, "low below"),
        ({"intensity": [{"channel": "CT", "scheme": "zscore", "std": None}]}, "plan:"),
        ({"intensity": [{"channel": "CT"}]}, "scheme"),
        ({"training": {"batch_size": 0, "num_steps": 1}}, "batch_size 0"),
        ({"training": {"batch_size": 1, "num_steps": 0}}, "num_steps 0"),
        ({"training": {"batch_size": 1, "num_steps": 1, "foreground_share": 2}}, "0 to 1"),
        ({"training": {"batch_size": 1, "num_steps": 1, "mirror_axes": [3]}}, "mirror_axes"),
        ({"training": {"batch_size": 1, "num_steps": 1, "lr": 1}}, "lr"),
        ({"network": {"widths": [8, 8], "strides": [], "kernels": [[3, 3, 3]]}}, "n, n - 1, n"),
        ({"network": {"widths": [], "strides": [], "kernels": []}}, "n, n - 1, n"),
        ({"network": {"widths": [16, 8], "strides": [[2, 2, 2]], "kernels": [[3, 3, 3]] * 2}},
         "fall with depth"),
        ({"network": {"widths": [8, 8], "strides": [[2, 0, 2]], "kernels": [[3, 3, 3]] * 2}},
         "whole numbers from 1"),
        ({"network": {"widths": [0, 8], "strides": [[2, 2, 2]], "kernels": [[3, 3, 3]] * 2}},
         "whole numbers from 1"),
        ({"network": {"widths": [8, 8], "strides": [[2, 2]], "kernels": [[3, 3, 3]] * 2}},
         "i, j, k in each"),
        ({"network": {"widths": [8]}}, "'strides' is missing"),
        ({"network": "unet"}, "plan:"),
        ({"patches": 3}, "patches"),
    ],
)  # fmt: skip
def test_a_plan_that_contradicts_itself_is_refused_by_its_key(change: dict, told: str) -> None:
    with pytest.raises(PlanError, match=told) as refusal:
        Plan.from_json(plain(**change))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["dataset", "network", "training", "intensity", "patch_vox"])
def test_a_missing_key_is_named(key: str) -> None:
    value = plain()
    del value[key]
    with pytest.raises(PlanError, match=key):
        Plan.from_json(value)


def test_a_2d_plan_has_patches_and_strides_of_one_along_the_last_axis() -> None:
    flat = NetworkPlan(widths=(8, 16), strides=((2, 2, 1),), kernels=((3, 3, 1), (3, 3, 1)))
    plan = replace(PLAN, spatial_dims=2, patch_vox=(64, 64, 1), network=flat)
    assert plan.network.stride_vox == (2, 2, 1)
    with pytest.raises(PlanError, match="along k"):
        replace(PLAN, spatial_dims=2, patch_vox=(64, 64, 1))


def test_channels_keep_the_order_of_the_intensities() -> None:
    two = tuple(IntensityPlan(channel=name, scheme="none") for name in ("T2", "ADC"))
    assert replace(PLAN, intensity=two).channels == ("T2", "ADC")
