"""A run's way from the spool into a real store: everything once, nothing of the user's."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from tracking_stub import put_store

from medseg.core.errors import ReadError
from medseg.tracking.fields import TEST_SPLIT_TAG
from medseg.tracking.outbox import Outbox
from medseg.tracking.record import read_record, unsent_folders
from medseg.tracking.sender import replay
from medseg.tracking.store import store_uri
from medseg.tracking.tracker import Tracker, open_tracker


@pytest.fixture(autouse=True)
def store(medseg_home):
    put_store(medseg_home)
    return MlflowClient(tracking_uri=store_uri(None))


@pytest.fixture(autouse=True)
def no_sender(monkeypatch):
    """Leave everything in the spool, so that the test itself sends it."""

    def refuse(*_):
        raise OSError("no process in this test")

    monkeypatch.setattr("medseg.tracking.tracker.start_sender", refuse)


def tracked(folder, parent=None, name="run"):
    return open_tracker(uri=None, experiment="exp", run_name=name, folder=folder, parent=parent)


def run_of(store, folder):
    return store.get_run(read_record(folder).run_id)


def curve(store, folder, name):
    points = store.get_metric_history(read_record(folder).run_id, name)
    return [(point.step, point.value) for point in points]


def test_what_was_logged_is_in_the_store(tmp_path, store):
    tracker = tracked(tmp_path)
    tracker.log_params({"model": {"name": "unet"}, "long": "x" * 9000})
    tracker.set_tags({"stage": "test"})
    for step in range(3):
        tracker.log_metrics({"loss": 1 / (step + 1), "dice/a+": step / 10}, step=step)
    tracker.log_text("seed: 1\n", "setup/config.yaml")
    (tmp_path / "curve.png").write_bytes(b"png")
    tracker.log_file(tmp_path / "curve.png", "figures")
    assert tracker.run_id is None
    tracker.close("FINISHED")

    assert replay(tmp_path).num_left == 0
    run = run_of(store, tmp_path)
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["model.name"] == "unet"
    assert run.data.params["long"].endswith("[cut, 9000 characters]")
    assert run.data.tags["stage"] == "test"
    assert curve(store, tmp_path, "loss") == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert curve(store, tmp_path, "dice/a_") == [(0, 0.0), (1, 0.1), (2, 0.2)]
    artifacts = LocalArtifactRepository(run.info.artifact_uri)
    assert [found.path for found in artifacts.list_artifacts("figures")] == ["figures/curve.png"]
    assert [found.path for found in artifacts.list_artifacts("setup")] == ["setup/config.yaml"]
    assert tracker.run_id == run.info.run_id


def test_no_user_and_no_path_of_the_machine_reaches_the_store(tmp_path, store, monkeypatch):
    monkeypatch.setenv("USER", "Dr_Mueller")
    monkeypatch.setenv("LOGNAME", "Dr_Mueller")
    tracker = tracked(tmp_path)
    tracker.log_params({"manifest": str(tmp_path / "patients.json"), "data_root": tmp_path})
    (tmp_path / "model.pt").write_bytes(b"weights")
    tracker.log_model(tmp_path)
    tracker.close("FINISHED")
    replay(tmp_path)

    run = run_of(store, tmp_path)
    shown = str({**run.data.tags, **run.data.params, "user": run.info.user_id})
    (model,) = store.search_logged_models([run.info.experiment_id])
    shown += str(model.tags) + resolve_logged(model, "MLmodel").read_text()
    assert "Mueller" not in shown
    assert str(tmp_path) not in shown
    assert not {"mlflow.user", "mlflow.source.name"} & {*run.data.tags, *model.tags}


def test_looks_at_a_test_split_are_counted_for_each_manifest(tmp_path, store):
    for number, split in enumerate(["one", "one", "other", "one", None]):
        tracker = tracked(tmp_path / str(number))
        if split:
            tracker.set_tags({TEST_SPLIT_TAG: split})
        tracker.close("FINISHED")
        assert replay(tmp_path / str(number)).num_left == 0
    tags = [run_of(store, tmp_path / str(number)).data.tags for number in range(5)]
    assert [tag.get("test_split_looks") for tag in tags] == ["1", "2", "1", "3", None]


def resolve_logged(model, name):
    return Path(LocalArtifactRepository(model.artifact_location).artifact_dir) / name


def test_sending_twice_adds_nothing(tmp_path, store):
    tracker = tracked(tmp_path)
    tracker.log_metrics({"loss": 1.0, "nothing": float("nan")}, step=0)
    tracker.log_text("a", "a.txt")
    (tmp_path / "model.pt").write_bytes(b"weights")
    tracker.log_model(tmp_path)
    tracker.close("FINISHED")
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "spool", kept)
    assert replay(tmp_path).num_sent == 5
    assert replay(tmp_path).num_sent == 0

    # A sender that died after sending and before noting it down sends everything again.
    shutil.rmtree(tmp_path / "spool")
    kept.rename(tmp_path / "spool")
    assert replay(tmp_path).num_sent == 5
    assert curve(store, tmp_path, "loss") == [(0, 1.0)]
    assert len(curve(store, tmp_path, "nothing")) == 1
    run = run_of(store, tmp_path)
    assert len(store.search_runs([run.info.experiment_id])) == 1
    assert len(store.search_logged_models([run.info.experiment_id])) == 1


def test_a_run_whose_id_was_never_written_down_is_found_again(tmp_path, store):
    tracked(tmp_path).close("FINISHED")
    replay(tmp_path)
    first = read_record(tmp_path).run_id
    path = tmp_path / "tracking.json"
    path.write_text(path.read_text().replace(f'"{first}"', "null"))
    replay(tmp_path)
    assert read_record(tmp_path).run_id == first


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_says(tmp_path, store, status):
    tracked(tmp_path).close(status)
    replay(tmp_path)
    assert run_of(store, tmp_path).info.status == status


def test_a_training_that_died_without_a_word_is_killed(tmp_path, store):
    code = (
        "import os, pathlib, sys\n"
        "from medseg.tracking.tracker import open_tracker\n"
        "tracker = open_tracker(uri=sys.argv[2], experiment='exp', run_name='r',"
        " folder=pathlib.Path(sys.argv[1]))\n"
        "tracker.log_metrics({'loss': 1.0}, step=0)\n"
        "os.kill(tracker._sender.pid, 9)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    uri = store_uri(None)
    subprocess.run([sys.executable, "-c", code, str(tmp_path), uri], check=False)
    assert replay(tmp_path).num_left == 0
    assert run_of(store, tmp_path).info.status == "KILLED"
    assert curve(store, tmp_path, "loss") == [(0, 1.0)]


def test_a_resumed_run_goes_on_under_its_id(tmp_path, store):
    first = tracked(tmp_path)
    first.log_params({"lr": 0.1, "epochs": 3})
    first.log_metrics({"loss": 1.0}, step=0)
    first.close("KILLED")
    replay(tmp_path)
    run_id = read_record(tmp_path).run_id

    second = tracked(tmp_path, name="another name")
    assert second.run_id == run_id
    second.log_params({"lr": 0.1, "epochs": 5})
    second.log_metrics({"loss": 0.5}, step=1)
    replay(tmp_path)
    assert run_of(store, tmp_path).info.status == "RUNNING"
    second.close("FINISHED")
    replay(tmp_path)
    run = run_of(store, tmp_path)
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert curve(store, tmp_path, "loss") == [(0, 1.0), (1, 0.5)]
    # MLflow keeps the first value of a parameter for ever.
    assert run.data.params == {"lr": "0.1", "epochs": "3"}
    assert run.data.tags["resumed.epochs"] == "5"


def test_a_folder_has_one_tracker_at_a_time(tmp_path, capsys):
    first = tracked(tmp_path)
    second = tracked(tmp_path)
    second.log_metrics({"loss": 2.0}, step=0)
    second.close("FINISHED")
    first.close("FINISHED")
    assert "another process is tracking" in capsys.readouterr().err
    assert [event.kind for event in Outbox(tmp_path).unsent()] == ["start", "end"]


def test_a_tracker_that_is_off_does_nothing(tmp_path):
    for tracker in (
        Tracker(),
        open_tracker(uri=None, experiment="e", run_name="r", folder=tmp_path / "r", enabled=False),
    ):
        tracker.log_params({"a": 1})
        tracker.log_metrics({"a": 1.0}, step=0)
        tracker.log_file(tmp_path / "absent")
        tracker.log_text("a", "a.txt")
        tracker.log_model(tmp_path)
        tracker.set_tags({"a": 1})
        assert tracker.run_id is None
        tracker.close("FAILED")
    assert list(tmp_path.iterdir()) == []


def test_nothing_raises_into_the_training(tmp_path, capsys):
    tracker = tracked(tmp_path)
    tracker.log_file(tmp_path / "absent.png")
    tracker.log_model(tmp_path / "absent")
    tracker.log_metrics({"loss": "not a number"}, step=0)
    tracker.close("FINISHED")
    tracker.close("FINISHED")
    tracker.log_metrics({"loss": 1.0}, step=0)
    assert [event.kind for event in Outbox(tmp_path).unsent()] == ["start", "end"]
    assert "not logged" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_switches_tracking_off(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    tracker = tracked(tmp_path / "file" / "run")
    tracker.log_metrics({"loss": 1.0}, step=0)
    tracker.close("FINISHED")
    assert "tracking is off for this run" in capsys.readouterr().err


def test_an_artifact_that_cannot_be_stored_holds_nothing_else_up(tmp_path, store, monkeypatch):
    def no_such_plugin(*_):
        raise ModuleNotFoundError("No module named 'boto3'")

    tracker = tracked(tmp_path)
    tracker.log_text("a", "a.txt")
    tracker.log_metrics({"loss": 1.0}, step=0)
    tracker.close("FINISHED")
    with monkeypatch.context() as patched:
        patched.setattr(LocalArtifactRepository, "log_artifact", no_such_plugin)
        done = replay(tmp_path)
    assert done.num_left == 1
    assert "boto3" in done.reason
    assert unsent_folders() == [tmp_path]
    assert run_of(store, tmp_path).info.status == "FINISHED"
    assert curve(store, tmp_path, "loss") == [(0, 1.0)]

    assert replay(tmp_path).num_left == 0
    assert unsent_folders() == []
    assert (resolve_run(store, tmp_path) / "a.txt").read_text() == "a"


def resolve_run(store, folder):
    return Path(LocalArtifactRepository(run_of(store, folder).info.artifact_uri).artifact_dir)


def test_an_event_the_store_refuses_is_passed_over(tmp_path, store):
    tracker = tracked(tmp_path)
    tracker.log_metrics({"good": 1.0}, step=0)
    tracker._spool.append("metrics", {"values": {"bad\n": 1.0}, "step": 0})
    tracker.log_metrics({"good": 2.0}, step=1)
    tracker.close("FINISHED")
    assert replay(tmp_path).num_left == 0
    assert curve(store, tmp_path, "good") == [(0, 1.0), (1, 2.0)]
    assert run_of(store, tmp_path).info.status == "FINISHED"


def test_a_run_that_was_deleted_in_the_store_keeps_its_spool(tmp_path, store):
    tracker = tracked(tmp_path)
    replay(tmp_path)
    run_id = read_record(tmp_path).run_id
    store.delete_run(run_id)
    tracker.log_metrics({"loss": 1.0}, step=0)
    tracker.close("FINISHED")
    done = replay(tmp_path)
    assert done.num_left == 2
    assert "deleted" in done.reason
    store.restore_run(run_id)
    assert replay(tmp_path).num_left == 0
    assert curve(store, tmp_path, "loss") == [(0, 1.0)]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ReadError, match=r"tracking\.json"):
        replay(tmp_path)


def test_jobs_of_a_sweep_share_one_parent_made_once(tmp_path, store):
    sweep = tmp_path / "sweep"
    folders = [sweep / str(job) for job in range(2)]
    trackers = [tracked(folder, parent=str(sweep)) for folder in folders]
    senders = [threading.Thread(target=replay, args=(folder,)) for folder in folders]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    parent = run_of(store, sweep)
    children = [run_of(store, folder) for folder in folders]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert len(store.search_runs([parent.info.experiment_id])) == 3
    assert parent.info.status == "RUNNING"

    trackers[0].close("FAILED")
    replay(folders[0])
    assert run_of(store, sweep).info.status == "RUNNING"
    trackers[1].close("FINISHED")
    replay(folders[1])
    assert run_of(store, sweep).info.status == "FAILED"


def test_two_processes_that_race_write_one_parent(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from medseg.tracking.record import claim_record\n"
        "print(claim_record(pathlib.Path(sys.argv[1]), uri='u', experiment='e', run_name='r').key)"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    keys = {racer.communicate()[0] for racer in racers}
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 32


def test_a_logged_model_is_the_checkpoint_and_what_it_needs(tmp_path, store):
    tracker = tracked(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "state.pt").write_bytes(b"not for others")
    tracker.log_model(tmp_path)
    (tmp_path / "model.pt").unlink()
    tracker.close("FINISHED")
    replay(tmp_path)

    (model,) = store.search_logged_models([run_of(store, tmp_path).info.experiment_id])
    data = resolve_logged(model, "data") / "checkpoint"
    assert (data / "model.pt").read_bytes() == b"weights"
    assert sorted(file.name for file in data.iterdir()) == ["model.pt", "plan.json"]
    needs = resolve_logged(model, "requirements.txt").read_text()
    assert f"torch=={torch.__version__.partition('+')[0]}\n" in needs
    assert "cloudpickle" not in needs + resolve_logged(model, "MLmodel").read_text()
