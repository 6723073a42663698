"""`medseg evaluate` on masks made in code, and on two raters of real scans."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medseg.cli import main as medseg
from medseg.core.errors import ConfigError, LabelError, ManifestError, ReadError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.regions import Region
from medseg.core.volume import Volume
from medseg.data.ingest import ingest
from medseg.data.layouts.found import Request
from medseg.data.manifest import Case, Channel, Manifest, write_manifest
from medseg.data.pairs import choose_cases, pair_folders, pair_with_manifest
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import read_volume, write_label_map
from medseg.io.sidecars import write_sidecars
from medseg.metrics.agreement import score_agreement
from medseg.metrics.scoring import Scoring
from medseg.tasks.evaluate import Evaluation, evaluate

AFFINE = np.diag([-0.8, 0.8, 2.5, 1.0])
SHAPE = (20, 18, 10)
LABELS = label_set({"liver": 1, "tumour": 7})


def write_mask(path: Path, voxels: Any, affine: Any = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(voxels, dtype=np.uint8), affine), path)
    return path


def mask(start: int = 4, *, tumour: bool = True) -> np.ndarray[Any, np.dtype[np.uint8]]:
    voxels = np.zeros(SHAPE, dtype=np.uint8)
    voxels[start : start + 8, 4:12, 2:8] = 1
    if tumour:
        voxels[start : start + 2, 4:6, 2:4] = 7
    return voxels


def case(case_id: str, **changes: Any) -> Case:
    return Case(
        **{
            "case_id": case_id,
            "patient_id": f"patient {case_id}",
            "images": {"CT": f"images/{case_id}.nii.gz"},
            "labels": (f"labels/{case_id}.nii.gz",),
            **changes,
        }
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Manifest:
    """Three cases on disk, each with a scan, a reference and a prediction one voxel off."""
    cases = (case("007"), case("a (1) é;$=,"), case("last", split="test"))
    for one in cases:
        write_mask(tmp_path / one.images["CT"], mask() * 20)
        write_mask(tmp_path / f"labels/{one.case_id}.nii.gz", mask())
        write_mask(tmp_path / f"masks/{one.case_id}.nii.gz", mask(5))
    manifest = Manifest(
        name="livers",
        data_root=tmp_path,
        channels=(Channel(name="CT", modality="CT"),),
        labels=LABELS,
        reference_channel="CT",
        spatial_dims=3,
        cases=cases,
    )
    write_manifest(manifest, tmp_path / "manifest.json")
    return manifest


def evaluated(manifest: Manifest, **changes: Any) -> Evaluation:
    root = manifest.data_root
    pairs = pair_with_manifest(manifest, root / "masks", **changes)
    return evaluate(pairs, root / "scores", num_workers=0)


def written(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_scores_csv_has_a_row_a_case_and_class_with_named_columns(dataset: Manifest) -> None:
    result = evaluated(dataset)
    rows = written(dataset.data_root / "scores")
    assert [(row["case_id"], row["class"]) for row in rows] == [
        (one.case_id, name)
        for one in (*dataset.training_cases, *dataset.test_cases)
        for name in LABELS.names
    ]
    assert set(rows[0]) == {
        "case_id", "patient_id", "stratum", "class", "unit", "dice", "iou", "surface_dice",
        "hd95_mm", "hd_mm", "assd_mm", "surface_tolerance_mm", "volume_reference_ml",
        "volume_prediction_ml", "volume_error_ml", "volume_error_abs_ml", "reference_empty",
        "prediction_empty", "error",
    }  # fmt: skip
    reference, prediction = mask() == 7, mask(5) == 7
    dice = 2 * (reference & prediction).sum() / (reference.sum() + prediction.sum())
    assert float(rows[1]["dice"]) == pytest.approx(dice)
    assert float(rows[1]["hd_mm"]) == pytest.approx(0.8)
    assert float(rows[1]["volume_reference_ml"]) == pytest.approx(8 * 0.8 * 0.8 * 2.5 / 1000)
    assert result.exit_code == 0


def test_summary_and_provenance_lie_beside_the_scores(dataset: Manifest) -> None:
    result = evaluated(dataset)
    summary = json.loads((dataset.data_root / "scores/summary.json").read_text())
    assert summary["classes"]["liver"]["scores"]["dice"]["mean"] == pytest.approx(
        np.mean([row["dice"] for row in result.rows if row["class"] == "liver"])
    )
    origin = json.loads((dataset.data_root / "scores/run.json").read_text())
    assert origin["command"] == "medseg evaluate"


def test_a_shifted_mask_is_an_error_of_its_case_and_the_rest_goes_on(dataset: Manifest) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.4
    write_mask(dataset.data_root / "masks/007.nii.gz", mask(), shifted)
    result = evaluated(dataset)
    failed = [row for row in result.rows if row["error"]]
    assert [row["case_id"] for row in failed] == ["007", "007"]
    assert "GEO-002" in failed[0]["error"]
    assert "007.nii.gz" in failed[0]["error"]
    assert result.exit_code == 3
    assert result.summary["classes"]["liver"]["num"] == 2
    rows = written(dataset.data_root / "scores")
    assert [row["dice"] for row in rows if row["case_id"] == "007"] == ["", ""]


def test_a_missing_prediction_is_a_row_and_not_silence(dataset: Manifest) -> None:
    (dataset.data_root / "masks/last.nii.gz").unlink()
    result = evaluated(dataset)
    assert "EVA-004" in result.summary["failed"]["last"][0]
    assert result.exit_code == 3


def test_undefined_scores_are_nan_in_the_file_and_counted(dataset: Manifest) -> None:
    for folder in ("masks", "labels"):
        write_mask(dataset.data_root / folder / "007.nii.gz", mask(tumour=False))
    result = evaluated(dataset)
    row = written(dataset.data_root / "scores")[1]
    assert (row["dice"], row["hd95_mm"], row["reference_empty"]) == ("nan", "nan", "true")
    assert row["volume_error_ml"] == "0.0"
    assert result.summary["classes"]["tumour"]["scores"]["dice"]["num_undefined"] == 1


def test_a_class_that_was_not_annotated_in_a_case_gives_no_row(dataset: Manifest) -> None:
    partial = replace(dataset.cases[0], annotated=("liver",))
    result = evaluated(replace(dataset, cases=(partial, *dataset.cases[1:])))
    assert [row["class"] for row in result.rows if row["case_id"] == "007"] == ["liver"]


def test_splits_choose_cases_and_never_mix_in_the_test_cases(dataset: Manifest) -> None:
    folds = replace(
        dataset,
        num_folds=2,
        cases=tuple(
            replace(one, fold=n) if one.split == "train" else one
            for n, one in enumerate(dataset.cases)
        ),
    )
    chosen = {
        split: [one.case_id for one in choose_cases(folds, split)]
        for split in ("all", "train", "test", 0, 1)
    }
    assert chosen["test"] == ["last"]
    assert chosen[0] == ["007"]
    assert chosen[1] == ["a (1) é;$=,"]
    assert sorted(chosen["train"]) == sorted([*chosen[0], *chosen[1]])
    assert sorted(chosen["all"]) == sorted([*chosen["train"], "last"])


def test_a_split_without_references_is_refused(dataset: Manifest) -> None:
    with pytest.raises(ManifestError, match="EVA-001"):
        choose_cases(replace(dataset, cases=dataset.cases[:2]), "test")


def test_processes_give_the_rows_that_one_process_gives(dataset: Manifest) -> None:
    root = dataset.data_root
    pairs = pair_with_manifest(dataset, root / "masks")
    alone = evaluate(pairs, root / "alone", num_workers=0)
    spread = evaluate(pairs, root / "spread", num_workers=2)
    assert alone.rows == spread.rows
    assert (root / "alone/scores.csv").read_bytes() == (root / "spread/scores.csv").read_bytes()


def test_pictures_are_measured_in_pixels_also_when_the_mask_is_nifti(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.zeros((12, 16), dtype=np.uint8)
    picture[3:8, 4:9] = 255
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "cell.png")
    one = case("cell", images={"CT": "images/cell.png"}, labels=("labels/cell.png",))
    manifest = Manifest(
        name="cells",
        data_root=tmp_path,
        channels=(Channel(name="CT", modality="microscopy"),),
        labels=label_set({"nucleus": ">0"}),
        reference_channel="CT",
        spatial_dims=2,
        cases=(one,),
    )
    from medseg.io.formats import read_volume, write_label_map

    geometry = read_volume(tmp_path / "images/cell.png").geometry
    prediction = np.roll((picture > 0).astype(np.uint8).T[..., None], 1, axis=0)
    for suffix in ("nii.gz", "png"):
        masks = tmp_path / suffix
        masks.mkdir()
        write_label_map(
            prediction, masks / f"cell.{suffix}", geometry=geometry, labels=manifest.labels
        )
        result = evaluate(pair_with_manifest(manifest, masks), tmp_path / "out", num_workers=0)
        (row,) = result.rows
        assert row["error"] == ""
        assert row["unit"] == "px"
        assert row["hd_px"] == 1
        assert row["volume_reference_px"] == 25
    with_size = replace(manifest, cases=(replace(one, spacing_mm=(0.5, 0.5, 1.0)),))
    result = evaluate(pair_with_manifest(with_size, masks), tmp_path / "out", num_workers=0)
    assert result.rows[0]["hd_mm"] == pytest.approx(0.5)


def test_two_folders_of_label_maps_are_paired_by_name(dataset: Manifest) -> None:
    root = dataset.data_root
    (root / "labels/labels.json").write_text(json.dumps(LABELS.to_json()))
    pairs = pair_folders(root / "masks", root / "labels")
    result = evaluate(pairs, root / "out", num_workers=0)
    dice = {(row["case_id"], row["class"]): row["dice"] for row in evaluated(dataset).rows}
    assert {(row["case_id"], row["class"]): row["dice"] for row in result.rows} == dice


def test_label_maps_without_a_label_set_are_refused(dataset: Manifest) -> None:
    with pytest.raises(LabelError, match="EVA-003"):
        pair_folders(dataset.data_root / "masks", dataset.data_root / "labels")


def test_folders_that_are_not_there_or_empty_are_refused(dataset: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="EVA-002"):
        pair_with_manifest(dataset, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="EVA-002"):
        pair_folders(tmp_path / "masks", tmp_path / "empty")


def test_of_several_formats_the_nifti_file_is_read_and_others_are_refused(
    dataset: Manifest,
) -> None:
    masks = dataset.data_root / "masks"
    other = (masks / "007.nii.gz").rename(masks / "007.nii")
    write_mask(masks / "007.nii.gz", mask(5))
    assert evaluated(dataset).exit_code == 0
    write_mask(masks / "007.nii", mask(5))
    (masks / "007.nii.gz").rename(masks / "007.hdr")
    assert other.exists()
    assert "EVA-005" in evaluated(dataset).summary["failed"]["007"][0]


def test_organs_that_overlap_are_scored_file_by_file(tmp_path: Path) -> None:
    whole, part = mask() > 0, mask() == 7
    for rater, organs in {
        "first": {"liver": whole, "tumour": part},
        "second": {"liver": whole, "spare": part},
    }.items():
        for organ, voxels in organs.items():
            write_mask(tmp_path / rater / "case 1" / "masks" / f"{organ}.nii.gz", voxels)
    result = evaluate(
        pair_folders(tmp_path / "second", tmp_path / "first"), tmp_path / "out", num_workers=0
    )
    liver, tumour = result.rows
    assert (liver["case_id"], liver["class"], liver["dice"]) == ("case 1", "liver", 1)
    assert "EVA-004" in tumour["error"]
    assert "tumour" in tumour["error"]


def test_a_tolerance_for_a_class_that_is_not_there_is_refused(dataset: Manifest) -> None:
    pairs = pair_with_manifest(dataset, dataset.data_root / "masks")
    with pytest.raises(ConfigError, match="spleen"):
        evaluate(
            pairs, dataset.data_root / "out", scoring=Scoring(class_tolerance_mm={"spleen": 1})
        )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"level": 1.0}, "level=1.0"),
        ({"level": "high"}, "level=high"),
        ({"surface_tolerance_mm": -1.0}, "surface_tolerance_mm=-1.0"),
        ({"surface_tolerance_mm": "1mm"}, "surface_tolerance_mm=1mm"),
        ({"class_tolerance_mm": {"liver": float("nan")}}, "liver=nan"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_scoring_without_sense_is_refused_by_the_name_of_its_key(
    wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        Scoring(**wrong)


def test_the_command_prints_a_table_and_ends_with_3_when_a_case_failed(
    dataset: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset.data_root
    (root / "masks/last.nii.gz").unlink()
    line = [
        "evaluate",
        f"prediction={root / 'masks'}",
        f"manifest={root / 'manifest.json'}",
        f"output={root / 'out'}",
        "num_workers=0",
        "mlflow.enabled=false",
    ]
    assert medseg(line) == 3
    shown = capsys.readouterr()
    assert "foreground" in shown.out
    assert "2 of 3 cases scored" in shown.out
    assert "EVA-004" in shown.err
    assert medseg([*line, "split=train", "+class_tolerance_mm.tumour=2.5"]) == 0
    rows = written(root / "out")
    assert {row["surface_tolerance_mm"] for row in rows if row["class"] == "tumour"} == {"2.5"}
    for wrong in ("split=validation", "num_workers=-1", "surface_tolerance_mm=1mm"):
        assert medseg([*line, wrong]) == 2
        assert wrong in capsys.readouterr().err


def test_several_raters_are_scored_against_each_other_and_the_prediction_against_each(
    dataset: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset.data_root
    write_mask(root / "labels/ada.nii.gz", mask(3))
    write_mask(root / "labels/bob.nii.gz", mask(6, tumour=False))
    several = replace(
        case("007"), labels=("labels/ada.nii.gz", "labels/bob.nii.gz"), raters=("Ada", "Bob")
    )
    manifest = replace(dataset, cases=(several, *dataset.cases[1:]))
    write_manifest(manifest, root / "manifest.json")
    line = [f"prediction={root / 'masks'}", f"manifest={root / 'manifest.json'}"]
    line += [f"output={root / 'scores'}", "num_workers=0", "mlflow.enabled=false"]
    assert medseg(["evaluate", *line]) == 0
    with (root / "scores/raters.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    drawn = {"prediction": mask(5), "Ada": mask(3), "Bob": mask(6, tumour=False)}
    asked = [("prediction", "Ada"), ("prediction", "Bob"), ("Ada", "Bob")]
    assert [(row["first"], row["second"], row["class"]) for row in rows] == [
        (*pair, name) for pair in asked for name in LABELS.names
    ]
    for row in rows:
        one, other = (
            drawn[row[key]] == {"liver": 1, "tumour": 7}[row["class"]]
            for key in ("first", "second")
        )
        assert float(row["dice"]) == pytest.approx(
            2 * (one & other).sum() / (one.sum() + other.sum())
        )
    summary = json.loads((root / "scores/summary.json").read_text())
    assert [(pair["first"], pair["second"]) for pair in summary["raters"]] == asked
    between = summary["raters"][2]
    assert between["num_cases"] == 1
    assert between["classes"]["liver"]["dice"]["mean"] == pytest.approx(float(rows[4]["dice"]))
    shown = capsys.readouterr().out
    assert "Ada - Bob" in shown
    # The reference is what both marked: a tie stays background.
    score = next(row for row in written(root / "scores") if row["case_id"] == "007")
    both = (mask(3) == 1) & (mask(6, tumour=False) == 1)
    assert float(score["volume_reference_ml"]) == pytest.approx(both.sum() * 0.8 * 0.8 * 2.5 / 1000)


def test_voxels_that_either_of_two_raters_ignores_are_left_out() -> None:
    labels = replace(label_set({"liver": 1}), ignore_value=9)
    geometry = Geometry((4, 1, 1), np.eye(4))
    one, other = (
        np.array(values, np.uint8).reshape(4, 1, 1) for values in ([1, 1, 2, 0], [1, 2, 1, 1])
    )
    (_, _, between) = score_agreement(
        one, {"Ada": one, "Bob": other}, geometry=geometry, labels=labels
    )
    assert (between.first, between.second) == ("Ada", "Bob")
    assert between.score.dice == pytest.approx(2 / 3)


def test_a_prediction_stored_as_a_sparse_dicom_seg_is_laid_on_its_scan(tmp_path: Path) -> None:
    label_map = np.zeros((6, 5, 4), np.uint8)
    label_map[1:4, 1:3, 2] = 1
    scan = Volume(label_map[None].astype(np.int16), Geometry((6, 5, 4), np.diag([-1, -1, 2.0, 1])))
    write_series(scan, tmp_path / "scan", modality="CT", patient_id="phantom", seed="scan")
    geometry = read_dicom(tmp_path / "scan").geometry
    labels = label_set({"liver": 1})
    (tmp_path / "masks").mkdir()
    given = {"geometry": geometry, "labels": labels, "source": tmp_path / "scan"}
    write_label_map(label_map, tmp_path / "masks/a.seg.dcm", **given)
    write_label_map(label_map, tmp_path / "a.nii.gz", geometry=geometry, labels=labels)
    manifest = Manifest(
        name="livers", data_root=tmp_path, channels=(Channel(name="CT", modality="CT"),),
        labels=labels, reference_channel="CT", spatial_dims=3,
        cases=(case("a", images={"CT": "scan"}, labels=("a.nii.gz",)),),
    )  # fmt: skip
    (row,) = evaluate(
        pair_with_manifest(manifest, tmp_path / "masks"), tmp_path / "out", num_workers=0
    ).rows
    assert (row["error"], row["dice"]) == ("", 1.0)


@pytest.mark.slow
def test_dice_of_real_raters_is_what_was_published_with_them(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shared_data("oar_two_raters")
    known = {
        "Brainstem": (0.904, 0.904),
        "Parotid-Lt": (0.829, 0.795),
        "Mandible": (0.956, 0.971),
        "Cochlea-Lt": (0.791, 0.744),
        "Spinal-Cord": (0.810, 0.862),
    }
    pairs = pair_folders(folder / "radiographer", folder / "oncologist")
    assert len(pairs) == 42
    asked = [pair for pair in pairs if pair.labels.names[0] in known]
    result = evaluate(asked, tmp_path, num_workers=0)
    for row in result.rows:
        published = known[row["class"]][row["case_id"] == "0522c0057"]
        assert math.isclose(row["dice"], published, abs_tol=5e-4)


@pytest.mark.slow
def test_a_manifest_of_both_real_raters_gives_their_published_agreement(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shared_data("oar_two_raters")
    known = {
        "Brainstem": (0.904, 0.904),
        "Parotid-Lt": (0.829, 0.795),
        "Mandible": (0.956, 0.971),
        "Cochlea-Lt": (0.791, 0.744),
        "Spinal-Cord": (0.810, 0.862),
    }
    raters = ("oncologist", "radiographer")
    manifest = ingest(
        Request(
            source=folder,
            # No scans are published with the labels; of a scan only the grid is looked at.
            images={"CT": "oncologist/{case}/segmentations/Brain.nrrd"},
            raters={r: f"{r}/{{case}}/segmentations/{{class}}.nrrd" for r in raters},
            labels={name: (value,) for value, name in enumerate(known, start=1)},
            modalities={"CT": "CT"},
            spatial_dims=3,
            patient_is_case=True,
        ),
        read_masks=False,
        num_workers=0,
    ).manifest
    (tmp_path / "masks").mkdir()
    for one in manifest.cases:
        geometry = read_volume(manifest.path_of(one.images["CT"])).geometry
        write_label_map(
            np.zeros(geometry.shape, np.uint8),
            tmp_path / f"masks/{one.case_id}.nii.gz",
            geometry=geometry,
            labels=manifest.labels,
        )
    result = evaluate(pair_with_manifest(manifest, tmp_path / "masks"), tmp_path, num_workers=0)
    between = [row for row in result.agreement if row["first"] in raters]
    assert len(between) == 2 * len(known)
    for row in between:
        assert (row["first"], row["second"]) == raters
        published = known[row["class"]][row["case_id"] == "0522c0057"]
        assert math.isclose(row["dice"], published, abs_tol=5e-4)


def test_a_mask_whose_classes_overlap_is_refused_by_name(tmp_path: Path) -> None:
    keys = "".join(
        f"Segment{n}_ID:=s{n}\nSegment{n}_Name:={name}\nSegment{n}_Layer:={n}\n"
        f"Segment{n}_LabelValue:=1\n"
        for n, name in enumerate(("a", "b"))
    )
    header = (
        "NRRD0004\ntype: uchar\ndimension: 4\nspace: left-posterior-superior\nsizes: 2 2 2 2\n"
        "space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\n"
        "encoding: raw\nspace origin: (0,0,0)\n"
    )
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "c.seg.nrrd"
        file.write_bytes((header + keys).encode() + b"\n" + bytes([1] * 16))
    pairs = pair_folders(tmp_path / "ours", tmp_path / "theirs", labels=label_set({"a": 1, "b": 2}))
    rows = evaluate(pairs, tmp_path / "out", num_workers=0).rows
    assert {row["class"] for row in rows} == {"a", "b"}
    assert all("LBL-012" in row["error"] and "c.seg.nrrd" in row["error"] for row in rows)


def test_regions_that_a_network_was_trained_on_are_scored_unless_others_are_declared(dataset):
    masks = dataset.data_root / "masks"
    trained = (Region(name="whole", members=("liver", "tumour")),)
    write_sidecars(masks, replace(LABELS, regions=trained))

    def scored(manifest: Manifest) -> set[str]:
        pairs = pair_with_manifest(manifest, masks)
        folders = pair_folders(masks, dataset.data_root / "labels", labels=manifest.labels)
        names = [{one.labels.regions for one in found} for found in (pairs, folders)]
        assert names[0] == names[1]
        rows = evaluate(pairs, masks.parent / "scores", num_workers=0).rows
        return {str(row["class"]) for row in rows}

    assert scored(dataset) == {"liver", "tumour", "whole"}
    own = (Region(name="both", members=("liver", "tumour")),)
    declared = replace(dataset, labels=replace(LABELS, regions=own))
    assert scored(declared) == {"liver", "tumour", "both"}
