"""Half of the training cases with one class annotated, beside the fully annotated dataset.

usage: python -m benchmarks.partial_labels MANIFEST OUTPUT [--time 10m] [--seeds 0,1,2]
       [--sides full,partial,half,wrong] [--set KEY=VALUE ...]

Every other training case of fold 0 keeps one class of its reference, in turn the first and the
second; the others are erased from its file. Sides, at equal training time:

- full: the dataset as it is;
- partial: the erased classes are declared as not annotated;
- half: the cases with an erased class are left out;
- wrong: the erased classes pass for background.

Results go to OUTPUT/partial_labels.jsonl, Dice of each class and the paired differences to
OUTPUT/partial_labels.json.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.commands import medseg
from benchmarks.ledger import Ledger
from benchmarks.one_fold import compare_sides, train_and_score, with_folds
from medseg.data.case import Case
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.io.formats import read_label_map, write_label_map

SIDES = ("full", "partial", "half", "wrong")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--time", default="10m")
    words.add_argument("--seeds", default="0,1,2")
    words.add_argument("--sides", default=",".join(SIDES))
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    chosen = words.parse_args()
    sides = chosen.sides.split(",")
    paths = {side: chosen.output / "datasets" / f"{side}.json" for side in SIDES}
    manifest = read_manifest(chosen.manifest)
    if not all(path.exists() for path in paths.values()):
        write_datasets(manifest, chosen.output / "datasets")
    # One plan for all sides: made from the whole dataset, and never seen by any.
    plan = chosen.output / "datasets" / "plan.json"
    if not plan.exists():
        medseg("plan", f"manifest={paths['full']}")
    ledger = Ledger(chosen.output / "partial_labels.jsonl")
    for number, seed in enumerate(chosen.seeds.split(",")):
        for side in sides if number % 2 == 0 else sides[::-1]:
            key = {"side": side, "time": chosen.time, "seed": seed, "set": chosen.set}
            if ledger.find(**key) is None:
                folder = chosen.output / f"{side}_{chosen.time}_{seed}_{len(chosen.set)}"
                result = train_and_score(
                    paths[side], folder, f"plan={plan}", f"training.max_time={chosen.time}",
                    f"training.seed={seed}", *chosen.set,
                )  # fmt: skip
                ledger.append({"dataset": manifest.name, **result}, **key)
    summary = compare_sides(ledger.rows, sides, time=chosen.time, set=chosen.set)
    (chosen.output / "partial_labels.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def write_datasets(manifest: Manifest, folder: Path) -> None:
    """Copy the dataset, erase classes of every other training case, write a manifest a side."""
    manifest = with_folds(manifest)
    for case in manifest.cases:
        for relative in case.files:
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(manifest.path_of(relative), target)
    names = manifest.labels.names
    learnt = [case for case in manifest.training_cases if case.fold != 0]
    kept = {case.case_id: names[n % len(names)] for n, case in enumerate(learnt[::2])}
    reduced = {
        case.case_id: _erased(manifest, case, kept[case.case_id], folder)
        for case in learnt
        if case.case_id in kept
    }
    whole = {case.case_id: case for case in manifest.cases}
    cases = {
        "full": whole,
        "partial": {**whole, **reduced},
        "half": {name: case for name, case in whole.items() if name not in kept},
        "wrong": {
            **whole,
            **{name: replace(case, annotated=None) for name, case in reduced.items()},
        },
    }
    for side, own in cases.items():
        named = replace(
            manifest,
            name=f"{manifest.name}_{side}",
            data_root=folder.absolute(),
            cases=tuple(own.values()),
        )
        write_manifest(named, folder / f"{side}.json")


def _erased(manifest: Manifest, case: Case, name: str, folder: Path) -> Case:
    """Write the case's reference with one class alone; return the case that names it."""
    (annotation,) = case.label_files
    volume = read_label_map(manifest.path_of(annotation), manifest.labels)
    index = manifest.labels.names.index(name) + 1
    only = np.where(volume.only_channel == index, index, 0).astype(np.uint8)
    relative = f"one_class/{case.case_id}.nii.gz"
    write_label_map(only, folder / relative, geometry=volume.geometry, labels=manifest.labels)
    return replace(
        case, labels=(relative,), annotated=(name,), classes=None, digest="", image_digest=""
    )


if __name__ == "__main__":
    main()
