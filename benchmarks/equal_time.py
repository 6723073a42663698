"""medseg beside a plain MONAI script, at equal training time, alternating on one machine.

usage: python -m benchmarks.equal_time MANIFEST PEER.py DATA OUTPUT [--runs 150:0,150:1,300:0]

MANIFEST is what `medseg ingest` made of DATA; its fold 0 is the test set of both sides. Each run is
BUDGET_S:SEED. Both clocks start after cases are prepared and leave evaluation out. Results go to
OUTPUT/equal_time.jsonl, and the paired differences to OUTPUT/equal_time.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import case_means, dice_of, medseg
from benchmarks.ledger import Ledger
from medseg.data.manifest import read_manifest
from medseg.data.splits import split_cases
from medseg.statistics.bootstrap import paired_interval


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("peer", type=Path)
    words.add_argument("data", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--runs", default="150:0,150:1,150:2,300:0,600:0")
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    chosen = words.parse_args()
    ledger = Ledger(chosen.output / "equal_time.jsonl")
    split = split_cases(read_manifest(chosen.manifest), 0)
    fold = chosen.output / "fold.json"
    chosen.output.mkdir(parents=True, exist_ok=True)
    ids = {
        "train": [case.case_id for case in split.training],
        "test": [case.case_id for case in split.validation],
    }
    fold.write_text(json.dumps(ids))
    runs = [(int(b), int(s)) for b, _, s in (run.partition(":") for run in chosen.runs.split(","))]
    for number, (budget_s, seed) in enumerate(runs):
        sides = ["medseg", "peer"] if number % 2 == 0 else ["peer", "medseg"]
        for side in sides:
            key = {"side": side, "budget_s": budget_s, "seed": seed, "set": chosen.set}
            if ledger.find(**key):
                continue
            if side == "medseg":
                result = run_medseg(chosen, budget_s, seed)
            else:
                result = run_peer(chosen, fold, ids["test"], budget_s, seed)
            row = ledger.append(result, **key)
            print(side, budget_s, seed, row["steps"], round(row["mean"], 4), flush=True)
    summary = [compare(ledger, budget_s, seed, chosen.set) for budget_s, seed in runs]
    (chosen.output / "equal_time.json").write_text(json.dumps(summary, indent=2) + "\n")
    for row in summary:
        print(row)


def run_medseg(chosen: argparse.Namespace, budget_s: int, seed: int) -> dict[str, Any]:
    """Train, predict fold 0, evaluate: three commands, no setting but the budget and the seed."""
    folder = chosen.output / f"medseg_{budget_s}_{seed}_{len(chosen.set)}"
    manifest = f"manifest={chosen.manifest}"
    medseg(
        "train", manifest, "fold=0", f"training.max_time={budget_s}s", f"training.seed={seed}",
        "training.num_validations=1", f"output={folder / 'run'}", *chosen.set,
    )  # fmt: skip
    medseg(
        "predict", manifest, "split=0", f"checkpoint={folder / 'run'}",
        f"output={folder / 'masks'}",
    )  # fmt: skip
    medseg(
        "evaluate", manifest, "split=0", f"prediction={folder / 'masks'}",
        f"output={folder / 'scores'}", "mlflow.enabled=false",
    )  # fmt: skip
    scores = dice_of(folder / "scores" / "scores.csv")
    run = json.loads((folder / "run" / "result.json").read_text())
    return _result(case_means(scores), steps=run["num_steps"], seconds=run["seconds"])


def run_peer(
    chosen: argparse.Namespace, fold: Path, test: list[str], budget_s: int, seed: int
) -> dict[str, Any]:
    """Run the peer's script as it stands; it prints one JSON line."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(chosen.peer), str(chosen.data), str(fold),
         str(budget_s), str(seed)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    told = json.loads(done.stdout.strip().splitlines()[-1])
    means = {case: float(np.mean(d)) for case, d in zip(test, told["cases"], strict=True)}
    return _result(means, steps=told["steps"], seconds=told["seconds"])


def compare(ledger: Ledger, budget_s: int, seed: int, extra: list[str]) -> dict[str, Any]:
    """Difference in mean Dice, medseg less peer, paired by case, with its 95 % interval."""
    ours, theirs = (
        ledger.find(side=side, budget_s=budget_s, seed=seed, set=extra)
        for side in ("medseg", "peer")
    )
    if ours is None or theirs is None:
        raise SystemExit(f"{budget_s} s, seed {seed}: a side was not measured")
    cases = sorted(ours["cases"])
    interval = paired_interval(
        [ours["cases"][case] for case in cases],
        [theirs["cases"][case] for case in cases],
        rng=np.random.default_rng(0),
    )
    return {
        "budget_s": budget_s,
        "seed": seed,
        "medseg": ours["mean"],
        "peer": theirs["mean"],
        "steps": [ours["steps"], theirs["steps"]],
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
    }


def _result(means: dict[str, float], *, steps: int, seconds: float) -> dict[str, Any]:
    mean = float(np.mean(list(means.values())))
    return {"mean": mean, "steps": steps, "seconds": seconds, "cases": means}


if __name__ == "__main__":
    main()
