"""`task=instance` and `task=panoptic` as a user runs them: train, predict, evaluate."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from medseg.cli import main
from medseg.core.labels import label_set
from medseg.data.manifest import Case, Channel, Manifest, read_manifest, write_manifest
from medseg.data.splits import split_cases
from medseg.models.checkpoint import load_checkpoint

QUICK = [
    "mlflow.enabled=false", "device=cpu", "overrides.batch_size=2", "overrides.patch_vox=[32,32,1]",
    "training.num_validations=1", "training.max_steps=5", "augment=strong",
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six pictures of bright cells in tissue, whose mask stores the ids of cells."""
    root = tmp_path_factory.mktemp("cells")
    cases = []
    for n in range(6):
        rng = np.random.default_rng(n)
        ids = np.zeros((48, 40), np.uint16)
        for number in range(1, 7):
            i, j = rng.integers(4, (44, 36))
            ids[i - 4 : i + 4, j - 3 : j + 3] = 40 * number
        image = (60 + 100 * (ids > 0) + rng.normal(0, 8, ids.shape)).clip(0, 255)
        Image.fromarray(image.astype(np.uint8)).save(root / f"c{n}.png")
        Image.fromarray(ids).save(root / f"c{n}_ids.png")
        cases.append(
            Case(
                case_id=f"c{n}",
                patient_id=f"p{n}",
                images={"image": f"c{n}.png"},
                labels=(f"c{n}_ids.png",),
                digest=str(n),
            )
        )
    manifest = Manifest(
        name="cells",
        data_root=root,
        channels=(Channel(name="image", modality="microscopy"),),
        labels=label_set({"cell": ">0"}),
        reference_channel="image",
        spatial_dims=2,
        cases=tuple(cases),
    )
    write_manifest(manifest, root / "manifest.json")
    return root / "manifest.json"


def train(dataset, *words):
    return main(["train", f"manifest={dataset}", *QUICK, *words])


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def half_of_the_least(dataset):
    """Half the first percentile of the sizes of drawn objects, in pixels."""
    manifest = read_manifest(dataset)
    sizes = []
    for case in split_cases(manifest, 0).training:
        counts = np.bincount(np.array(Image.open(manifest.path_of(case.labels[0]))).ravel())[1:]
        sizes += counts[counts > 0].tolist()
    return np.percentile(sizes, 1) / 2


@pytest.mark.parametrize(
    "way",
    ["centre", *(pytest.param(one, marks=pytest.mark.slow) for one in ("components", "distance"))],
)
def test_each_way_is_trained_predicts_without_settings_and_is_scored(dataset, tmp_path, way):
    run, masks, scores = (tmp_path / name for name in ("run", "masks", "scores"))
    assert train(dataset, "task=instance", f"instance={way}", f"output={run}") == 0
    loaded = load_checkpoint(run / "model.pt")
    assert (loaded.objects.way.name, loaded.labels.things) == (way, (1,))
    if way != "components":
        assert loaded.objects.least_px == pytest.approx(half_of_the_least(dataset))
    predict = ["predict", f"manifest={dataset}", "split=0", f"checkpoint={run}", "device=cpu"]
    assert main([*predict, f"output={masks}", "formats=[png]", "mirror=true"]) == 0
    names = {path.name for path in masks.glob("*.png")}
    cases = {row["case_id"] for row in rows_of(masks / "predictions.csv")}
    assert names == {f"{case}{end}.png" for case in cases for end in ("", "_instances")}
    listed = rows_of(masks / "objects.csv")
    for case in cases:
        ids = np.array(Image.open(masks / f"{case}_instances.png"))
        own = [row for row in listed if row["case_id"] == case]
        sizes = np.bincount(ids.ravel())[1:]
        assert [int(row["object_id"]) for row in own] == list(range(1, len(sizes) + 1))
        assert [int(row["volume_px"]) for row in own] == sizes.tolist()
        assert np.array_equal(ids > 0, np.array(Image.open(masks / f"{case}.png")) > 0)
    # A folder that is there already is kept, and its table with it.
    assert main([*predict, f"output={masks}", "formats=[png]", "mirror=true"]) == 0
    assert rows_of(masks / "objects.csv") == listed
    line = ["evaluate", f"manifest={dataset}", "split=0", f"prediction={masks}", "things=[cell]"]
    assert main([*line, f"output={scores}", "num_workers=0", "mlflow.enabled=false"]) == 0
    pooled = json.loads((scores / "summary.json").read_text())["objects"]["classes"]["cell"][
        "pooled"
    ]
    assert pooled["num_prediction"] == len(listed)
    assert pooled["num_reference"] == pooled["num_found"] + pooled["num_missed"]


@pytest.mark.slow
def test_a_resumed_training_may_not_change_its_way(dataset, tmp_path, capsys):
    run = f"output={tmp_path}"
    assert train(dataset, "task=instance", "instance=distance", run) == 0
    assert train(dataset, "task=instance", "instance=centre", run, "training.resume=true") == 2
    assert "objects has changed" in capsys.readouterr().err
    assert train(dataset, "task=instance", "instance=distance", run, "training.resume=true") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=panoptic"], "LBL-015 .*no class of .'cell'. is declared as things"),
        (["task=instance", "things=[nucleus]"], "LBL-013 .*'nucleus' is no class"),
        (["task=objects"], "expected semantic, instance or panoptic"),
        (["instance=distance"], "instance=distance: tells no objects apart with task=semantic"),
        (["instance.least_px=4"], "instance.least_px=4: tells no objects apart with task=semantic"),
        (["instance.corners=false"], "instance.corners=False: tells no objects apart"),
        (["things=[cell]"], "with task=instance or task=panoptic"),
        (["task=instance", "instance.least_ml=-1"], "a size of 0 or more, or null"),
    ],
)
def test_tasks_that_do_not_fit_their_classes_are_refused(dataset, tmp_path, capsys, words, said):
    assert train(dataset, *words, f"output={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)
