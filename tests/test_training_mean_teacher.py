"""The teacher is the average of past weights; students are drawn to it, and it to nobody."""

import math

import pytest
import torch
from small_networks import NUM_INPUTS, NUM_OUTPUTS, make_network, make_plan
from torch import nn

from medseg.core.errors import ConfigError
from medseg.training.mean_teacher import Consistency, MeanTeacher
from medseg.training.state import TrainingState, WeightAverage
from medseg.transforms.augment import Augment, IntensityAugment
from medseg.transforms.motion import SpatialAugment

QUIET = IntensityAugment(noise=0, blur=0, brightness=0, contrast=0, gamma=0)


def state_of(network: nn.Module, step: int = 10_000) -> TrainingState:
    return TrainingState(
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        average=WeightAverage(network),
        step=step,
    )


def consistency(intensity: IntensityAugment = QUIET, **changes) -> Consistency:
    augment = Augment(
        patch_vox=(4, 4, 4), spatial=SpatialAugment(probability=0), intensity=intensity
    )
    given = {"num_outputs": 3, "overlapping": False, "flat": False, **changes}
    return Consistency(settings=MeanTeacher(weight=2.0), augment=augment, **given)


def image() -> torch.Tensor:
    return torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_weight_rises_as_published_and_stays():
    teacher = MeanTeacher(weight=0.5, ramp_up_steps=100)
    assert teacher.weight_at(0) == pytest.approx(0.5 * math.exp(-5))
    assert teacher.weight_at(50) == pytest.approx(0.5 * math.exp(-1.25))
    assert teacher.weight_at(100) == teacher.weight_at(9999) == 0.5


def test_a_network_that_is_its_own_average_agrees_with_itself():
    state = state_of(nn.Conv3d(1, 3, 3, padding=1))
    assert consistency()(state, image(), generator=generator()).item() == pytest.approx(
        0, abs=1e-12
    )
    # Unless the two are shown different views of a patch.
    noisy = consistency(IntensityAugment(noise=1.0, noise_std=1.0))
    assert noisy(state, image(), generator=generator()).item() > 1e-4


@pytest.mark.parametrize("overlapping", [False, True])
def test_the_loss_is_the_squared_difference_of_probabilities_to_the_averaged_network(overlapping):
    network, teacher = nn.Conv3d(1, 3, 1), nn.Conv3d(1, 3, 1)
    state = state_of(network)
    state.average.weights = {n: v.detach().clone() for n, v in teacher.state_dict().items()}
    found = consistency(overlapping=overlapping)(state, image(), generator=generator())
    # Mirrors move patches for both alike, which a 1 x 1 x 1 filter does not see in the mean.
    act = torch.sigmoid if overlapping else (lambda x: x.softmax(1))
    expected = 2.0 * (act(network(image())) - act(teacher(image()))).square().mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert not any(weight.requires_grad for weight in state.average.weights.values())


def test_only_classes_are_compared_and_only_the_finest_output():
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 5, 1)

        def forward(self, x: torch.Tensor):
            logits = self.conv(x)
            return (logits, logits[..., ::2]) if self.training else logits

    state = state_of(Many())
    with torch.no_grad():
        for name, weight in state.average.weights.items():
            weight[3:] += 7.0  # channels that tell objects apart
            assert name.startswith("conv")
    loss = consistency()(state, image(), generator=generator())
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert state.network.training


def test_a_network_that_names_its_layers_twice_has_a_teacher():
    network = make_network("dynunet", make_plan())
    state = state_of(network)
    image_BCIJK = torch.randn(1, NUM_INPUTS, 16, 16, 16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    teacher = Consistency(
        settings=MeanTeacher(),
        augment=Augment(patch_vox=(16, 16, 16), intensity=QUIET),
        num_outputs=NUM_OUTPUTS,
        overlapping=False,
        flat=False,
    )
    agreed = teacher(state, image_BCIJK, generator=generator()).item()
    assert agreed == pytest.approx(0, abs=1e-10)
    for value in state.average.weights.values():
        value.add_(torch.randn_like(value))
    assert teacher(state, image_BCIJK, generator=generator()).item() > 1e-6
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())


def test_a_flat_network_takes_flat_patches():
    state = state_of(nn.Conv2d(1, 3, 1))
    flat = Consistency(
        settings=MeanTeacher(),
        augment=Augment(patch_vox=(4, 4, 1), intensity=QUIET),
        num_outputs=3,
        overlapping=False,
        flat=True,
    )
    assert flat(state, image()[..., :1], generator=generator()).item() == pytest.approx(
        0, abs=1e-12
    )


def test_settings_without_meaning_are_refused():
    for given in ({"weight": 0.0}, {"weight": float("nan")}, {"ramp_up_steps": 0}):
        with pytest.raises(ConfigError, match=r"training\.mean_teacher"):
            MeanTeacher(**given)
