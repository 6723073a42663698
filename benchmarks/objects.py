"""Objects told apart in every way at equal training time: AP, panoptic quality, lesions found.

usage: python -m benchmarks.objects MANIFEST OUTPUT --time 10m [--ways components,centre,distance]
       [--task instance|panoptic] [--things axon] [--folds 0] [--seeds 0] [--otsu LEAST_PX]
       [--set KEY=VALUE ...]

Each way is trained, and its validation fold predicted and evaluated by the real commands; of a task
`instance` all classes are things. With --otsu, Otsu's threshold takes the smaller group of gray
values of each picture, whose pieces of at least LEAST_PX voxels are objects: what no training
gives. Rows go to OUTPUT/objects.jsonl, one a dataset, way, fold and seed with the counts of every
case; means over cases with their intervals, by stratum and class, and all objects pooled, to
OUTPUT/objects.json.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import medseg
from benchmarks.ledger import Ledger
from benchmarks.otsu import smaller_group
from medseg.data.manifest import Manifest, read_manifest
from medseg.data.object_ids import read_ids
from medseg.data.scans import read_reference, read_scan
from medseg.data.splits import split_cases
from medseg.metrics.objects import pool_objects, score_objects
from medseg.postprocess.components import drop_small, number_components
from medseg.runtime.hardware import num_cores
from medseg.statistics.bootstrap import mean_interval

BASELINE = "otsu"
_THRESHOLD = 0.5
_COUNTS = (
    "num_reference", "num_prediction", "num_found", "num_missed", "num_false", "num_matched",
    "num_matched_50",
)  # fmt: skip
_MEANS = ("ap_50", "pq", "lesion_dice")
_KEPT = (*_COUNTS, *_MEANS, "matched_iou")
# Case -> class -> counts and scores.
Cases = dict[str, dict[str, dict[str, Any]]]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--time", required=True)
    words.add_argument("--ways", default="components,centre,distance")
    words.add_argument("--task", choices=("instance", "panoptic"), default="instance")
    words.add_argument("--things", help="names of classes; all of them where left out")
    words.add_argument("--folds", default="0")
    words.add_argument("--seeds", default="0")
    words.add_argument("--otsu", type=int, metavar="LEAST_PX")
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    chosen = words.parse_args()
    manifest = read_manifest(chosen.manifest)
    ledger = Ledger(chosen.output / "objects.jsonl")
    of_dataset = {"dataset": manifest.name, "task": chosen.task}
    for fold in chosen.folds.split(","):
        key = {**of_dataset, "way": BASELINE, "fold": fold, "least_px": chosen.otsu}
        if chosen.otsu is not None and ledger.find(**key) is None:
            found = otsu_objects(manifest, int(fold), chosen.otsu)
            ledger.append({"cases": with_patients(found, manifest)}, **key)
        for way in chosen.ways.split(","):
            for seed in chosen.seeds.split(","):
                key = {
                    **of_dataset, "way": way, "fold": fold, "seed": seed, "time": chosen.time,
                    "things": chosen.things or "", "set": chosen.set,
                }  # fmt: skip
                if ledger.find(**key) is None:
                    row = run_way(chosen, manifest, way, fold, seed)
                    ledger.append(row, **key)
    summary = summarise(ledger.rows)
    (chosen.output / "objects.json").write_text(json.dumps(summary, indent=2) + "\n")
    for row in summary:
        print(json.dumps(row))


def run_way(
    chosen: argparse.Namespace, manifest: Manifest, way: str, fold: str, seed: str
) -> dict[str, Any]:
    """Train, predict the validation fold, evaluate: three commands."""
    tried = f"{manifest.name}_{chosen.task}_{way}_{chosen.time}_{fold}_{seed}_{len(chosen.set)}"
    folder = chosen.output / tried
    path = f"manifest={chosen.manifest}"
    things = f"things=[{chosen.things or ','.join(manifest.labels.names)}]"
    medseg(
        "train", path, f"fold={fold}", f"task={chosen.task}", f"instance={way}", things,
        f"training.max_time={chosen.time}", f"training.seed={seed}", "training.num_validations=1",
        f"output={folder / 'run'}", "mlflow.enabled=false", *chosen.set,
    )  # fmt: skip
    used = medseg(
        "predict", path, f"split={fold}", f"checkpoint={folder / 'run'}",
        f"output={folder / 'masks'}",
    )  # fmt: skip
    medseg(
        "evaluate", path, f"split={fold}", f"prediction={folder / 'masks'}", things,
        f"output={folder / 'scores'}", "mlflow.enabled=false",
    )  # fmt: skip
    cases: Cases = {}
    with (folder / "scores" / "object_scores.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            cases.setdefault(row["case_id"], {})[row["class"]] = _kept(row)
    run = json.loads((folder / "run" / "result.json").read_text())
    return {
        "cases": with_patients(cases, manifest),
        "num_steps": run["num_steps"],
        "seconds": run["seconds"],
        "cores": num_cores(),
        "predict_s": used.seconds,
        "peak_mib": used.peak_mib,
    }


def otsu_objects(manifest: Manifest, fold: int, least_px: int) -> Cases:
    """Score the pieces of what Otsu's threshold takes, picture by picture."""
    labels = manifest.labels.with_things(manifest.labels.names)
    manifest = replace(manifest, labels=labels)
    cases: Cases = {}
    for case in split_cases(manifest, fold).validation:
        scan = read_scan(manifest, case)
        reference = read_reference(manifest, case, scan.geometry)
        mask = smaller_group(scan)
        ids = drop_small(number_components(mask, corners=False), least_px)
        (score,) = score_objects(
            ((ids > 0).astype(np.uint8), ids),
            (reference.only_channel, read_ids(manifest, case, reference)),
            labels=labels,
            thresholds=(_THRESHOLD,),
        )
        cases[case.case_id] = {score.class_name: _kept(score.to_row())}
    return cases


