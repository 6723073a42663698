"""How many small lesions are found, by what patches are aimed at, at equal training time.

usage: python -m benchmarks.small_lesions OUTPUT [--time 10m] [--seeds 0,1,2] [--cases 60]
       [--test 20] [--sampling foreground,lesion] [--set KEY=VALUE ...]

Phantoms hold 1 to 20 lesions of 0.01 to 0.3 ml, about 0.01 % of their voxels. A lesion is found
when the prediction shares a voxel with it. Results go to OUTPUT/small_lesions.jsonl, one row a side
and seed; recall by size with intervals over cases to OUTPUT/small_lesions.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.commands import medseg
from benchmarks.ledger import Ledger
from medseg.core.labels import label_set
from medseg.data.case import Case, Channel
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.data.phantoms import Lesions, make_phantom
from medseg.data.scans import read_reference, read_scan
from medseg.io.formats import read_label_map, write_label_map, write_volume
from medseg.statistics.bootstrap import mean_interval, paired_interval

# From one voxel to what a reader sees at a glance.
_RADIUS_MM = (1.6, 4.0)
_MOST_LESIONS = 20
_SMALL_ML = 0.1
_LABELS = label_set({"lesion": 1})
_TOUCHING = np.ones((3, 3, 3))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("output", type=Path)
    words.add_argument("--time", default="10m")
    words.add_argument("--seeds", default="0,1,2")
    words.add_argument("--cases", type=int, default=60)
    words.add_argument("--test", type=int, default=20)
    words.add_argument("--sampling", default="foreground,lesion")
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    chosen = words.parse_args()
    path = chosen.output / "dataset" / "manifest.json"
    if not path.exists():
        write_dataset(path, num_cases=chosen.cases, num_test=chosen.test)
        medseg("plan", f"manifest={path}")
    manifest = read_manifest(path)
    ledger = Ledger(chosen.output / "small_lesions.jsonl")
    sides, seeds = chosen.sampling.split(","), chosen.seeds.split(",")
    for number, seed in enumerate(seeds):
        # In turn, so that a machine that grows slower does not always meet the same side.
        for sampling in sides if number % 2 == 0 else sides[::-1]:
            key = {"sampling": sampling, "time": chosen.time, "seed": seed, "set": chosen.set}
            if ledger.find(**key) is None:
                row = ledger.append(run_side(chosen, manifest, sampling, seed), **key)
                print(sampling, seed, row["num_steps"], "steps", flush=True)
    same = [
        row
        for row in ledger.rows
        if (row["key"]["time"], row["key"]["set"]) == (chosen.time, chosen.set)
    ]
    summary = {"foreground_share": _foreground_share(manifest), **summarise(same, sides)}
    (chosen.output / "small_lesions.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def write_dataset(path: Path, *, num_cases: int, num_test: int) -> None:
    """Write phantoms whose only class is the lesion; the last ones are for testing."""
    cases = []
    for number in range(num_cases):
        lesions = Lesions(count=number % _MOST_LESIONS + 1, radius_mm=_RADIUS_MM)
        phantom = make_phantom(np.random.default_rng(number), lesions=lesions)
        tumour = phantom.labels.names.index("tumour") + 1
        name = f"{number:03d}.nii.gz"
        write_volume(phantom.image, path.parent / "scans" / name)
        write_label_map(
            (phantom.label_map == tumour).astype(np.uint8),
            path.parent / "references" / name,
            geometry=phantom.image.geometry,
            labels=_LABELS,
        )
        cases.append(
            Case(
                case_id=f"{number:03d}",
                patient_id=f"{number:03d}",
                images={"CT": f"scans/{name}"},
                labels=(f"references/{name}",),
                split="test" if number >= num_cases - num_test else "train",
            )
        )
    manifest = Manifest(
        name="small_lesions",
        data_root=path.parent,
        channels=(Channel(name="CT", modality="CT"),),
        labels=_LABELS,
        reference_channel="CT",
        spatial_dims=3,
        cases=tuple(cases),
    )
    write_manifest(manifest, path)


def run_side(
    chosen: argparse.Namespace, manifest: Manifest, sampling: str, seed: str
) -> dict[str, Any]:
    """Train, predict the test cases, and list every lesion with its size and whether it was hit."""
    folder = chosen.output / f"{sampling}_{chosen.time}_{seed}_{len(chosen.set)}"
    path = f"manifest={chosen.output / 'dataset' / 'manifest.json'}"
    medseg(
        "train", path, "fold=all", f"training.max_time={chosen.time}", f"training.seed={seed}",
        f"training.sampling={sampling}", f"output={folder / 'run'}", "mlflow.enabled=false",
        *chosen.set,
    )  # fmt: skip
    medseg(
        "predict", path, "split=test", f"checkpoint={folder / 'run'}",
        f"output={folder / 'masks'}",
    )  # fmt: skip
    run = json.loads((folder / "run" / "result.json").read_text())
    found = {
        case.case_id: score_case(manifest, case, folder / "masks" / f"{case.case_id}.nii.gz")
        for case in manifest.test_cases
    }
    return {"num_steps": run["num_steps"], "seconds": run["seconds"], "cases": found}


def score_case(manifest: Manifest, case: Case, mask: Path) -> dict[str, Any]:
    """Return the volume of each reference lesion, whether it was hit, and false predictions."""
    scan = read_scan(manifest, case)
    reference = read_reference(manifest, case, scan.geometry).only_channel > 0
    prediction = read_label_map(mask, _LABELS).only_channel > 0
    pieces, number = ndimage.label(reference, structure=_TOUCHING)
    volumes_vox = np.bincount(pieces.ravel(), minlength=number + 1)[1:]
    hit = np.isin(np.arange(1, number + 1), np.unique(pieces[prediction]))
    guesses, num_guesses = ndimage.label(prediction, structure=_TOUCHING)
    true = np.unique(guesses[reference & prediction])
    return {
        "volume_ml": (volumes_vox * scan.geometry.voxel_ml).tolist(),
        "found": hit.tolist(),
        "num_false": int(num_guesses - len(true)),
        "dice": _dice(prediction, reference),
    }


def summarise(rows: list[dict[str, Any]], sides: list[str]) -> dict[str, Any]:
    """Recall of small and of larger lesions per side, and the paired difference of the first two.

    A case's recall is the mean over the seeds; intervals are over cases.
    """
    summary: dict[str, Any] = {"small_ml": _SMALL_ML}
    recalls = {}
    for side in sides:
        own = [row for row in rows if row["key"]["sampling"] == side]
        recalls[side] = _recall_by_case(own, small=True)
        summary[side] = {
            "num_steps": [row["num_steps"] for row in own],
            "recall_small": _interval(recalls[side]),
            "recall_larger": _interval(_recall_by_case(own, small=False)),
            "false_a_case": float(
                np.mean([case["num_false"] for row in own for case in row["cases"].values()])
            ),
            "dice": float(np.mean([c["dice"] for row in own for c in row["cases"].values()])),
        }
    if len(sides) > 1:
        first, second = recalls[sides[0]], recalls[sides[1]]
        common = sorted(first.keys() & second.keys())
        change = paired_interval(
            [second[case] for case in common],
            [first[case] for case in common],
            rng=np.random.default_rng(0),
        )
        summary[f"recall_small: {sides[1]} less {sides[0]}"] = [
            change.mean,
            change.low,
            change.high,
        ]
    return summary


def _recall_by_case(rows: list[dict[str, Any]], *, small: bool) -> dict[str, float]:
    found: dict[str, list[bool]] = {}
    for row in rows:
        for name, case in row["cases"].items():
            for volume_ml, hit in zip(case["volume_ml"], case["found"], strict=True):
                if (volume_ml < _SMALL_ML) == small:
                    found.setdefault(name, []).append(hit)
    return {name: float(np.mean(hits)) for name, hits in found.items()}


def _interval(recalls: dict[str, float]) -> list[float]:
    interval = mean_interval(list(recalls.values()), rng=np.random.default_rng(0))
    return [interval.mean, interval.low, interval.high]


def _dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    return float(2 * (prediction & reference).sum() / (prediction.sum() + reference.sum()))


def _foreground_share(manifest: Manifest) -> float:
    """Share of voxels in lesions, over all cases."""
    maps = [
        read_label_map(manifest.path_of(case.label_files[0]), _LABELS).voxels
        for case in manifest.cases
    ]
    return float(sum((one > 0).sum() for one in maps) / sum(one.size for one in maps))


if __name__ == "__main__":
    main()
