"""Learning without labels and from other weights, as a user runs it."""

import json
import signal
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medseg.cli import main
from medseg.core.labels import label_set
from medseg.data.case import Case, Channel
from medseg.data.manifest import Manifest, write_manifest
from medseg.models.tensor_file import load_tensors
from medseg.training.loop import StepReport
from medseg.training.session import Session

QUICK = [
    "model=unet", "mlflow.enabled=false", "device=cpu", "overrides.batch_size=2",
    "training.num_validations=1", "augment=none",
]  # fmt: skip


def write_dataset(root: Path, *, num_channels: int = 1) -> Path:
    """Ten labelled scans of a bright box, and four without labels."""
    root.mkdir()
    cases = []
    for n in range(14):
        rng = np.random.default_rng(n)
        label = np.zeros((16, 16, 16), np.uint8)
        i, j, k = rng.integers(2, 8, 3)
        label[i : i + 6, j : j + 6, k : k + 6] = 1
        image = rng.normal(size=label.shape).astype(np.float32) * 0.3 + 3 * label
        files = {f"image{c}_{n}": image for c in range(num_channels)} | {f"label{n}": label}
        for name, voxels in files.items():
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / f"{name}.nii.gz")
        labelled = n < 10
        cases.append(
            Case(
                case_id=f"c{n}",
                patient_id=f"p{n}",
                images={f"MR{c}": f"image{c}_{n}.nii.gz" for c in range(num_channels)},
                labels=(f"label{n}.nii.gz",) if labelled else (),
                split="train" if labelled else "unlabelled",
            )
        )
    manifest = Manifest(
        name="boxes",
        data_root=root,
        channels=tuple(Channel(name=f"MR{c}", modality="MR") for c in range(num_channels)),
        labels=label_set({"box": 1}),
        reference_channel="MR0",
        spatial_dims=3,
        cases=tuple(cases),
    )
    write_manifest(manifest, root / "manifest.json")
    return root / "manifest.json"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "one")


def train(manifest: Path, output: Path, *words: str) -> int:
    return main(["train", f"manifest={manifest}", f"output={output}", *QUICK, *words])


def result_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_what_was_learnt_without_labels_is_where_fine_tuning_begins(dataset, tmp_path, capsys):
    pretrained, tuned = tmp_path / "pretrained", tmp_path / "tuned"
    assert train(dataset, pretrained, "experiment=pretrain", "training.max_steps=10") == 0
    assert result_of(pretrained)["scores"] == {}
    assert load_tensors(pretrained / "model.pt")["trained_with"]["objective"] == "reconstruction"
    capsys.readouterr()
    words = (f"training.init={pretrained}", "training.max_steps=3", "training.frozen_steps=3")
    assert train(dataset, tuned, *words) == 0
    told = capsys.readouterr().out
    assert "init: " in told
    assert "% of the weights taken" in told
    assert "begins at random: " in told
    assert "did not change in any of the 3 steps" in told
    assert result_of(tuned)["scores"]["box"] >= 0

    # Frozen to the end: only the layer that had no counterpart has moved.
    before, after = (load_tensors(run / "model.pt")["weights"] for run in (pretrained, tuned))
    alike = {
        name: torch.equal(value, before[name])
        for name, value in after.items()
        if value.shape == before[name].shape
    }
    assert len(alike) > 5
    assert all(alike.values())

    scan = dataset.parent / "image0_0.nii.gz"
    line = ["predict", f"input={scan}", f"checkpoint={pretrained}", f"output={tmp_path}/masks"]
    assert main([*line, "device=cpu"]) == 2
    assert "CKP-006" in capsys.readouterr().err