def with_patients(cases: Cases, manifest: Manifest) -> list[dict[str, Any]]:
    """Return one entry a case and class, with what a summary groups by."""
    known = {case.case_id: case for case in manifest.cases}
    return [
        {
            "case_id": case_id,
            "patient_id": known[case_id].patient_id,
            "stratum": known[case_id].stratum,
            "class": name,
            **scores,
        }
        for case_id, by_class in cases.items()
        for name, scores in by_class.items()
    ]


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a dataset, way, budget, class and stratum; folds and seeds together."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    steps: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        key = row["key"]
        told = " ".join([key["way"], *key.get("set", [])])
        where = f" on {row['gpu']}" if "gpu" in row else ""
        training = (key["dataset"], key["task"], told, key.get("time", "") + where)
        steps.setdefault(training, []).append(row.get("num_steps", 0))
        for case in row["cases"]:
            for stratum in sorted({"", case["stratum"]}):
                group = (*training, case["class"], stratum or "all")
                groups.setdefault(group, []).append(case)
    names = ("dataset", "task", "way", "time", "class", "stratum")
    return [
        {
            **dict(zip(names, group, strict=True)),
            "num_steps": steps[group[:4]],
            "num_cases": len(own),
            **_summary(own),
        }
        for group, own in groups.items()
    ]


def _summary(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means = {}
    for measure in _MEANS:
        interval = mean_interval(
            [case[measure] for case in cases],
            rng=np.random.default_rng(0),
            clusters=[case["patient_id"] for case in cases],
        )
        means[measure] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {**means, "pooled": pool_objects(cases, (_THRESHOLD,))}


def _kept(row: dict[str, Any]) -> dict[str, float | None]:
    """Return what a ledger keeps of a row of object_scores.csv; an undefined score is null."""
    return {name: _number(row[name], int if name in _COUNTS else float) for name in _KEPT}


def _number(value: object, kind: type[float]) -> float | None:
    known = str(value) not in ("", "nan")
    return kind(str(value)) if known else None


if __name__ == "__main__":
    main()
