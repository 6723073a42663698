"""FCN, DeepLab and PSPNet against their papers: counts, strides, views, and brute force."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from medseg.core.errors import ConfigError
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.models.context import AtrousPyramid, MeanPyramid
from medseg.models.cost import count_parameters
from medseg.models.encoder import Encoder, Style, schedule
from medseg.models.registry import build_model
from medseg.models.resize import enlarge

Strides = tuple[tuple[int, int, int], ...]


def make_plan(dims: int, strides: Strides, *, base: int = 8, auxiliary: bool = False) -> Plan:
    return Plan(
        dataset="phantoms",
        spatial_dims=dims,
        orientation="RAS",
        spacing_mm=(1.0, 1.0, 1.0),
        patch_vox=(64, 64, 64 if dims == 3 else 1),
        intensity=(IntensityPlan(channel="CT", scheme="zscore"),),
        network=NetworkPlan(
            widths=tuple(base * 2**n for n in range(len(strides) + 1)),
            strides=strides,
            kernels=((3, 3, 3 if dims == 3 else 1),) * (len(strides) + 1),
            deep_supervision=auxiliary,
        ),
        training=TrainingPlan(batch_size=2, num_steps=10),
        device="cpu",
    )


PAPER_2D = ((2, 2, 1),) * 5
PAPER_3D = ((2, 2, 2),) * 5


def resnet50_parameters(num_inputs: int, stem: int, three: int) -> int:
    """Weights of a ResNet-50 without classifier, layer by layer; `three` is 9 in 2D, 27 in 3D."""
    total = num_inputs * 64 * stem + 2 * 64
    features = 64
    for width, num_blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(num_blocks):
            total += features * width + width * width * three + width * 4 * width
            total += 2 * (width + width + 4 * width)
            if not block:
                total += features * 4 * width + 2 * 4 * width
            features = 4 * width
    return total


def test_closed_form_of_the_encoder_is_the_published_count():
    assert resnet50_parameters(3, 49, 9) == 25_557_032 - (2048 * 1000 + 1000)


@pytest.mark.parametrize(
    ("name", "settings", "published"),
    [
        ("fcn", {"variant": "dilated"}, 35_322_218),
        ("deeplabv3", {"output_stride": 8, "rates": [12, 24, 36]}, 42_004_074),
    ],
)
def test_2d_resnet50_totals_are_those_of_torchvisions_documentation(name, settings, published):
    plan = make_plan(2, PAPER_2D, base=64, auxiliary=True)
    network = build_model(name, plan=plan, num_inputs=3, num_outputs=21, settings=settings)
    assert count_parameters(network) == published


@pytest.mark.parametrize(("dims", "stem", "three"), [(2, 49, 9), (3, 343, 27)])
def test_parameters_are_the_closed_form_in_2d_and_3d(dims, stem, three):
    encoder = resnet50_parameters(1, stem, three)
    label = 5

    def separable(num_inputs: int) -> int:
        return num_inputs * three + 2 * num_inputs + num_inputs * 256 + 2 * 256

    head = {
        "fcn": 2048 * 512 * three + 1024 + 512 * label + label
        + (1024 * label + label) + (512 * label + label),
        "deeplabv3": 2 * (2048 * 256 + 512) + 3 * (2048 * 256 * three + 512)
        + 5 * 256 * 256 + 512 + 256 * 256 * three + 512 + 256 * label + label,
        "deeplabv3plus": 2 * (2048 * 256 + 512) + 3 * separable(2048) + 5 * 256 * 256 + 512
        + 256 * 48 + 96 + separable(256 + 48) + separable(256) + 256 * label + label,
        "pspnet": 4 * (2048 * 512 + 1024) + 4096 * 512 * three + 1024 + 512 * label + label,
    }  # fmt: skip
    plan = make_plan(dims, PAPER_2D if dims == 2 else PAPER_3D, base=64)
    with torch.device("meta"):
        for name, expected in head.items():
            network = build_model(name, plan=plan, num_inputs=1, num_outputs=label)
            assert count_parameters(network) == encoder + expected, name


@pytest.mark.parametrize(
    ("strides", "output_stride", "steps", "dilations"),
    [
        (PAPER_3D, 32, [(2, 2, 2)] * 5, [(1, 1, 1)] * 4),
        (PAPER_3D, 16, [(2, 2, 2)] * 4 + [(1, 1, 1)], [(1, 1, 1)] * 3 + [(2, 2, 2)]),
        (PAPER_3D, 8, [(2, 2, 2)] * 3 + [(1, 1, 1)] * 2, [(1,) * 3, (1,) * 3, (2,) * 3, (4,) * 3]),
        # Thick slices: the third axis starts late and catches up.
        (
            ((2, 2, 1), (2, 2, 2), (2, 2, 2)),
            8,
            [(2, 2, 1), (2, 2, 2), (2, 2, 2), (1, 1, 2), (1, 1, 1)],
            [(1, 1, 1), (1, 1, 1), (2, 2, 1), (4, 4, 2)],
        ),
        # A plan of two strides: the encoder goes on while a patch of 64 has 4 voxels left.
        (
            ((2, 2, 2), (2, 2, 2)),
            32,
            [(2, 2, 2)] * 4 + [(1, 1, 1)],
            [(1,) * 3, (1,) * 3, (1,) * 3, (2,) * 3],
        ),
        # An axis that is never strided is not dilated either.
        (
            ((2, 2, 1),) * 3,
            16,
            [(2, 2, 1)] * 4 + [(1, 1, 1)],
            [(1, 1, 1)] * 3 + [(2, 2, 1)],
        ),
    ],
)
def test_strides_stop_at_the_output_stride_and_dilation_takes_over(
    strides, output_stride, steps, dilations
):
    assert schedule(make_plan(3, strides), output_stride) == (steps, dilations)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_features_have_the_output_stride(output_stride):
    plan = make_plan(2, PAPER_2D)
    encoder = Encoder(
        plan, num_inputs=1, shape="resnet18", output_stride=output_stride, style=Style(dims=2)
    )
    with torch.no_grad():
        features = encoder(torch.zeros(1, 1, 64, 64))
    strides = [64 // f.shape[2] for f in features]
    assert strides == [4, 8, min(16, output_stride), output_stride]
    assert [f.shape[1] for f in features] == list(encoder.widths)


# 7 + 2*2 + 4*2*4 + (2*4 + 3*2*8) + (2*8 + 3*2*16) + (2*16 + 3*2*32) is 435, as published;
# at output stride 8 the last two stages keep steps of 8 voxels and dilate by 1, 2 and 2, 4.
@pytest.mark.parametrize(("output_stride", "expected"), [(32, 435), (8, 99 + 32 + 64 + 64 + 128)])
def test_the_view_of_a_resnet18_voxel_is_the_closed_form(output_stride, expected):
    encoder = (
        Encoder(
            make_plan(2, PAPER_2D),
            num_inputs=1,
            shape="resnet18",
            output_stride=output_stride,
            style=Style(dims=2, norm="batch"),
        )
        .double()
        .eval()
    )
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            # Positive throughout, so that no activation hides a path.
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
        if isinstance(layer, nn.MaxPool2d):
            layer.forward = lambda x: functional.avg_pool2d(x, 3, 2, 1)
    x = torch.ones(1, 1, 992, 1, dtype=torch.float64, requires_grad=True)
    last = encoder(x)[-1]
    last[0, :, last.shape[2] // 2].sum().backward()
    seen = x.grad[0, 0, :, 0].nonzero()
    assert int(seen.max() - seen.min()) + 1 == expected


def test_atrous_pyramid_equals_convolutions_written_out_as_sums():
    style = Style(dims=2, norm="batch")
    torch.manual_seed(0)
    pyramid = AtrousPyramid(style, 3, 8, rates=(1, 2), dropout=0.5).double().eval()
    x = torch.randn(1, 3, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        branches = [brute_branch(pyramid.branches[0], x, 1)]
        branches += [brute_branch(pyramid.branches[n], x, rate) for n, rate in ((1, 1), (2, 2))]
        mean = np.einsum(
            "oc,c->o", pyramid.branches[3].unit[0].weight[:, :, 0, 0], x[0].mean((1, 2))
        )
        mean = np.maximum(mean / np.sqrt(1 + 1e-5), 0)
        branches.append(np.broadcast_to(mean[:, None, None], (8, 6, 5)))
        fused = np.einsum(
            "oc,cij->oij", pyramid.fuse[0][0].weight[:, :, 0, 0], np.concatenate(branches)
        )
        expected = np.maximum(fused / np.sqrt(1 + 1e-5), 0)
        assert np.allclose(pyramid(x)[0].numpy(), expected)


@pytest.mark.parametrize("shape", [(5, 8), (5, 8, 3)])
def test_features_brought_to_their_own_size_stay_as_they_are(shape):
    features = torch.randn(2, 3, *shape)
    assert torch.equal(enlarge(features, features.shape[2:]), features)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_separable_convolution_is_a_diagonal_one_and_a_sum_over_features(dims):
    torch.manual_seed(0)
    layers = Style(dims=dims, norm="batch").separable(3, 4, dilation=2).double().eval()
    each, mixing = layers[0].weight, layers[3].weight.flatten(1)
    diagonal = torch.zeros(3, 3, *[3] * dims, dtype=torch.float64)
    diagonal[range(3), range(3)] = each[:, 0]
    convolve = functional.conv2d if dims == 2 else functional.conv3d
    x = torch.randn(2, 3, *(6, 5, 7)[:dims], dtype=torch.float64)
    with torch.no_grad():
        # A fresh batch norm divides by the root of 1 and its epsilon.
        seen = convolve(x, diagonal, padding=2, dilation=2).relu() / np.sqrt(1 + 1e-5)
        expected = torch.einsum("oc,bc...->bo...", mixing, seen).relu() / np.sqrt(1 + 1e-5)
        assert torch.allclose(layers(x), expected)


def brute_branch(unit: nn.Sequential, x: torch.Tensor, rate: int) -> np.ndarray:
    """Convolve voxel by voxel, outside of the image 0, then a fresh batch norm and ReLU."""
    weight, image = unit[0].weight.numpy(), x[0].numpy()
    reach = weight.shape[2] // 2
    found = np.zeros((weight.shape[0], *image.shape[1:]))
    for i, j in itertools.product(range(image.shape[1]), range(image.shape[2])):
        for a, b in itertools.product(range(weight.shape[2]), repeat=2):
            row, column = i + (a - reach) * rate, j + (b - reach) * rate
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                found[:, i, j] += weight[:, :, a, b] @ image[:, row, column]
    return np.maximum(found / np.sqrt(1 + 1e-5), 0)


@pytest.mark.parametrize("dims", [2, 3])
def test_mean_pyramid_equals_means_over_parts(dims):
    style = Style(dims=dims, norm="batch")
    pyramid = MeanPyramid(style, 4, parts=(1, 2)).double().eval()
    x = torch.rand(1, 4, *(4, 6, 8)[:dims], dtype=torch.float64)
    with torch.no_grad():
        features = pyramid(x)
        assert torch.equal(features[:, :4], x)
        overall = pyramid.levels[0].unit(x.mean(dim=tuple(range(2, 2 + dims)), keepdim=True))
        assert torch.allclose(features[:, 4:6], overall.expand(-1, -1, *x.shape[2:]))
        # The corner voxel of an enlarged map is the mean over that corner's part.
        corner = x[(..., *[slice(0, n // 2) for n in x.shape[2:]])]
        part = pyramid.levels[1].unit(corner.mean(dim=tuple(range(2, 2 + dims)), keepdim=True))
        assert torch.allclose(features[(0, slice(6, 8), *[0] * dims)], part.flatten())


@pytest.mark.parametrize(
    ("name", "settings", "stride"),
    [
        ("fcn", {"variant": "32s"}, 32),
        ("fcn", {"variant": "16s"}, 16),
        ("fcn", {"variant": "8s"}, 8),
        ("fcn", {"variant": "dilated", "output_stride": 8}, 8),
        ("fcn", {"variant": "dilated", "output_stride": 16}, 16),
        ("deeplabv3", {"output_stride": 8}, 8),
        ("deeplabv3", {"output_stride": 16}, 16),
        ("deeplabv3plus", {"output_stride": 16}, 4),
        ("pspnet", {"output_stride": 8}, 8),
        ("pspnet", {"output_stride": 16}, 16),
    ],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_logits_are_made_at_the_resolution_that_the_family_is_named_for(
    name, settings, stride, dims
):
    plan = make_plan(dims, PAPER_2D if dims == 2 else PAPER_3D)
    with torch.device("meta"):
        network = build_model(name, plan=plan, num_inputs=1, num_outputs=3, settings=settings)
        dense = network.network.eval()
        logits = dense.head(dense.encoder(torch.zeros(1, 1, *[64] * dims)))
    assert logits.shape[2:] == (64 // stride,) * dims


@pytest.mark.parametrize(
    ("patch_vox", "strides", "output_stride", "rates"),
    [
        ((513, 513, 1), PAPER_2D, 16, [(6, 6), (12, 12), (18, 18)]),
        ((1024, 513, 1), PAPER_2D, 8, [(12, 12), (24, 24), (36, 36)]),
        ((256, 513, 1), PAPER_2D, 16, [(3, 6), (6, 12), (9, 18)]),
        # Hippocampus on a CPU: 5 x 7 x 5 features.
        ((40, 56, 40), ((2, 2, 2),) * 3, 16, [(1, 1, 1), (2, 3, 2), (3, 4, 3)]),
    ],
)
def test_rates_are_the_papers_for_its_stride_and_crop(patch_vox, strides, output_stride, rates):
    dims = 2 if patch_vox[2] == 1 else 3
    plan = make_plan(dims, strides)
    # The paper's crop is no multiple of any stride, which a plan would refuse.
    object.__setattr__(plan, "patch_vox", patch_vox)
    settings = {"output_stride": output_stride, "encoder": "resnet18"}
    for name in ("deeplabv3", "deeplabv3plus"):
        network = build_model(name, plan=plan, num_inputs=1, num_outputs=2, settings=settings)
        pyramid = next(m for m in network.modules() if isinstance(m, AtrousPyramid))
        assert [branch[0].dilation for branch in pyramid.branches[1:-1]] == rates


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_every_tap_of_the_context_learns_from_a_small_patch(name):
    plan = replace(make_plan(3, ((2, 2, 2),) * 3), patch_vox=(40, 56, 40))
    settings = {"encoder": "resnet18", "dropout": 0.0}
    network = build_model(name, plan=plan, num_inputs=1, num_outputs=2, settings=settings)
    network.train()(torch.randn(1, 1, 40, 56, 40)).square().sum().backward()
    pyramid = next(m for m in network.modules() if isinstance(m, AtrousPyramid))
    for branch in pyramid.branches[1:-1]:
        taps = branch[0].weight.grad.flatten(2).abs().sum((0, 1))
        assert (taps > 0).all()


def test_the_decoder_of_deeplabv3plus_sets_enlarged_context_beside_the_first_stage():
    plan = make_plan(2, PAPER_2D)
    network = build_model("deeplabv3plus", plan=plan, num_inputs=1, num_outputs=3).eval()
    head, widths = network.network.head, network.network.encoder.widths
    stages = [torch.randn(1, width, 64 // stride, 64 // stride) for width, stride in
              zip(widths, (4, 8, 16, 16), strict=True)]  # fmt: skip
    with torch.no_grad():
        deep = functional.interpolate(head.deep(stages[3]), scale_factor=4, mode="bilinear")
        expected = head.fuse(torch.cat([deep, head.shallow(stages[0])], dim=1))
        assert torch.allclose(head(stages), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))]
)
def test_parameters_of_the_shallow_encoders_are_the_published_ones(shape, blocks):
    total = 3 * 64 * 49 + 2 * 64
    features = 64
    for width, num_blocks in zip((64, 128, 256, 512), blocks, strict=True):
        for _ in range(num_blocks):
            total += 9 * width * (features + width) + 4 * width
            total += features * width + 2 * width if features != width else 0
            features = width
    # Of torchvision's documentation, less the classifier.
    assert total == {"resnet18": 11_689_512, "resnet34": 21_797_672}[shape] - 513_000
    with torch.device("meta"):
        encoder = Encoder(
            make_plan(2, PAPER_2D, base=64),
            num_inputs=3, shape=shape, output_stride=32, style=Style(dims=2),
        )  # fmt: skip
    assert count_parameters(encoder) == total


def test_where_the_plans_kernels_are_flat_the_encoders_are():
    plan = make_plan(3, ((2, 2, 1), (2, 2, 1), (2, 2, 1)))
    flat = replace(plan.network, kernels=((3, 3, 1),) * 3 + ((3, 3, 3),))
    with torch.device("meta"):
        encoder = Encoder(
            replace(plan, network=flat),
            num_inputs=1, shape="resnet18", output_stride=16, style=Style(dims=3),
        )  # fmt: skip
    assert encoder.first[0].kernel_size == (7, 7, 1)
    assert encoder.first[3].kernel_size == (3, 3, 1)
    stages = [stage[0].body[0].kernel_size for stage in encoder.stages]
    assert stages == [(3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)]


@pytest.mark.parametrize("name", ["deeplabv3", "pspnet"])
def test_a_norm_a_scan_does_not_stumble_over_the_mean_of_all(name):
    network = build_model(
        name, plan=make_plan(2, PAPER_2D), num_inputs=1, num_outputs=2,
        settings={"norm": "instance", "encoder": "resnet18"},
    )  # fmt: skip
    assert network.train()(torch.randn(1, 1, 64, 64)).isfinite().all()


@pytest.mark.parametrize("output_stride", [0, -8, 3, 64])
def test_an_output_stride_that_no_paper_has_is_refused(output_stride):
    with pytest.raises(ConfigError, match="expected 8, 16 or 32"):
        build_model(
            "deeplabv3", plan=make_plan(2, PAPER_2D), num_inputs=1, num_outputs=2,
            settings={"output_stride": output_stride},
        )  # fmt: skip


def test_fcn_8s_adds_the_scores_of_three_stages():
    plan = make_plan(2, PAPER_2D)
    settings = {"variant": "8s", "encoder": "resnet18"}
    network = build_model("fcn", plan=plan, num_inputs=1, num_outputs=3, settings=settings).eval()
    head = network.network.head
    stages = [torch.randn(1, width, 64 // stride, 64 // stride) for width, stride in
              zip(network.network.encoder.widths, (4, 8, 16, 32), strict=True)]  # fmt: skip
    with torch.no_grad():
        deepest = functional.interpolate(head.deepest(stages[3]), scale_factor=2, mode="bilinear")
        finer = deepest + head.shallower[0](stages[2])
        finest = functional.interpolate(finer, scale_factor=2, mode="bilinear")
        expected = finest + head.shallower[1](stages[1])
        assert torch.allclose(head(stages), expected, atol=1e-6)


def test_the_auxiliary_head_is_trained_and_prediction_does_without():
    plan = make_plan(2, PAPER_2D, auxiliary=True)
    network = build_model("pspnet", plan=plan, num_inputs=1, num_outputs=3)
    x = torch.randn(2, 1, 64, 64)
    fine, coarse = network.train()(x)
    assert fine.shape == (2, 3, 64, 64)
    assert coarse.shape == (2, 3, 8, 8)
    assert isinstance(network.eval()(x), torch.Tensor)
    without = replace(plan, network=replace(plan.network, deep_supervision=False))
    assert isinstance(
        build_model("pspnet", plan=without, num_inputs=1, num_outputs=3)(x), torch.Tensor
    )


@pytest.mark.parametrize(
    ("name", "settings"), [("fcn", {"variant": "4s"}), ("pspnet", {"encoder": "vgg16"})]
)
def test_a_shape_that_does_not_exist_is_refused_naming_those_that_do(name, settings):
    plan = make_plan(2, PAPER_2D)
    with pytest.raises(ConfigError, match="expected"):
        build_model(name, plan=plan, num_inputs=1, num_outputs=2, settings=settings)
