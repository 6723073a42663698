"""Every fold of a dataset trained for the same time, its validation cases scored and pooled.

usage: python -m benchmarks.folds MANIFEST OUTPUT --time 4m [--folds 0,1,2] [--set KEY=VALUE ...]

Results go to OUTPUT/folds.jsonl; mean, median and bootstrap intervals over patients, of all cases
and by stratum, to OUTPUT/folds.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.commands import case_means, dice_of, medseg
from benchmarks.ledger import Ledger
from medseg.data.manifest import Manifest, read_manifest
from medseg.statistics.bootstrap import mean_interval


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--time", required=True)
    words.add_argument("--folds", default="0,1,2,3,4")
    words.add_argument("--set", nargs="*", default=[])
    chosen = words.parse_args()
    ledger = Ledger(chosen.output / "folds.jsonl")
    for fold in chosen.folds.split(","):
        key = {"fold": fold, "time": chosen.time, "set": chosen.set}
        if ledger.find(**key) is None:
            row = ledger.append(run_fold(chosen, fold), **key)
            print(
                fold, round(float(np.mean(list(case_means(row["dice"]).values()))), 4), flush=True
            )
    summary = summarise(ledger, read_manifest(chosen.manifest))
    (chosen.output / "folds.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def run_fold(chosen: argparse.Namespace, fold: str) -> dict[str, object]:
    folder = chosen.output / f"fold_{fold}"
    manifest = f"manifest={chosen.manifest}"
    medseg(
        "train", manifest, f"fold={fold}", f"training.max_time={chosen.time}",
        "training.num_validations=1", f"output={folder / 'run'}", *chosen.set,
    )  # fmt: skip
    medseg(
        "predict", manifest, f"split={fold}", f"checkpoint={folder / 'run'}",
        f"output={folder / 'masks'}",
    )  # fmt: skip
    medseg(
        "evaluate", manifest, f"split={fold}", f"prediction={folder / 'masks'}",
        f"output={folder / 'scores'}", "mlflow.enabled=false",
    )  # fmt: skip
    run = json.loads((folder / "run" / "result.json").read_text())
    return {"dice": dice_of(folder / "scores" / "scores.csv"), "steps": run["num_steps"]}


def summarise(ledger: Ledger, manifest: Manifest) -> dict[str, object]:
    """Pool the cases of all folds: by class, and by stratum where the manifest has some."""
    pooled = {case: by_class for row in ledger.rows for case, by_class in row["dice"].items()}
    cases = {case.case_id: case for case in manifest.cases}
    strata = sorted({cases[case].stratum for case in pooled} | {""})
    return {
        f"{stratum or 'all'}: {name}": _summary(
            {
                case: by_class[name]
                for case, by_class in pooled.items()
                if name in by_class and stratum in ("", cases[case].stratum)
            },
            {case: cases[case].patient_id for case in pooled},
        )
        for stratum in strata
        for name in manifest.labels.names
    }


def _summary(dice: dict[str, float], patients: dict[str, str]) -> dict[str, float]:
    values = list(dice.values())
    interval = mean_interval(
        values, rng=np.random.default_rng(0), clusters=[patients[case] for case in dice]
    )
    return {
        "n": len(values),
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "median": float(np.nanmedian(values)),
    }


if __name__ == "__main__":
    main()
