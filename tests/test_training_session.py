"""Between steps: what is saved can be resumed, and an end that comes twice counts once."""

import torch

from medseg.runtime.console import LiveProgress
from medseg.training.progress import ProgressLine
from medseg.training.session import Cadence, Session
from medseg.training.state import TrainingState, WeightAverage


class NoMetrics:
    def log_metrics(self, values, *, step):
        pass


def session_at(folder, step, history):
    network = torch.nn.Linear(2, 2)
    state = TrainingState(
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        average=WeightAverage(network),
        step=step,
        num_steps=step,
        history=history,
    )
    return Session(
        state=state,
        folder=folder,
        cadence=Cadence(),
        metrics=NoMetrics(),
        progress=ProgressLine(shown=LiveProgress()),
        validate=lambda **_: {"ball": 0.5, "mean": 0.5},
        pack=lambda _: None,
    )


def test_a_training_killed_after_its_last_save_and_resumed_has_one_last_validation(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("medseg.training.session.save_checkpoint", lambda *_: None)
    history = [{"step": 5, "ball": 0.2, "mean": 0.2}]
    for _ in range(2):
        session_at(tmp_path, 10, history).finish()
    assert [row["step"] for row in history] == [5, 10]