@pytest.fixture
def pool(dataset: Path, tmp_path: Path) -> Path:
    """Four scans of another size and spacing than the dataset's, as ingest finds them."""
    folder = tmp_path / "pool"
    folder.mkdir()
    for n in range(4):
        image = np.random.default_rng(n).normal(size=(40, 36, 12)).astype(np.float32)
        image = nibabel.Nifti1Image(100 * image - 900, np.diag([0.5, 0.5, 2.0, 1.0]))
        nibabel.save(image, folder / f"s{n}.nii.gz")
    line = ["ingest", f"source={folder}", "images.MR0='{case}.nii.gz'", "channels.MR0=CT"]
    line += [f"classes={dataset}", "patient_is_case=true", "num_workers=0", f"output={folder}"]
    assert main(line) == 0
    return folder


def test_unlabelled_scans_alone_are_planned_and_pretrained_on(dataset, pool, tmp_path, capsys):
    capsys.readouterr()
    assert main(["plan", f"manifest={pool}", "device=cpu"]) == 0
    told = capsys.readouterr().out
    assert "not known: no case is labelled" in told
    assert "measured on whole scans: no voxel is of a class" in told
    entry = json.loads((pool / "plan.json").read_text())["intensity"][0]
    values = np.concatenate(
        [nibabel.load(path).get_fdata().ravel() for path in pool.glob("*.nii.gz")]
    )
    assert entry["mean"] == pytest.approx(values.mean(), rel=0.01)
    assert (entry["low"], entry["high"]) == pytest.approx(np.percentile(values, (0.5, 99.5)), 0.02)

    pretrained = tmp_path / "pretrained"
    words = ("experiment=pretrain", "training.max_steps=3", "fold=0")
    assert train(pool / "manifest.json", pretrained, *words) == 0
    # Of another plan, with other levels: what fits is taken, and the rest is told.
    depths = []
    for folder in (dataset.parent, pool):
        main(["plan", f"manifest={folder}", "device=cpu"])
        depths.append(json.loads((folder / "plan.json").read_text())["network"]["strides"])
    assert depths[0] != depths[1]
    capsys.readouterr()
    words = (f"training.init={pretrained}", "training.max_steps=2", "training.frozen_steps=1")
    assert train(dataset, tmp_path / "tuned", *words) == 0
    told = capsys.readouterr().out
    assert "% of the weights taken" in told
    assert "begins at random: " in told


def test_with_the_plan_of_the_labelled_cases_all_but_the_end_is_taken(
    dataset, pool, tmp_path, capsys
):
    assert main(["plan", f"manifest={dataset}", "device=cpu"]) == 0
    pretrained, plan = tmp_path / "pretrained", dataset.parent / "plan.json"
    words = ("experiment=pretrain", "training.max_steps=1", f"plan={plan}")
    assert train(pool / "manifest.json", pretrained, *words) == 0
    words = (f"training.init={pretrained}", "training.max_steps=1")
    assert train(dataset, tmp_path / "tuned", *words) == 0
    told = capsys.readouterr().out
    share = float(told.split("init: ")[1].split("%")[0])
    assert share > 95


