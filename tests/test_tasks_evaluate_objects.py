"""`medseg evaluate` on objects: ids beside masks, pieces without them, counts done by hand."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.cli import main as medseg
from medseg.core.errors import ConfigError
from medseg.core.labels import label_set
from medseg.data.manifest import Case, Channel, Manifest, read_manifest, write_manifest
from medseg.data.pairs import pair_folders
from medseg.io.sidecars import write_sidecars
from medseg.metrics.scoring import Scoring

LABELS = label_set({"tissue": 1, "cell": 2})
SHAPE = (24, 10, 3)


def write(path: Path, voxels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.uint16), np.eye(4)), path)


def drawn(starts):
    """Cells of 4 x 4 x 3 voxels that begin at these rows, in tissue."""
    classes, ids = np.ones(SHAPE, np.uint8), np.zeros(SHAPE, np.uint16)
    for number, start in enumerate(starts, start=1):
        classes[start : start + 4, 2:6] = 2
        ids[start : start + 4, 2:6] = 500 * number
    return classes, ids


@pytest.fixture
def dataset(tmp_path):
    """Two strata; in each a case whose two touching cells are found, and one cell is invented."""
    cases = []
    for n, stratum in enumerate(["dark", "dark", "bright"]):
        cases.append(
            Case(
                case_id=f"c{n}",
                patient_id=f"p{n}",
                images={"MR": f"images/c{n}.nii.gz"},
                labels=(f"labels/c{n}.nii.gz",),
                stratum=stratum,
            )
        )
        classes, _ = drawn([1, 10])
        write(tmp_path / f"images/c{n}.nii.gz", classes)
        write(tmp_path / f"labels/c{n}.nii.gz", classes)
        classes, ids = drawn([1, 5, 10])
        write(tmp_path / f"masks/c{n}.nii.gz", classes)
        if n:
            write(tmp_path / f"masks/c{n}_instances.nii.gz", ids)
    manifest = Manifest(
        name="cells",
        data_root=tmp_path,
        channels=(Channel(name="MR", modality="MR"),),
        labels=LABELS,
        reference_channel="MR",
        spatial_dims=3,
        cases=tuple(cases),
    )
    write_manifest(manifest, tmp_path / "manifest.json")
    return tmp_path


def evaluate(root, *words):
    line = ["evaluate", f"prediction={root / 'masks'}", f"output={root / 'scores'}"]
    return medseg([*line, "num_workers=0", "mlflow.enabled=false", *words])


def rows(root):
    with (root / "scores/object_scores.csv").open(newline="") as stream:
        return {(row["case_id"], row["class"]): row for row in csv.DictReader(stream)}


def test_objects_are_scored_by_ids_beside_the_mask_or_by_pieces(dataset, capsys):
    assert evaluate(dataset, f"manifest={dataset / 'manifest.json'}", "things=[cell]") == 0
    found = rows(dataset)
    # With ids: cells at 1 and 10 are matched, the one at 5 is invented.
    cell = found["c1", "cell"]
    assert [cell[f"num_{n}"] for n in ("reference", "prediction", "found", "missed", "false")] == [
        "2", "3", "2", "0", "1",
    ]  # fmt: skip
    assert float(cell["ap_50"]) == pytest.approx(2 / 3)
    assert float(cell["pq"]) == pytest.approx(2 / 2.5)
    assert float(cell["lesion_dice"]) == pytest.approx(2 / 3)
    # Without: the cells at 1 and 5 touch and are one piece, of IoU 1/2 with the first.
    merged = found["c0", "cell"]
    assert (merged["num_prediction"], merged["num_false"]) == ("2", "0")
    assert float(merged["ap_50"]) == pytest.approx(1 / 3)
    assert found["c1", "tissue"]["kind"] == "stuff"
    assert float(found["c1", "tissue"]["sq"]) < 1
    summary = json.loads((dataset / "scores/summary.json").read_text())["objects"]
    pooled = summary["classes"]["cell"]["pooled"]
    assert pooled["ap_50"] == pytest.approx(5 / (6 + 8 - 5))
    assert summary["classes"]["cell"]["scores"]["ap_50"]["mean"] == pytest.approx(5 / 9)
    assert summary["groups"]["bright"]["classes"]["cell"]["pooled"]["ap_50"] == pytest.approx(2 / 3)
    assert "cell, bright" in capsys.readouterr().out


def test_objects_of_a_class_that_was_not_annotated_in_a_case_give_no_row(dataset):
    manifest = read_manifest(dataset / "manifest.json")
    first, *others = manifest.cases
    cases = (replace(first, annotated=("tissue",)), *others)
    partly = dataset / "partly.json"
    write_manifest(replace(manifest, cases=cases), partly)
    assert evaluate(dataset, f"manifest={partly}", "things=[cell]") == 0
    assert {case for case, name in rows(dataset) if name == "cell"} == {"c1", "c2"}


def test_without_things_nothing_is_said_of_objects(dataset):
    assert evaluate(dataset, f"manifest={dataset / 'manifest.json'}") == 0
    assert not (dataset / "scores/object_scores.csv").exists()
    assert "objects" not in json.loads((dataset / "scores/summary.json").read_text())


def test_things_that_a_network_told_apart_are_scored_unless_others_are_named(dataset):
    manifest = f"manifest={dataset / 'manifest.json'}"
    assert evaluate(dataset, manifest, "things=[cell]") == 0
    named = rows(dataset)
    write_sidecars(dataset / "masks", LABELS.with_things(["cell"]))
    assert evaluate(dataset, manifest) == 0
    assert rows(dataset) == named
    assert evaluate(dataset, f"reference={dataset / 'labels'}", manifest) == 0
    assert {row["kind"] for row in rows(dataset).values()} == {"thing", "stuff"}
    assert evaluate(dataset, manifest, "things=[tissue]") == 0
    assert rows(dataset)["c1", "tissue"]["kind"] == "thing"
    assert evaluate(dataset, manifest, "things=[]") == 0
    assert "objects" not in json.loads((dataset / "scores/summary.json").read_text())


def test_ids_of_another_shape_are_refused_and_the_rest_goes_on(dataset, capsys):
    write(dataset / "masks/c2_instances.nii.gz", np.ones((3, 3, 3)))
    assert evaluate(dataset, f"manifest={dataset / 'manifest.json'}", "things=[cell]") == 3
    assert "c2_instances.nii.gz: (3, 3, 3) voxels; expected the ids" in capsys.readouterr().err
    found = rows(dataset)
    assert "GEO-001" in found["c2", "cell"]["error"]
    assert not found["c1", "cell"]["error"]


def test_folders_are_paired_with_their_ids(dataset):
    pairs = pair_folders(dataset / "masks", dataset / "masks", labels=LABELS, things=["cell"])
    assert [one.case_id for one in pairs] == ["c0", "c1", "c2"]
    masks = pairs[1].read()
    assert [len(np.unique(ids)) - 1 for ids in masks.ids] == [3, 3]
    bare = pair_folders(dataset / "masks", dataset / "labels", labels=LABELS, things=["cell"])
    assert [len(np.unique(ids)) - 1 for ids in bare[1].read().ids] == [3, 2]


@pytest.mark.parametrize("thresholds", [(0.5, 1.0), (0.123,), ("half",)])
def test_thresholds_that_no_column_could_be_named_after_are_refused(thresholds):
    with pytest.raises(ConfigError, match="hundredths between 0 and 1"):
        Scoring(iou_thresholds=thresholds)


def test_every_hundredth_is_a_threshold():
    assert Scoring(iou_thresholds=tuple(n / 100 for n in range(1, 100)))
