"""U-Nets against their papers: weights counted layer by layer, levels that are scored."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from small_networks import make_network, make_plan

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
        shortcut = normed(seen, width, 1) if seen != width else 0
        expected += first + shortcut + (blocks - 1) * 2 * normed(width, width, 3)
    for above, width in pairwise(RESENC_WIDTHS):
        expected += conv(width, above, 2) + normed(2 * above, above, 3)
    expected += conv(32, 2, 1)
    assert count_parameters(built("resenc_unet", dims, RESENC_WIDTHS)) == expected


def test_segresnet_scores_every_level_of_its_decoder_under_deep_supervision():
    plan = make_plan(3, deep_supervision=True)
    network = make_network("segresnet", plan)
    logits = network.train()(torch.randn(1, 2, 16, 16, 16))
    assert [tuple(level.shape[2:]) for level in logits] == [(16,) * 3, (8,) * 3]
    plain = make_network("segresnet", make_plan(3)).state_dict()
    assert plain.keys() < network.state_dict().keys()
