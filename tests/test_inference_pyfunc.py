"""The logged model as MLflow users meet it: paths of scans in, paths of masks out."""

import pickle
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from mlflow import pyfunc
from mlflow.models import Model

from medseg.core.errors import CheckpointError, ReadError
from medseg.core.labels import LabelSet
from medseg.inference.predictor import Predictor
from medseg.io.formats import read_volume
from medseg.tracking.runs import save_model

LABELS = LabelSet.from_json({"labels": [{"name": "bright", "values": 7}]})


class BrightIsOne:
    """A network's stand-in: what is brighter than a half is class 1."""

    in_suv = False

    def segment(self, volume):
        label_map = (volume.voxels[0] > 0.5).astype(np.uint8)
        return SimpleNamespace(label_map=label_map, geometry=volume.geometry, labels=LABELS)


def load_nothing(path, *, device):
    assert path.read_bytes() == b"weights"
    assert device.type in ("cpu", "cuda")
    return BrightIsOne()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The model of a run, loaded where no pickle may be read."""
    monkeypatch.setattr(Predictor, "load", load_nothing)
    data = tmp_path / "checkpoint"
    data.mkdir()
    (data / "model.pt").write_bytes(b"weights")
    save_model(data, tmp_path / "model", Model())

    def refuse(*_args, **_settings):
        raise AssertionError("a pickle was read")

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr("cloudpickle.load", refuse)
    return pyfunc.load_model(str(tmp_path / "model"))


@pytest.fixture
def scan(tmp_path, rng):
    """An oblique, anisotropic scan."""
    affine = np.array([[0, 1.5, 0.1, -9], [-0.8, 0, 0, 4], [0, 0.1, 3, 2], [0, 0, 0, 1.0]])
    path = tmp_path / "scans" / "a b;$(1)=,é.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(rng.random((5, 6, 7), dtype=np.float32), affine), path)
    return path


@pytest.mark.parametrize(
    "asked",
    [
        lambda path: [str(path)],
        lambda path: pd.DataFrame({"scan": [str(path)]}),
        lambda path: pd.DataFrame([str(path)]),
    ],
    ids=["list", "table", "table without names"],
)
def test_a_scan_gives_a_mask_on_its_own_grid(model, scan, asked):
    (mask,) = model.predict(asked(scan))["mask"]
    assert mask == str(scan.with_name("a b;$(1)=,é_mask.nii.gz"))
    read, source = nib.load(mask), nib.load(scan)
    assert np.array_equal(read.affine, source.affine)
    assert np.array_equal(np.asarray(read.dataobj), 7 * (np.asarray(source.dataobj) > 0.5))


def test_masks_go_where_and_in_the_format_that_is_asked(model, scan, tmp_path):
    asked = {"output": str(tmp_path / "masks"), "suffix": ".nii"}
    masks = model.predict([str(scan)], params=asked)["mask"]
    assert list(masks) == [str(tmp_path / "masks" / "a b;$(1)=,é.nii")]
    assert nib.load(masks[0]).shape == (5, 6, 7)


@pytest.mark.parametrize("in_suv", [False, True])
def test_a_model_of_suv_reads_scans_in_suv(model, scan, monkeypatch, in_suv):
    asked = []

    def read(path, *, suv):
        asked.append(suv)
        return read_volume(path, suv=suv)

    monkeypatch.setattr(BrightIsOne, "in_suv", in_suv)
    monkeypatch.setattr("medseg.inference.pyfunc.read_volume", read)
    model.predict([str(scan)])
    assert asked == [in_suv]


def test_two_scans_of_one_name_never_share_a_mask(model, scan, tmp_path):
    other = tmp_path / "elsewhere" / scan.name
    other.parent.mkdir()
    other.write_bytes(scan.read_bytes())
    with pytest.raises(ReadError, match="would both be written to"):
        model.predict([str(scan), str(other)], params={"output": str(tmp_path / "masks")})
    assert not (tmp_path / "masks").exists()


def test_a_model_without_a_checkpoint_is_refused(tmp_path):
    from medseg.inference.pyfunc import _load_pyfunc

    with pytest.raises(CheckpointError, match=r"model\.pt"):
        _load_pyfunc(str(tmp_path))
