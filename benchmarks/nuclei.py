"""Objects of one class told apart in every way at equal training time, beside Otsu and components.

usage: python -m benchmarks.nuclei MANIFEST OUTPUT --time 10m [--folds 0] [--least-px 20]
       [--ways components,centre,distance] [--seeds 0] [--set KEY=VALUE ...]

Each way is trained with `task=instance`, and its validation fold predicted and evaluated by the
real commands. Otsu's threshold takes the smaller group of each picture, whose pieces are objects.
Rows a case go to OUTPUT/nuclei.jsonl; AP at IoU 0.5 and panoptic quality by way and stratum, means
over pictures with their intervals and all objects pooled, to OUTPUT/nuclei.json.
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
from medseg.statistics.bootstrap import mean_interval

BASELINE = "otsu"
_THRESHOLD = 0.5
_COUNTS = (
    "num_reference", "num_prediction", "num_found", "num_missed", "num_false", "num_matched",
    "num_matched_50",
)  # fmt: skip
_KEPT = (*_COUNTS, "ap_50", "pq", "matched_iou")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--time", required=True)
    words.add_argument("--folds", default="0")
    words.add_argument("--ways", default="components,centre,distance")
    words.add_argument("--seeds", default="0")
    words.add_argument("--least-px", type=int, default=20)
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    chosen = words.parse_args()
    manifest = read_manifest(chosen.manifest)
    ledger = Ledger(chosen.output / "nuclei.jsonl")
    for fold in chosen.folds.split(","):
        key = {"way": BASELINE, "fold": fold, "least_px": chosen.least_px}
        if ledger.find(**key) is None:
            ledger.append({"cases": otsu_objects(manifest, int(fold), chosen.least_px)}, **key)
        for way in chosen.ways.split(","):
            for seed in chosen.seeds.split(","):
                key = {
                    "way": way, "fold": fold, "seed": seed, "time": chosen.time,
                    "least_px": chosen.least_px, "set": chosen.set,
                }  # fmt: skip
                if ledger.find(**key) is None:
                    ledger.append(run_way(chosen, way, fold, seed), **key)
    summary = summarise(ledger, manifest)
    (chosen.output / "nuclei.json").write_text(json.dumps(summary, indent=2) + "\n")
    for row in summary:
        print(json.dumps(row))


def run_way(chosen: argparse.Namespace, way: str, fold: str, seed: str) -> dict[str, Any]:
    """Train, predict the validation fold, evaluate: three commands."""
    folder = chosen.output / f"{way}_{chosen.time}_{fold}_{seed}_{len(chosen.set)}"
    manifest, things = f"manifest={chosen.manifest}", _things(read_manifest(chosen.manifest))
    medseg(
        "train", manifest, f"fold={fold}", "task=instance", f"instance={way}", things,
        f"instance.least_px={chosen.least_px}", f"training.max_time={chosen.time}",
        f"training.seed={seed}", "training.num_validations=1", f"output={folder / 'run'}",
        *chosen.set,
    )  # fmt: skip
    medseg(
        "predict", manifest, f"split={fold}", f"checkpoint={folder / 'run'}",
        f"output={folder / 'masks'}",
    )  # fmt: skip
    medseg(
        "evaluate", manifest, f"split={fold}", f"prediction={folder / 'masks'}", things,
        f"output={folder / 'scores'}", "mlflow.enabled=false",
    )  # fmt: skip
    run = json.loads((folder / "run" / "result.json").read_text())
    with (folder / "scores" / "object_scores.csv").open(newline="") as stream:
        rows = {row["case_id"]: _kept(row) for row in csv.DictReader(stream)}
    return {"cases": rows, "steps": run["num_steps"], "seconds": run["seconds"]}


def otsu_objects(manifest: Manifest, fold: int, least_px: int) -> dict[str, dict[str, float]]:
    """Score the pieces of what Otsu's threshold takes, picture by picture."""
    labels = manifest.labels.with_things(manifest.labels.names)
    manifest = replace(manifest, labels=labels)
    rows = {}
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
        rows[case.case_id] = _kept(score.to_row())
    return rows


def summarise(ledger: Ledger, manifest: Manifest) -> list[dict[str, Any]]:
    """Return one row a way, budget and stratum, folds and seeds together."""
    stratum_of = {case.case_id: case.stratum for case in manifest.cases}
    patient_of = {case.case_id: case.patient_id for case in manifest.cases}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in ledger.rows:
        key = row["key"]
        told = " ".join([key["way"], key.get("time", ""), *key.get("set", [])]).strip()
        for stratum in sorted({"", *stratum_of.values()}):
            own = [
                {"patient": patient_of[case], **scores}
                for case, scores in row["cases"].items()
                if stratum in ("", stratum_of[case])
            ]
            groups.setdefault((told, stratum or "all"), []).extend(own)
    return [
        {"way": way, "stratum": stratum, "num_pictures": len(rows), **_summary(rows)}
        for (way, stratum), rows in groups.items()
        if rows
    ]


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means = {}
    for measure in ("ap_50", "pq"):
        interval = mean_interval(
            [row[measure] for row in rows],
            rng=np.random.default_rng(0),
            clusters=[row["patient"] for row in rows],
        )
        means[measure] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {**means, "pooled": pool_objects(rows, (_THRESHOLD,))}


def _kept(row: dict[str, Any]) -> dict[str, float]:
    return {name: (int if name in _COUNTS else float)(row[name]) for name in _KEPT}


def _things(manifest: Manifest) -> str:
    return f"things=[{','.join(manifest.labels.names)}]"


if __name__ == "__main__":
    main()
