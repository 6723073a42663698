"""Whatever the store does, a training starts, logs, ends, and loses no point."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient
from tracking_stub import StubServer, black_hole, free_port, put_store

from medseg.tracking import store as store_room
from medseg.tracking.outbox import Outbox
from medseg.tracking.record import read_record, unsent_folders
from medseg.tracking.sender import replay
from medseg.tracking.store import store_uri
from medseg.tracking.tracker import open_tracker

# Longer than a sender ever needs, on a machine that does six other things.
PATIENCE_S = 300
NUM_STEPS = 50
ALL_POINTS = [(name, step) for step in range(NUM_STEPS) for name in ("dice", "loss")]


@contextlib.contextmanager
def refused():
    yield f"http://127.0.0.1:{free_port()}"


@contextlib.contextmanager
def black_holed():
    hole = black_hole()
    yield f"http://127.0.0.1:{hole.getsockname()[1]}"
    hole.close()


@contextlib.contextmanager
def failing():
    server = StubServer(mode="500")
    yield server.uri
    server.stop()


@contextlib.contextmanager
def slow():
    server = StubServer(delay_s=30)
    yield server.uri
    server.stop()


@contextlib.contextmanager
def locked_sqlite():
    uri = store_uri(None)
    with contextlib.closing(sqlite3.connect(store_room.sqlite_path(uri))) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield uri
        holder.rollback()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Let the sender give a hanging store up sooner, so that a test need not wait for it."""
    monkeypatch.setitem(store_room._CLIENT_SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def train(uri, folder):
    """Log as a training does; return the tracker, and the seconds of start, a call and end."""
    begun = time.perf_counter()
    tracker = open_tracker(uri=uri, experiment="exp", run_name="r", folder=folder)
    started = time.perf_counter()
    calls = []
    for step in range(NUM_STEPS):
        before = time.perf_counter()
        tracker.log_metrics({"loss": 1 / (step + 1), "dice": step / NUM_STEPS}, step=step)
        calls.append(time.perf_counter() - before)
    ending = time.perf_counter()
    tracker.close("FINISHED", wait_s=2)
    call_s = sorted(calls)[NUM_STEPS // 2]
    return tracker, (started - begun, call_s, time.perf_counter() - ending)


def curves(server):
    return sorted((name, step) for name, step, _ in server.points)


@pytest.mark.parametrize(
    "fault",
    [
        refused,
        slow,
        pytest.param(black_holed, marks=pytest.mark.slow),
        pytest.param(failing, marks=pytest.mark.slow),
        pytest.param(locked_sqlite, marks=pytest.mark.slow),
    ],
)
def test_a_training_neither_waits_for_the_store_nor_loses_a_point(
    fault, tmp_path, medseg_home, capsys
):
    put_store(medseg_home)
    with fault() as uri:
        tracker, (start_s, call_s, end_s) = train(uri, tmp_path)
        # It may still wait for the store, as long as its patience lasts.
        tracker._sender.wait(PATIENCE_S)
    assert start_s < 5
    assert call_s < 1e-3
    assert end_s < 5
    assert "medseg doctor --replay" in capsys.readouterr().err
    assert unsent_folders() == [tmp_path]
    # The start, the points and the end.
    assert Outbox(tmp_path).num_left == NUM_STEPS + 2


def test_points_of_a_server_that_was_down_arrive_once_when_it_is_up(tmp_path):
    port = free_port()
    tracker, _ = train(f"http://127.0.0.1:{port}", tmp_path)
    tracker._sender.wait(PATIENCE_S)
    assert replay(tmp_path).num_sent == 0

    server = StubServer(port=port)
    try:
        assert replay(tmp_path).num_left == 0
        assert curves(server) == sorted(ALL_POINTS)
        assert replay(tmp_path).num_sent == 0
        assert curves(server) == sorted(ALL_POINTS)
        assert [run["info"]["status"] for run in server.runs.values()] == ["FINISHED"]
    finally:
        server.stop()
    assert unsent_folders() == []


@pytest.mark.parametrize("lost_answer", range(1, 9))
def test_a_request_whose_answer_is_lost_makes_no_second_run_and_no_second_point(
    tmp_path, monkeypatch, lost_answer
):
    monkeypatch.setattr("medseg.tracking.tracker.start_sender", lambda *_: None)
    server = StubServer()
    server.lost_answer = lost_answer
    try:
        train(server.uri, tmp_path)
        while replay(tmp_path).num_left:
            pass
        # A store knows a point by its name, step and time; what comes again is the same point.
        assert sorted((name, step) for name, step, _ in set(server.points)) == sorted(ALL_POINTS)
        assert [run["info"]["status"] for run in server.runs.values()] == ["FINISHED"]
    finally:
        server.stop()


def test_while_the_store_answers_points_arrive_during_the_training(tmp_path):
    server = StubServer()
    tracker = open_tracker(uri=server.uri, experiment="exp", run_name="r", folder=tmp_path)
    try:
        tracker.log_metrics({"loss": 1.0}, step=0)
        until = time.monotonic() + PATIENCE_S
        while not server.points and time.monotonic() < until:
            time.sleep(0.1)
        assert curves(server) == [("loss", 0)]
        assert tracker.run_id == read_record(tmp_path).run_id is not None
        # As a scheduler does that stops a job: the run's end must still get through.
        tracker._sender.send_signal(signal.SIGTERM)
        tracker.close("KILLED", wait_s=PATIENCE_S)
        assert [run["info"]["status"] for run in server.runs.values()] == ["KILLED"]
        assert unsent_folders() == []
    finally:
        server.stop()


TRAINING = """
import pathlib, signal, sys, time
from medseg.tracking.tracker import open_tracker
tracker = open_tracker(uri=None, experiment="exp", run_name="r", folder=pathlib.Path(sys.argv[1]))
tracker.log_metrics({"loss": 1.0}, step=0)
print("ready", flush=True)
time.sleep(120)
"""


def test_kill_nine_during_a_training_ends_the_run_as_killed(tmp_path, medseg_home):
    put_store(medseg_home)
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    training.stdout.readline()
    training.send_signal(signal.SIGKILL)
    training.wait()
    training.stdout.close()
    until = time.monotonic() + PATIENCE_S
    while unsent_folders() and time.monotonic() < until:
        time.sleep(0.1)
    store = MlflowClient(tracking_uri=store_uri(None))
    assert store.get_run(read_record(tmp_path).run_id).info.status == "KILLED"


def test_a_training_imports_no_mlflow():
    code = "import sys, medseg.tracking.tracker; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_real_server_takes_runs_artifacts_and_models_and_gives_them_back(tmp_path, monkeypatch):
    from medseg.tracking.checkpoints import resolve_checkpoint

    monkeypatch.setitem(store_room._CLIENT_SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "45")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    folder = tmp_path / "run"
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{tmp_path}/server.db"),
            *("--artifacts-destination", str(tmp_path / "artifacts")),
        ],
        env=store_room.client_environment(),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while store_room.probe_store(uri) != "reachable" and time.monotonic() < until:
            time.sleep(0.5)
        tracker = open_tracker(uri=uri, experiment="exp", run_name="r", folder=folder)
        tracker.log_params({"a": {"b": 1}})
        tracker.log_metrics({"loss": 1.0, "nothing": float("nan")}, step=0)
        tracker.log_text("text", "deep/a.txt")
        (folder / "model.pt").write_bytes(b"weights")
        tracker.log_model(folder)
        tracker.close("FINISHED", wait_s=120)
        assert Outbox(folder).num_left == 0
        fetched = resolve_checkpoint(f"runs:/{tracker.run_id}/model", uri=uri)
        assert fetched.read_bytes() == b"weights"
        assert fetched == resolve_checkpoint(f"runs:/{tracker.run_id}/model", uri=uri)
        assert len(list(fetched.parent.iterdir())) == 1
    finally:
        server.terminate()
        server.wait()
