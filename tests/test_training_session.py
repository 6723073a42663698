"""Between steps: what is saved can be resumed, and an end that comes twice counts once."""

import pytest
import torch

from medseg.core.errors import WriteError
from medseg.runtime.console import LiveProgress
from medseg.training.loop import StepReport
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


def test_a_full_disk_is_told_and_training_goes_on_until_its_last_save(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("medseg.training.session.save_checkpoint", lambda *_: None)
    session = session_at(tmp_path, 10, [])
    session.cadence = Cadence(checkpoint_every_s=-1.0)
    session.after_step(StepReport(10, 0.5, 0.1, 0.1))
    kept = (tmp_path / "state.pt").read_bytes()

    def full(*_):
        raise WriteError(f"{tmp_path}/state.pt: no space left", code="OUT-001")

    monkeypatch.setattr("medseg.training.session.save_tensors", full)
    session.after_step(StepReport(11, 0.5, 0.1, 0.1))
    told = capsys.readouterr()
    assert "not saved, training goes on: OUT-001" in told.out + told.err
    assert (tmp_path / "state.pt").read_bytes() == kept
    with pytest.raises(WriteError, match="no space left"):
        session.finish()
