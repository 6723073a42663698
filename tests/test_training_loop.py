"""Training: it learns, it goes on bit for bit after a stop, and it stops when it must."""

import itertools
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg.core.errors import ConfigError, TrainingError
from medseg.data.patches import Batch
from medseg.losses.deep_supervision import DeepSupervision
from medseg.losses.registry import build_loss
from medseg.models.tensor_file import load_tensors, save_tensors
from medseg.runtime.interrupt import Interruption
from medseg.training.loop import Recipe, fit
from medseg.training.schedule import Budget, Constant, Cosine, Polynomial, seconds_of
from medseg.training.state import TrainingState, WeightAverage
from medseg.transforms.augment import Augment
from medseg.transforms.motion import SpatialAugment

PATCH = (8, 8, 8)


def begin(num_steps=None, lr=1e-2):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Dropout3d(0.2), torch.nn.Conv3d(4, 2, 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    return TrainingState(
        network=network,
        optimizer=optimizer,
        average=WeightAverage(network),
        num_steps=num_steps,
    )


def bright_is_one(first):
    for step in itertools.count(first):
        rng = np.random.default_rng(step)
        image = torch.from_numpy(rng.normal(size=(2, 1, 10, 10, 10)).astype(np.float32))
        yield Batch(image, (image[:, 0] > 0).long(), None, ("a", "b"))


def train(state, num_steps, *, stop_at=None, source=bright_is_one, schedule=None, **recipe):
    interruption, reports = Interruption(), []

    def after_step(report):
        reports.append(report)
        if report.step == stop_at:
            interruption.signal = 15

    fit(
        state,
        source,
        recipe=Recipe(
            schedule=schedule or Cosine(warmup_steps=3),
            budget=Budget(num_steps=num_steps, max_time_s=None),
            **{
                "augment": Augment(patch_vox=PATCH),
                "loss": DeepSupervision(build_loss("dice_ce", num_outputs=2, ignore_index=None)),
                **recipe,
            },
        ),
        device=torch.device("cpu"),
        interruption=interruption,
        after_step=after_step,
    )
    return reports


def test_the_loss_falls():
    reports = train(begin(80), 80)
    losses = [report.loss for report in reports]
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])


@pytest.mark.parametrize("stop_at", [1, 7, 12])
def test_a_stopped_and_resumed_training_ends_with_the_same_weights(tmp_path, stop_at):
    whole = begin(20)
    losses = [report.loss for report in train(whole, 20)]

    first = begin(20)
    before = [report.loss for report in train(first, 20, stop_at=stop_at)]
    save_tensors(first.to_tensors(), tmp_path / "state.pt")
    torch.manual_seed(999)
    second = begin(20)
    second.load(load_tensors(tmp_path / "state.pt"))
    after = [report.loss for report in train(second, 20)]

    assert before + after == losses
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
        assert torch.equal(whole.average.weights[name], second.average.weights[name])


def test_the_loss_hears_which_side_of_a_mirrored_patch_was_annotated():
    """Only the left (1) was annotated, and is all there is."""
    heard = []

    def source(first):
        for batch in bright_is_one(first):
            known = torch.tensor([[True, True, False]] * len(batch.image_BCIJK))
            yield replace(batch, label_BIJK=torch.ones_like(batch.label_BIJK), annotated_BL=known)

    def loss(logits_BLIJK, label_BIJK, annotated_BL):
        heard.extend(zip(label_BIJK[:, 0, 0, 0].tolist(), annotated_BL.tolist(), strict=True))
        return logits_BLIJK.square().mean()

    spatial = SpatialAugment(mirror_axes=(0,), mirror_order=(0, 2, 1))
    train(begin(8), 8, source=source, augment=Augment(patch_vox=PATCH, spatial=spatial), loss=loss)
    assert {side for side, _ in heard} == {1, 2}
    assert all(known[side] and not known[3 - side] for side, known in heard)


