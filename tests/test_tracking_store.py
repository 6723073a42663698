"""The store: one place, made once, whoever comes at the same time."""

import multiprocessing
import os
import sqlite3
from contextlib import closing

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
from mlflow.store.tracking.dbmodels.initial_models import Base
from tracking_stub import StubServer, black_hole, free_port

from medseg.tracking.store import (
    client_settings,
    experiment_id,
    open_client,
    probe_store,
    sqlite_path,
    sqlite_uri,
    store_uri,
    with_password,
    without_password,
)


def begin_a_run(uri):
    with client_settings():
        client = open_client(uri)
        client.create_run(experiment_id(client, "race", uri))


def num_runs(uri):
    with client_settings():
        client = open_client(uri)
        return len(client.search_runs([experiment_id(client, "race", uri)]))


def race(num_processes, uri):
    """Return the exit codes of processes that start together, MLflow imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "medseg.tracking.store"])
    processes = [context.Process(target=begin_a_run, args=(uri,)) for _ in range(num_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_six_processes_at_once_on_a_fresh_store_all_succeed(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = store_uri(None)
    assert race(6, uri) == [0] * 6
    assert num_runs(uri) == 6


@pytest.mark.slow
def test_sixteen_processes_at_once_on_a_fresh_store_all_succeed(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = store_uri(None)
    assert race(16, uri) == [0] * 16
    assert num_runs(uri) == 16


def test_the_store_is_asked_for_then_the_environment_then_home(medseg_home, monkeypatch):
    assert store_uri(None) == f"sqlite:///{medseg_home}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert store_uri(None) == "http://server"
    assert store_uri("http://other") == "http://other"


def test_a_relative_sqlite_file_is_the_same_file_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sqlite_path(store_uri("sqlite:///runs.db")) == tmp_path / "runs.db"


def test_any_home_folder_will_do_and_nothing_is_left_elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "a b;$()^=,é #%20?x"
    monkeypatch.setenv("MEDSEG_HOME", str(folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with client_settings():
        uri = store_uri(None)
        client = open_client(uri)
        run = client.create_run(experiment_id(client, "e", uri))
        client.log_text(run.info.run_id, "text", "a.txt")
    assert sqlite_path(uri) == folder / "mlflow.db"
    assert (folder / "mlflow.db").exists()
    assert len(list((folder / "mlartifacts").rglob("a.txt"))) == 1
    assert list((tmp_path / "here").iterdir()) == []


def test_an_older_store_is_migrated_after_a_backup(medseg_home, monkeypatch):
    uri = sqlite_uri(medseg_home / "mlflow.db")
    config = _get_alembic_config(uri)
    head, before, *_ = ScriptDirectory.from_config(config).walk_revisions()
    engine = create_sqlalchemy_engine(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, before.revision)

    def schema():
        with engine.connect() as connection:
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()

    def client_of_today(tracking_uri):
        # What MLflow says when columns are missing; missing tables it adds by itself.
        if schema() != head.revision:
            raise MlflowException("Detected out-of-date database schema (found version ...")
        return MlflowClient(tracking_uri=tracking_uri)

    monkeypatch.setattr("mlflow.MlflowClient", client_of_today)
    with client_settings():
        client = open_client(uri)
        client.create_run(experiment_id(client, "e", uri))
    assert schema() == head.revision
    engine.dispose()
    backup = medseg_home / "mlflow.db.before-migration"
    with closing(sqlite3.connect(backup)) as copy:
        (found,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
    assert found == before.revision


def test_settings_of_our_client_do_not_outlive_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    before = dict(os.environ)
    with client_settings():
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert dict(os.environ) == before


def test_a_password_is_never_written_down(monkeypatch):
    full = "https://ana:geheim@mlflow.example/path"
    assert without_password(full) == "https://mlflow.example/path"
    assert without_password("sqlite:////a/b@c:d.db") == "sqlite:////a/b@c:d.db"
    assert with_password(without_password(full)) == without_password(full)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", full)
    assert with_password(without_password(full)) == full
    assert with_password("https://other") == "https://other"


def test_a_probe_says_what_is_wrong_and_never_waits_long(tmp_path):
    server = StubServer()
    hole = black_hole()
    try:
        assert probe_store(server.uri) == "reachable"
        server.mode = "500"
        assert probe_store(server.uri) == "answers 500"
        assert "does not answer" in probe_store(f"http://127.0.0.1:{free_port()}")
        address = f"http://127.0.0.1:{hole.getsockname()[1]}"
        assert "does not answer" in probe_store(address, timeout_s=0.2)
    finally:
        server.stop()
        hole.close()
    assert "not there yet" in probe_store(sqlite_uri(tmp_path / "none.db"))
    (tmp_path / "no.db").write_text("this is no database, however long the text is")
    assert "cannot be read" in probe_store(sqlite_uri(tmp_path / "no.db"))
