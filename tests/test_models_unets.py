"""U-Nets against their papers: weights counted layer by layer, levels that are scored."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from small_networks import make_network, make_plan
from torch import nn

from medseg.core.plan import NetworkPlan
from medseg.models.cost import count_parameters
from medseg.models.registry import build_model

PAPER_WIDTHS = (64, 128, 256, 512, 1024)
# nnU-Net's presets M and L share a network; what tells them apart is patch and batch.
RESENC_WIDTHS, RESENC_BLOCKS = (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6)


def plan_of(dims, widths):
    step, kernel = ((2, 2, 2), (3, 3, 3)) if dims == 3 else ((2, 2, 1), (3, 3, 1))
    network = NetworkPlan(
        widths=widths, strides=(step,) * (len(widths) - 1), kernels=(kernel,) * len(widths)
    )
    return replace(make_plan(dims), patch_vox=(64, 64, 64 if dims == 3 else 1), network=network)


def built(name, dims, widths, *, num_inputs=1, num_outputs=2, **settings):
    with torch.device("meta"):
        return build_model(
            name,
            plan=plan_of(dims, widths),
            num_inputs=num_inputs,
            num_outputs=num_outputs,
            settings=settings,
        )


@pytest.mark.parametrize("dims", [2, 3])
def test_the_classic_unet_has_the_layers_of_its_paper(dims):
    def conv(seen, width, edge):
        return seen * width * edge**dims + width

    expected = conv(1, 64, 3) + conv(64, 64, 3)
    for above, width in pairwise(PAPER_WIDTHS):
        down = conv(above, width, 3) + conv(width, width, 3)
        up = conv(width, above, 2) + conv(2 * above, above, 3) + conv(above, above, 3)
        expected += down + up
    expected += conv(64, 2, 1)
    network = built("classic_unet", dims, PAPER_WIDTHS, norm=None)
    assert count_parameters(network) == expected
    # The figure that is told everywhere of the network of 2015.
    assert dims == 3 or round(expected / 1e6) == 31


def test_the_classic_unet_pools_by_the_maximum_and_works_at_full_resolution_first():
    network = make_network("classic_unet", make_plan(2)).network
    seen = []
    network.down[0].register_forward_hook(lambda _, __, out: seen.append(out))
    network.down[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(torch.randn(1, 2, 16, 16))
    assert seen[0].shape[2:] == (16, 16)
    assert torch.equal(seen[1], seen[0].unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_residual_encoder_unet_has_the_layers_of_nnunets_presets(dims):
    def conv(seen, width, edge):
        return seen * width * edge**dims + width

    def normed(seen, width, edge):
        return conv(seen, width, edge) + 2 * width

    expected = normed(1, 32, 3)
    before = (32, *RESENC_WIDTHS[:-1])
    for seen, width, blocks in zip(before, RESENC_WIDTHS, RESENC_BLOCKS, strict=True):
        first = normed(seen, width, 3) + normed(width, width, 3)
        shortcut = seen * width + 2 * width if seen != width else 0
        expected += first + shortcut + (blocks - 1) * 2 * normed(width, width, 3)
    for above, width in pairwise(RESENC_WIDTHS):
        expected += conv(width, above, 2) + normed(2 * above, above, 3)
    expected += conv(32, 3, 1)
    network = built("resenc_unet", dims, RESENC_WIDTHS, num_outputs=3)
    assert count_parameters(network) == expected
    # What nnU-Net's own network counts in 3D, with deep supervision.
    coarser = sum(conv(width, 3, 1) for width in RESENC_WIDTHS[1:-1])
    assert dims == 2 or expected + coarser == 102_350_575


@pytest.mark.parametrize("name", ["classic_unet", "unetplusplus", "dynunet", "resenc_unet"])
def test_a_levels_kernel_is_the_plans(name):
    plan = make_plan(3, ((2, 2, 1), (2, 2, 2)))
    plan = replace(plan, network=replace(plan.network, kernels=((3, 3, 1), (3, 3, 3), (1, 3, 3))))
    found = {tuple(w.shape[2:]) for w in make_network(name, plan).parameters() if w.ndim == 5}
    assert {(3, 3, 1), (3, 3, 3), (1, 3, 3)} <= found
    first = next(w for w in make_network(name, plan).parameters() if w.ndim == 5)
    assert tuple(first.shape[2:]) == (3, 3, 1)


@pytest.mark.parametrize("name", ["unet", "resunet"])
def test_a_light_unet_begins_at_full_resolution_where_the_plan_says_so(name):
    plan = make_plan(2)
    fine = replace(plan, network=replace(plan.network, full_resolution=True))
    for chosen, steps in ((plan, [2, 2]), (fine, [1, 2, 2])):
        convs = [m for m in make_network(name, chosen).modules() if isinstance(m, nn.Conv2d)]
        assert convs[0].stride[0] == steps[0]
        network = make_network(name, chosen).eval()
        assert network(torch.zeros(1, 2, 16, 16)).shape == (1, 3, 16, 16)
        assert sorted(m.stride[0] for m in network.modules()
                      if isinstance(m, nn.ConvTranspose2d)) == sorted(steps)  # fmt: skip


def test_mednexts_larger_sizes_widen_and_repeat_their_blocks_both_ways():
    network = built("mednext", 2, (32, 64, 128), expansion=[2, 3, 4], num_blocks=[3, 4])
    blocks = [m for m in network.modules() if type(m).__name__ == "MedNeXtBlock"]
    ratios = [block.conv2.out_channels // block.conv2.in_channels for block in blocks]
    assert ratios == [2] * 3 + [3] * 4 + [4] * 4 + [3] * 4 + [2] * 3


def test_segresnet_scores_every_level_of_its_decoder_under_deep_supervision():
    plan = make_plan(3, deep_supervision=True)
    network = make_network("segresnet", plan)
    logits = network.train()(torch.randn(1, 2, 16, 16, 16))
    assert [tuple(level.shape[2:]) for level in logits] == [(16,) * 3, (8,) * 3]
    plain = make_network("segresnet", make_plan(3)).state_dict()
    assert plain.keys() < network.state_dict().keys()
