"""What a user may call a checkpoint, and the file it stands for."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracking_stub import put_store

from medseg.core.errors import CheckpointError
from medseg.tracking.checkpoints import resolve_checkpoint
from medseg.tracking.record import read_record
from medseg.tracking.sender import replay
from medseg.tracking.store import store_uri
from medseg.tracking.tracker import open_tracker


@pytest.fixture(scope="module")
def home_with_a_model(tmp_path_factory):
    """A home folder whose store holds one run with a model, registered twice; and the run's id."""
    home = tmp_path_factory.mktemp("home")
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDSEG_HOME", str(home))
        put_store(home)
        # MLflow's registry looks models up in the store that is set for everybody.
        patched.setenv("MLFLOW_TRACKING_URI", store_uri(None))
        patched.setattr("medseg.tracking.tracker.start_sender", lambda *_: None)
        tracker = open_tracker(uri=None, experiment="e", run_name="r", folder=folder)
        (folder / "model.pt").write_bytes(b"weights")
        tracker.log_model(folder)
        tracker.log_file(folder / "model.pt", "weights")
        tracker.close("FINISHED", wait_s=0)
        assert replay(folder).num_left == 0
        run_id = read_record(folder).run_id
        client = MlflowClient(tracking_uri=store_uri(None))
        (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id])
        client.create_registered_model("liver")
        client.create_model_version("liver", f"models:/{model.model_id}", run_id)
        client.create_model_version("liver", model.artifact_location, run_id)
        client.set_registered_model_alias("liver", "best", "1")
    return home, run_id, model.model_id


@pytest.fixture
def names(home_with_a_model, monkeypatch):
    home, run_id, model_id = home_with_a_model
    monkeypatch.setenv("MEDSEG_HOME", str(home))
    return {"run": run_id, "model": model_id}


@pytest.mark.parametrize(
    "text",
    [
        "runs:/{run}/model",
        "runs:/{run}/weights/model.pt",
        "runs:/{run}/weights",
        "models:/{model}",
        "models:/liver@best",
        "models:/liver/1",
        "models:/liver/2",
    ],
)
def test_a_model_of_the_store_is_the_file_that_was_logged(names, text):
    assert resolve_checkpoint(text.format(**names)).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models:/liver@worst", "worst"),
        ("models:/kidney/1", "kidney"),
        ("models:/liver/7", "liver"),
        ("models:/liver", "is not a name of a model"),
        ("runs:/{run}", "is not a name of a model"),
        ("runs:/{run}/other", "no such"),
        ("runs:/0123456789abcdef/model", "0123456789abcdef"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(names, text, says):
    with pytest.raises(CheckpointError, match=says) as refusal:
        resolve_checkpoint(text.format(**names))
    assert "\n" not in str(refusal.value)


def test_a_path_is_the_file_or_the_folder_that_holds_it(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    assert resolve_checkpoint(str(tmp_path)) == tmp_path / "model.pt"
    assert resolve_checkpoint(str(tmp_path / "model.pt")) == tmp_path / "model.pt"
    shutil.move(tmp_path / "model.pt", tmp_path / "any;$ name=1,.pt")
    assert resolve_checkpoint(f"{tmp_path}/any;$ name=1,.pt").read_bytes() == b"weights"


@pytest.mark.parametrize("what", ["absent.pt", "."])
def test_a_path_without_a_checkpoint_is_refused(tmp_path, what):
    with pytest.raises(CheckpointError, match=r"no such file|a folder without model\.pt"):
        resolve_checkpoint(str(tmp_path / what))


def test_no_store_is_made_by_asking_for_a_model(medseg_home):
    with pytest.raises(CheckpointError, match="there is no MLflow store"):
        resolve_checkpoint("models:/liver@best")
    assert list(Path(medseg_home).iterdir()) == []
