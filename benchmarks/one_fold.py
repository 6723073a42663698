"""One fold trained, predicted and scored by the real commands."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import case_seconds, dice_of, medseg
from medseg.data.manifest import Manifest
from medseg.data.splits import fold_of_cases
from medseg.statistics.bootstrap import mean_interval, paired_interval


def with_folds(manifest: Manifest) -> Manifest:
    """Return a manifest whose cases name their folds, so that a part of it keeps them."""
    folds = fold_of_cases(manifest)
    cases = [replace(case, fold=folds.get(case.case_id)) for case in manifest.cases]
    return replace(manifest, cases=tuple(cases))


def train_and_score(manifest: Path, folder: Path, *settings: str) -> dict[str, Any]:
    """Train on fold 0, score its validation cases; the result goes into a ledger.

    Args:
        manifest: its plan lies beside it, or is made there.
        folder: of this run: `run/`, `masks/`, `scores/`.
        settings: further ones of `medseg train`, the budget among them.
    """
    medseg(
        "train", f"manifest={manifest}", "fold=0", "training.num_validations=1",
        f"output={folder / 'run'}", "mlflow.enabled=false", *settings,
    )  # fmt: skip
    return score_run(manifest, folder / "run", folder)


def score_run(manifest: Path, run: Path, folder: Path) -> dict[str, Any]:
    """Predict and evaluate the validation cases of fold 0; the result goes into a ledger.

    Args:
        manifest: of the dataset.
        run: folder of a finished training.
        folder: for `masks/` and `scores/`.
    """
    path = f"manifest={manifest}"
    used = medseg("predict", path, "split=0", f"checkpoint={run}", f"output={folder / 'masks'}")
    medseg(
        "evaluate", path, "split=0", f"prediction={folder / 'masks'}",
        f"output={folder / 'scores'}", "mlflow.enabled=false",
    )  # fmt: skip
    result = json.loads((run / "result.json").read_text())
    return {
        "dice": dice_of(folder / "scores" / "scores.csv"),
        "num_steps": result["num_steps"],
        "seconds": result["seconds"],
        **result["network"],
        "case_s": case_seconds(folder / "masks" / "predictions.csv"),
        "peak_mib": used.peak_mib,
    }


def compare_sides(
    rows: Sequence[dict[str, Any]], sides: Sequence[str], **same: Any
) -> dict[str, Any]:
    """Dice per class of every side, and what each gains over the first, with 95 % intervals.

    Args:
        rows: of a ledger of `train_and_score`, with a key `side` and a key `seed`.
        sides: the first is what the others are compared with, case by case.
        same: keys that the rows have in common.
    """
    by_side = {
        side: _dice_by_case(
            [
                row
                for row in rows
                if {**row["key"], "seed": None} == {**same, "side": side, "seed": None}
            ]
        )
        for side in sides
    }
    summary: dict[str, Any] = {}
    for side, by_class in by_side.items():
        for name, dice in by_class.items():
            mean = mean_interval(list(dice.values()), rng=np.random.default_rng(0))
            told: dict[str, Any] = {
                "n": mean.num,
                "mean": mean.mean,
                "low": mean.low,
                "high": mean.high,
            }
            if side != sides[0]:
                cases = sorted(dice)
                gain = paired_interval(
                    [dice[case] for case in cases],
                    [by_side[sides[0]][name][case] for case in cases],
                    rng=np.random.default_rng(0),
                )
                told[f"less {sides[0]}"] = [gain.mean, gain.low, gain.high]
            summary[f"{side}: {name}"] = told
    return summary


def _dice_by_case(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean over seeds, by class and case."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for case, by_class in row["dice"].items():
            for name, dice in by_class.items():
                found.setdefault(name, {}).setdefault(case, []).append(dice)
    return {
        name: {case: float(np.mean(values)) for case, values in by_case.items()}
        for name, by_case in found.items()
    }
