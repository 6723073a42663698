"""`medseg train` as a user runs it: a run's folder, resuming, sweeps, signals, refusals."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch

from medseg.cli import main
from medseg.core.labels import label_set
from medseg.data.manifest import Case, Channel, Manifest, write_manifest
from medseg.models.tensor_file import load_tensors

QUICK = [
    "model=unet", "mlflow.enabled=false", "device=cpu", "overrides.batch_size=2",
    "training.log_every_steps=1", "training.num_validations=1",
]  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    """Ten small scans in a folder whose name needs every quote there is."""
    root = tmp_path / "sc ans;$(x)=,é"
    root.mkdir()
    cases = []
    for n in range(10):
        rng = np.random.default_rng(n)
        label = np.zeros((16, 16, 16), np.uint8)
        i, j, k = rng.integers(2, 8, 3)
        label[i : i + 6, j : j + 6, k : k + 6] = 7
        image = rng.normal(size=label.shape).astype(np.float32) + 3 * (label > 0)
        for kind, voxels in (("image", image), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / f"{kind}{n}.nii.gz")
        cases.append(
            Case(
                case_id=f"c{n}",
                patient_id=f"p{n}",
                images={"MR": f"image{n}.nii.gz"},
                labels=(f"label{n}.nii.gz",),
                digest=str(n),
            )
        )
    manifest = Manifest(
        name="boxes",
        data_root=root,
        channels=(Channel(name="MR", modality="MR"),),
        labels=label_set({"box": 7}),
        reference_channel="MR",
        spatial_dims=3,
        cases=tuple(cases),
    )
    write_manifest(manifest, root / "manifest.json")
    return root / "manifest.json"


def train(dataset, *words):
    return main(["train", f"manifest={dataset}", *QUICK, *words])


def weights(folder):
    return load_tensors(folder / "model.pt")["weights"]


def test_a_run_learns_and_leaves_what_the_documentation_lists(dataset, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(dataset, "training.max_steps=40", f"output={run}") == 0
    result = json.loads((run / "result.json").read_text())
    assert result["finished"]
    assert result["scores"]["mean"] > 0.5
    assert "network: unet, " in capsys.readouterr().out
    assert result["network"]["num_parameters"] == sum(w.numel() for w in weights(run).values())
    names = {path.name for path in run.iterdir()}
    listed = {
        "model.pt", "state.pt", "plan.json", "fingerprint.json", "training.json", "run.json",
        "result.json", "curves.png", "overlay_0.png", "training.log",
    }  # fmt: skip
    assert listed <= names
    assert not list(run.glob(".part-*"))
    # The plan that was missing was made beside the manifest.
    assert (dataset.parent / "plan.json").exists()

    masks = tmp_path / "masks"
    line = ["predict", f"manifest={dataset}", "split=0", f"checkpoint={run}", f"output={masks}"]
    assert main([*line, "device=cpu"]) == 0
    scores = tmp_path / "scores"
    line = ["evaluate", f"prediction={masks}", f"manifest={dataset}", "split=0", "num_workers=0"]
    assert main([*line, f"output={scores}", "mlflow.enabled=false"]) == 0
    summary = json.loads((scores / "summary.json").read_text())
    measured = summary["classes"]["box"]["scores"]["dice"]["mean"]
    assert measured == pytest.approx(result["scores"]["box"], abs=1e-6)


def test_resuming_goes_the_same_way_and_refuses_another_one(dataset, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(dataset, "training.max_steps=12", f"output={whole}") == 0
    code = (
        "import signal, sys; from medseg.training import session; from medseg.cli import main\n"
        "after = session.Session.after_step\n"
        "def stop(self, report):\n"
        "    after(self, report)\n"
        "    if report.step == 5: signal.raise_signal(signal.SIGTERM)\n"
        "session.Session.after_step = stop\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    line = ["train", f"manifest={dataset}", *QUICK, "training.max_steps=12", f"output={parts}"]
    done = subprocess.run([sys.executable, "-c", code, *line], check=False, capture_output=True)
    assert done.returncode == 143
    assert not json.loads((parts / "result.json").read_text())["finished"]
    again = ("training.max_steps=12", "training.resume=true", f"output={parts}")
    assert train(dataset, *again, "training.seed=1") == 2
    assert "seed has changed" in capsys.readouterr().err
    assert train(dataset, *again, "optimizer.lr=1e-5") == 2
    assert "optimizer has changed" in capsys.readouterr().err
    assert train(dataset, *again) == 0
    assert "goes on after step 5" in capsys.readouterr().out
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(parts)[name])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("loss.class_weights=[1,2,3]", "class_weights"),
        ("model=dynunet model.nrom=batch", "nrom"),
        ("training.regions={all:[box,sphere]}", "sphere"),
        ("training.init=/nowhere", "CKP-001"),
        ("training.mean_teacher={}", "MAN-008"),
        ("instance=centre", "expected task=instance or task=panoptic"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_before_cases_are_prepared(
    dataset, tmp_path, capsys, monkeypatch, word, said
):
    def prepare(*_, **__):
        pytest.fail("cases were prepared")

    monkeypatch.setattr("medseg.training.preparation.prepare_cases", prepare)
    assert train(dataset, *word.split(), f"output={tmp_path / 'run'}") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "told"), [("unet", True), ("unetplusplus", False)])
def test_a_network_without_the_deep_supervision_of_its_plan_says_so(
    dataset, tmp_path, capsys, name, told
):
    assert main(["plan", f"manifest={dataset}", "device=cpu"]) == 0
    path = dataset.parent / "plan.json"
    plan = json.loads(path.read_text())
    plan["network"]["deep_supervision"] = True
    path.write_text(json.dumps(plan))
    capsys.readouterr()
    words = (f"model={name}", "training.max_steps=1", "fold=all", f"output={tmp_path / 'run'}")
    assert train(dataset, *words) == 0
    out = capsys.readouterr().out
    assert (f"{name} has no outputs at coarser levels" in out) == told


def test_a_folder_without_a_training_is_not_resumed(dataset, tmp_path, capsys):
    assert train(dataset, "training.resume=true", f"output={tmp_path / 'x'}") == 2
    assert "x: holds no training to resume" in capsys.readouterr().err


def test_a_folder_with_a_model_is_not_overwritten(dataset, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.pt").touch()
    assert train(dataset, "training.max_steps=2", f"output={run}") == 2
    assert "holds a model already" in capsys.readouterr().err


def test_a_sweep_trains_every_combination_in_a_folder_of_its_own(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["-m", "training.max_steps=2", "optimizer.lr=1e-2,1e-3", "fold=0,1"]
    assert train(dataset, *words) == 0
    runs = sorted((tmp_path / "runs").glob("sweep_*/*/result.json"))
    assert [path.parent.name for path in runs] == ["0", "1", "2", "3"]
    assert len({path.parent.parent for path in runs}) == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("training.max_time=ten", "max_time=ten: expected a duration"),
        ("fold=9", "fold 9"),
        ("training.precision=fp8", "precision=fp8"),
        ("training.max_tme=3", "the nearest is training.max_time"),
        ("optimizer._target_=os.system", "os.system"),
        ("overrides.patch_vox=[15,16,16]", "multiple"),
        ("plan=nowhere.json", "nowhere.json"),
        ("plugins=[nowhere.py]", "nowhere.py"),
        ("device=cuda:7", "device=cuda:7"),
    ],
)
def test_a_wrong_setting_is_one_line(dataset, tmp_path, capsys, word, told):
    assert train(dataset, "training.max_steps=2", f"output={tmp_path / 'run'}", word) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in error
    assert "Traceback" not in error


def test_a_network_of_ones_own_is_one_file_and_one_yaml(dataset, tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "tiny.yaml").write_text("name: tiny\nwidth: 4\n")
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\n"
        "from medseg.models.registry import register_model\n"
        '@register_model("tiny")\n'
        "def build_tiny(plan, *, num_inputs: int, num_outputs: int, width: int = 16):\n"
        "    wide = nn.Conv3d(num_inputs, width, 3, padding=1)\n"
        "    return nn.Sequential(wide, nn.ReLU(), nn.Conv3d(width, num_outputs, 1))\n"
    )
    run = tmp_path / "run"
    line = [
        "train", "--config-dir", str(tmp_path / "conf"), f"manifest={dataset}", *QUICK[1:],
        "model=tiny", f"plugins=[{tmp_path / 'my_models.py'}]", "training.max_steps=2",
        f"output={run}",
    ]  # fmt: skip
    assert main(line) == 0
    assert weights(run)["network.0.weight"].shape[0] == 4


def test_two_runs_do_not_share_a_folder(dataset, tmp_path, capsys):
    run = tmp_path / "run"
    code = (
        "import sys, time; from pathlib import Path; from medseg.runtime.runfolder import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline().strip() == "held"
        assert train(dataset, "training.max_steps=2", f"output={run}") == 2
        assert f"process {other.pid} on" in capsys.readouterr().err
        other.kill()
