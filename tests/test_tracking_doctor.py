"""`medseg doctor`: what there is, and the way of a spool to the store afterwards."""

import pytest
from mlflow import MlflowClient
from tracking_stub import put_store

from medseg.cli import main
from medseg.tracking.record import read_record
from medseg.tracking.store import store_uri
from medseg.tracking.tracker import open_tracker


@pytest.fixture
def left_run(tmp_path, medseg_home, monkeypatch):
    """A run of which everything is still in the spool."""
    put_store(medseg_home)
    monkeypatch.setattr("medseg.tracking.tracker.start_sender", lambda *_: None)
    folder = tmp_path / "a run"
    tracker = open_tracker(uri=None, experiment="exp", run_name="r", folder=folder)
    tracker.log_metrics({"loss": 0.5}, step=0)
    tracker.close("FINISHED")
    return folder


def test_it_names_versions_the_store_and_what_is_unsent(left_run, medseg_home, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for fact in ("torch", "monai", "mlflow", "cores", "memory", str(medseg_home), "reachable"):
        assert fact in said
    (line,) = [line for line in said.splitlines() if str(left_run) in line]
    assert "3 events" in line


def test_it_replays_what_a_run_left(left_run, capsys):
    assert main(["doctor", "--replay", str(left_run)]) == 0
    assert "3 events sent" in capsys.readouterr().out
    run = MlflowClient(tracking_uri=store_uri(None)).get_run(read_record(left_run).run_id)
    assert run.data.metrics == {"loss": 0.5}
    assert main(["doctor", "--replay", str(left_run)]) == 0
    assert "0 events sent" in capsys.readouterr().out
    main(["doctor"])
    assert str(left_run) not in capsys.readouterr().out


def test_what_cannot_be_sent_is_told_and_fails(left_run, capsys):
    store = MlflowClient(tracking_uri=store_uri(None))
    main(["doctor", "--replay", str(left_run)])
    store.delete_run(read_record(left_run).run_id)
    tracker = open_tracker(uri=None, experiment="exp", run_name="r", folder=left_run)
    tracker.close("FINISHED")
    capsys.readouterr()
    assert main(["doctor", "--replay", str(left_run)]) == 3
    assert "2 left" in capsys.readouterr().out


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["doctor", "--replay", str(tmp_path)]) == 2
    assert "tracking.json" in capsys.readouterr().err