def test_classes_are_not_learnt_where_nobody_labelled_a_scan(pool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("medseg.tasks.train.plan_dataset", lambda *_, **__: pytest.fail("measured"))
    assert train(pool / "manifest.json", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "SPL-006" in said
    assert "experiment=pretrain learns from unlabelled scans" in said
    assert not (tmp_path / "run").exists()


def test_more_channels_than_before_are_told_and_inflated(dataset, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(dataset, first, "training.max_steps=3") == 0
    capsys.readouterr()
    wider = write_dataset(tmp_path / "two", num_channels=2)
    assert train(wider, second, f"training.init={first}", "training.max_steps=2") == 0
    told = capsys.readouterr().out
    assert "input channels repeated or averaged in " in told
    assert "begins at random" not in told


def test_a_last_layer_that_drew_images_is_left_where_classes_are_as_many_as_channels(
    tmp_path, capsys
):
    # Two channels; background and box.
    dataset, pretrained = write_dataset(tmp_path / "two", num_channels=2), tmp_path / "pretrained"
    assert train(dataset, pretrained, "experiment=pretrain", "training.max_steps=1") == 0
    words = (f"training.init={pretrained}", "training.max_steps=2", "training.frozen_steps=1")
    assert train(dataset, tmp_path / "tuned", *words) == 0
    assert "begins at random: network.model." in capsys.readouterr().out


@pytest.mark.parametrize(
    "word",
    [
        "experiment=pretrain",
        "training.mean_teacher={weight: 5, ramp_up_steps: 2}",
        "training.frozen_steps=4",
    ],
)
def test_a_stopped_and_resumed_training_ends_as_an_undisturbed_one(
    dataset, tmp_path, monkeypatch, word
):
    words = [word, "training.max_steps=6"]
    if "frozen" in word:
        assert train(dataset, tmp_path / "first", "training.max_steps=2") == 0
        words.append(f"training.init={tmp_path / 'first'}")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(dataset, whole, *words) == 0

    after_step = Session.after_step

    def stop_after_three(session: Session, report: StepReport) -> None:
        after_step(session, report)
        if report.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "after_step", stop_after_three)
        assert train(dataset, parts, *words) == 128 + signal.SIGTERM
    assert train(dataset, parts, *words, "training.resume=true") == 0
    undisturbed = load_tensors(whole / "state.pt")
    resumed = load_tensors(parts / "state.pt")
    assert resumed["step"] == 6
    for name, value in undisturbed["network"].items():
        assert torch.equal(value, resumed["network"][name]), name


def test_a_pretraining_does_not_go_on_as_another_training(dataset, tmp_path, capsys):
    assert train(dataset, tmp_path / "run", "experiment=pretrain", "training.max_steps=2") == 0
    again = ("training.resume=true", "training.max_steps=2")
    assert train(dataset, tmp_path / "run", *again) == 2
    assert "pretrain has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss=cldice"], "loss=cldice: is about classes"),
        (["loss.batch_dice=true"], "loss.batch_dice=True: is about classes"),
        (["training.sampling=lesion"], "training.sampling=lesion: is about classes"),
        (["training.regions=declared"], "training.regions=declared: is about classes"),
        (["task=instance"], "task=instance: is about classes"),
    ],
)
def test_what_is_said_about_classes_is_refused_where_none_are_learnt(
    dataset, tmp_path, capsys, monkeypatch, words, said
):
    monkeypatch.setattr("medseg.tasks.train.run_training", lambda *_, **__: pytest.fail("trained"))
    assert train(dataset, tmp_path / "run", "experiment=pretrain", *words) == 2
    assert said in capsys.readouterr().err


def test_unlabelled_cases_are_learnt_from_beside_labelled_ones(dataset, tmp_path, capsys):
    alone, taught = tmp_path / "alone", tmp_path / "taught"
    words = ("training.max_steps=6", "training.mean_teacher={weight: 5, ramp_up_steps: 2}")
    assert train(dataset, alone, "training.max_steps=6") == 0
    assert train(dataset, taught, *words) == 0
    one, other = (load_tensors(run / "model.pt")["weights"] for run in (alone, taught))
    assert not all(torch.equal(one[name], other[name]) for name in one)
    capsys.readouterr()
    assert train(dataset, taught, "training.max_steps=6", "training.resume=true") == 2
    assert "mean_teacher has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("training.frozen_steps=5", "training.frozen_steps=5: expected 0"),
        ("training.pretrain={share:2}", "training.pretrain: share 2"),
        (
            "training.pretrain={shar:0.5}",
            "CFG-001 training.pretrain.shar: no such setting; expected some of share, block_vox",
        ),
        ("training.init=/nowhere/model.pt", "CKP-001"),
    ],
)
def test_a_setting_without_meaning_is_one_line(dataset, tmp_path, capsys, word, told):
    assert train(dataset, tmp_path / "run", word, "training.max_steps=2") == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said
