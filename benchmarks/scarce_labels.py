"""Few labelled cases: alone, after pretraining, and with a mean teacher, at equal training time.

usage: python -m benchmarks.scarce_labels MANIFEST OUTPUT [--labelled 20] [--time 10m]
       [--pretrain-time 10m] [--seeds 0,1,2] [--sides supervised,pretrained,mean_teacher]
       [--set KEY=VALUE ...]

Of the training cases of fold 0 the first LABELLED of a shuffled list keep their labels; the others
become unlabelled. The validation cases of the fold are the test set. Sides:

- supervised: the labelled cases alone;
- pretrained: from a network that filled in hidden blocks of all those scans for PRETRAIN_TIME
  (beside the training time, since one pretraining serves any number of trainings);
- pretrained_within: the same, its time taken from the training time in equal halves;
- mean_teacher: the unlabelled cases beside the labelled ones.

Results go to OUTPUT/scarce_labels.jsonl; Dice per class with intervals over cases, and the paired
differences from the first side, to OUTPUT/scarce_labels.json.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import medseg
from benchmarks.ledger import Ledger
from benchmarks.one_fold import compare_sides, train_and_score, with_folds
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.training.schedule import seconds_of

SIDES = ("supervised", "pretrained", "pretrained_within", "mean_teacher")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--labelled", type=int, default=20)
    words.add_argument("--time", default="10m")
    words.add_argument("--pretrain-time", default="10m")
    words.add_argument("--seeds", default="0,1,2")
    words.add_argument("--sides", default="supervised,pretrained,mean_teacher")
    words.add_argument("--set", nargs="*", default=[], help="further settings of every training")
    chosen = words.parse_args()
    sides = chosen.sides.split(",")
    if unknown := set(sides) - set(SIDES):
        raise SystemExit(f"--sides {sorted(unknown)}: expected some of {SIDES}")
    manifest = read_manifest(chosen.manifest)
    path = chosen.output / "dataset" / "manifest.json"
    if not path.exists():
        write_manifest(few_labels(manifest, chosen.labelled), path)
        # From the labelled cases alone, as it would be where there are no others.
        medseg("plan", f"manifest={path}")
    same = {
        "labelled": chosen.labelled,
        "time": chosen.time,
        "pretrain_time": chosen.pretrain_time,
        "set": chosen.set,
    }
    ledger = Ledger(chosen.output / "scarce_labels.jsonl")
    for number, seed in enumerate(chosen.seeds.split(",")):
        for side in sides if number % 2 == 0 else sides[::-1]:
            key = {**same, "side": side, "seed": seed}
            if ledger.find(**key) is None:
                found = run_side(chosen, path, side, seed)
                row = ledger.append({"dataset": manifest.name, **found}, **key)
                print(side, seed, row["num_steps"], "steps", flush=True)
    summary = compare_sides(ledger.rows, sides, **same)
    (chosen.output / "scarce_labels.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def few_labels(manifest: Manifest, num_labelled: int) -> Manifest:
    """Return the dataset with the labels of all but a few training cases of fold 0 taken away."""
    manifest = with_folds(manifest)
    learnt = [case.case_id for case in manifest.training_cases if case.fold != 0]
    kept = {learnt[n] for n in np.random.default_rng(0).permutation(len(learnt))[:num_labelled]}
    cases = [
        case
        if case.split != "train" or case.fold == 0 or case.case_id in kept
        else replace(case, split="unlabelled", labels=(), fold=None, classes=None, digest="")
        for case in manifest.cases
    ]
    name = f"{manifest.name}_{num_labelled}"
    return replace(manifest, name=name, data_root=manifest.data_root.absolute(), cases=tuple(cases))


def run_side(chosen: argparse.Namespace, path: Path, side: str, seed: str) -> dict[str, Any]:
    """Train one side, after its pretraining if it has one, and score it."""
    folder = chosen.output / f"{side}_{chosen.time}_{seed}_{len(chosen.set)}"
    budget_s, given = seconds_of(chosen.time), [f"training.seed={seed}", *chosen.set]
    extra: dict[str, Any] = {}
    if side.startswith("pretrained"):
        first_s = seconds_of(chosen.pretrain_time)
        if side == "pretrained_within":
            first_s = budget_s = budget_s / 2
        medseg(
            "train", f"manifest={path}", "fold=0", "experiment=pretrain", "mlflow.enabled=false",
            f"training.max_time={first_s:.0f}s", f"output={folder / 'pretraining'}", *given,
        )  # fmt: skip
        result = json.loads((folder / "pretraining" / "result.json").read_text())
        extra["pretrain_steps"] = result["num_steps"]
        given.append(f"training.init={folder / 'pretraining'}")
    if side == "mean_teacher":
        given.append("training.mean_teacher={}")
    done = train_and_score(path, folder, f"training.max_time={budget_s:.0f}s", *given)
    return {**done, **extra}


if __name__ == "__main__":
    main()
