"""What a network costs, against closed forms."""

import torch
from torch import nn

from medseg.models.cost import Cost, cost_of


def test_a_convolution_costs_two_operations_a_weight_and_output_voxel_in_2d_and_3d():
    for conv, shape in ((nn.Conv2d, (7, 6)), (nn.Conv3d, (7, 6, 5))):
        dims = len(shape)
        network = conv(3, 8, 3, padding=1).train()
        cost = cost_of(network, (1, 3, *shape))
        weights = 3 * 8 * 3**dims
        assert cost.num_parameters == weights + 8
        assert cost.patch_flops == 2 * weights * torch.Size(shape).numel()
        assert network.training


def test_frozen_weights_are_not_counted_as_parameters_but_cost_operations():
    network = nn.Linear(4, 5, bias=False)
    network.weight.requires_grad_(False)
    cost = cost_of(network, (1, 4))
    assert (cost.num_parameters, cost.patch_flops) == (0, 40)


def test_numbers_are_told_with_three_digits():
    told = str(Cost(num_parameters=1_934_017, patch_flops=2_500_000_000_000))
    assert told == "1.93 M parameters, 2.5 TFLOP a patch"
    assert str(Cost(num_parameters=12, patch_flops=0)) == "12 parameters, 0 FLOP a patch"