def test_running_means_of_frozen_layers_stay_until_they_thaw():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.BatchNorm3d(4), torch.nn.Conv3d(4, 2, 1)
    )
    state = TrainingState(
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-2),
        average=WeightAverage(network),
        num_steps=6,
        frozen=tuple(name for name in network.state_dict() if name[0] in "01"),
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train(state, 6, stop_at=4, frozen_steps=4)
    for held in (network.state_dict(), state.average.weights):
        changed = {name for name, value in held.items() if not torch.equal(value, before[name])}
        assert changed == {"2.weight", "2.bias"}
    train(state, 6, frozen_steps=4)
    assert not torch.equal(network.state_dict()["1.running_mean"], before["1.running_mean"])


def test_a_signal_stops_between_two_steps():
    state = begin(50)
    assert len(train(state, 50, stop_at=5)) == 5
    assert state.step == 5
    assert not state.finished


def test_steps_without_a_finite_loss_change_nothing_and_then_stop_training():
    def poisoned(first):
        for batch in bright_is_one(first):
            batch.image_BCIJK[:] = float("nan")
            yield batch

    state = begin(50)
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    with pytest.raises(TrainingError, match="last cases: a, b"):
        train(state, 50, source=poisoned)
    for name, value in state.network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("num_steps", [0, -1, 2.5, "many"])
def test_a_budget_of_no_steps_is_refused_not_replaced(num_steps):
    with pytest.raises(ConfigError, match=f"training.max_steps={num_steps}: expected a whole"):
        Budget(num_steps=num_steps, max_time_s=None)


def test_averaged_weights_lag_behind_and_converge():
    state = begin(40)
    train(state, 40, schedule=Constant())
    distance = max(
        float((value - state.average.weights[name]).abs().max())
        for name, value in state.network.state_dict().items()
    )
    assert 0 < distance < 0.2
    for step in range(40, 6000):
        state.average.update(state.network, step)
    for name, value in state.network.state_dict().items():
        torch.testing.assert_close(state.average.weights[name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("schedule", [Cosine(warmup_steps=5), Polynomial(warmup_steps=5)])
def test_schedules_rise_then_fall_to_zero_and_stay_up_while_the_end_is_unknown(schedule):
    factors = [schedule(step, 100) for step in range(101)]
    assert factors[0] < factors[4] < 1 == factors[5]
    assert all(b <= a for a, b in itertools.pairwise(factors[5:]))
    assert factors[100] == pytest.approx(0, abs=1e-9)
    assert schedule(80, None) == 1


def test_a_time_budget_becomes_a_step_count_at_every_turn():
    budget = Budget(num_steps=None, max_time_s=100.0)
    assert budget.count(5, seconds=5.0, last_s=1.0, pace_s=1.0) is None
    assert budget.count(20, seconds=10.0, last_s=0.5, pace_s=0.5) == 20 + 180
    assert budget.count(21, seconds=10.5, last_s=0.5, pace_s=0.5) is None
    assert budget.count(3, seconds=120.0, last_s=40.0, pace_s=40.0) == 3


@pytest.mark.parametrize("slow_until_s", [0, 5, 30, 60])
def test_a_machine_that_changes_its_pace_spends_the_time_it_was_given(slow_until_s):
    budget, paces = Budget(num_steps=None, max_time_s=100.0), deque(maxlen=300)
    seconds, counted = 0.0, None
    for step in itertools.count(1):
        paces.append(0.2 if seconds < slow_until_s else 0.05)
        seconds += paces[-1]
        now = {"seconds": seconds, "last_s": paces[-1], "pace_s": np.mean(paces)}
        counted = budget.count(step, **now) or counted
        if counted is not None and step >= counted:
            break
    assert 90 < seconds < 100.3


def test_a_step_limit_caps_a_time_budget():
    budget = Budget(num_steps=50, max_time_s=100.0)
    assert budget.count(40, seconds=10.0, last_s=0.5, pace_s=0.5) == 50


def test_a_step_limit_is_kept_before_the_first_turn_of_a_time_budget():
    budget = Budget(num_steps=50, max_time_s=1000.0)
    assert budget.count(1, seconds=0.1, last_s=0.1, pace_s=0.1) == 50


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (45, 45),
        ("150s", 150),
        ("10m", 600),
        ("1h30m", 5400),
        ("0.5h", 1800),
        ("1d", 86400),
    ],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "-5m", "5x", "0s", "m"])
def test_other_durations_are_refused(text):
    with pytest.raises(ConfigError, match="duration"):
        seconds_of(text)
