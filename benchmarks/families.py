"""Families of networks beside each other, at equal training time and at equal steps.

usage: python -m benchmarks.families OUTPUT --data NAME=MANIFEST[@DIMS] ... [--families unet,...]
       [--time 150s] [--steps 300] [--most-time 8m] [--only-protocol time|steps] [--seeds 0]
       [--threads N] [--experiment families] [--set KEY=VALUE ...]

Each dataset is planned once, with DIMS 2 slice by slice; fold 0 is validated on. Every training has
the plan's patches and batches, and the defaults of `medseg train`. By `time` each family trains for
that long; by `steps` for as many, or as many as MOST_TIME allows. A family that fails is a row with
the reason. Trainings are children of one MLflow run, named after OUTPUT.

Rows go to OUTPUT/families.jsonl: Dice of every case and class, what the network and its training
cost, and of predicting the mean time a scan and the peak memory of the process. Means with
intervals over patients go to OUTPUT/families.json. Instances that share the work by `--data`,
`--families`, `--only-protocol` or `--seeds` need an OUTPUT each; their ledgers may be put together.
"""

import argparse
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import CommandError, medseg
from benchmarks.families_summary import summarise
from benchmarks.ledger import Ledger
from benchmarks.one_fold import score_run
from medseg.data.manifest import read_manifest
from medseg.data.splits import split_cases
from medseg.models.registry import model_names

FAMILIES = (
    "unet", "resunet", "segresnet", "swinunetr", "fcn", "deeplabv3", "deeplabv3plus", "pspnet",
)  # fmt: skip
PROTOCOLS = ("time", "steps")
# Nobody's folders belong into a ledger that is kept.
_PATH = re.compile(r"(?<![\w.])/(?:[^\s/:']+/)+[^\s:']*")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset by the name it has in the ledger.

    Attributes:
        name: letters, digits, `-` and `_`.
        manifest: its file.
        spatial_dims: 2 for slices, 3, or None: as the manifest says.
    """

    name: str
    manifest: Path
    spatial_dims: int | None

    @classmethod
    def from_word(cls, word: str) -> "Dataset":
        """Read `NAME=MANIFEST` or `NAME=MANIFEST@DIMS`."""
        found = re.fullmatch(r"([\w-]+)=(.+?)(?:@([23]))?", word)
        if found is None:
            raise argparse.ArgumentTypeError(f"{word}: expected NAME=MANIFEST or NAME=MANIFEST@2")
        name, manifest, dims = found.groups()
        return cls(name, Path(manifest), int(dims) if dims else None)


def main() -> None:
    chosen = _line().parse_args()
    if unknown := sorted(set(chosen.families) - set(model_names())):
        raise SystemExit(f"--families {unknown}: expected some of {model_names()}")
    if chosen.threads:
        os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    ledger = Ledger(chosen.output / "families.jsonl")
    for data, key in _keys(chosen):
        if ledger.find(**key) is None:
            row = ledger.append({"threads": chosen.threads, **run_family(chosen, data, key)}, **key)
            print(key, row.get("error") or f"{row['num_steps']} steps", flush=True)
    summary = summarise(ledger.rows)
    (chosen.output / "families.json").write_text(json.dumps(summary, indent=2) + "\n")
    for one in summary:
        print(json.dumps(one))


def run_family(chosen: argparse.Namespace, data: Dataset, key: dict[str, Any]) -> dict[str, Any]:
    """Train, predict and evaluate one family; a failure is a result, too."""
    name = "_".join(str(key[part]) for part in ("dataset", "family", "protocol", "seed"))
    name = f"{name}_{re.sub(r'[^0-9a-z]+', '-', key['budget'])}"
    sweep, scored = chosen.output / chosen.output.absolute().name, chosen.output / "scored" / name
    for left in (sweep / name, scored):
        # Of an instance that was stopped.
        shutil.rmtree(left, ignore_errors=True)
    try:
        plan = _plan_of(chosen.output, data)
        # A sweep of one job at a time: the first to name its folder makes the MLflow parent.
        medseg(
            "train", "-m", f"hydra.sweep.dir='{sweep.absolute()}'", f"hydra.sweep.subdir={name}",
            f"manifest={data.manifest}", f"plan={plan}", "fold=0", f"model={key['family']}",
            f"training.seed={key['seed']}", "training.num_validations=1",
            f"mlflow.experiment={chosen.experiment}", "mlflow.log_model=false",
            *_budget(chosen, key["protocol"]), *chosen.set,
        )  # fmt: skip
        result = score_run(data.manifest, sweep / name, scored)
    except CommandError as fault:
        return {"error": _PATH.sub("PATH", str(fault))}
    manifest, planned = read_manifest(data.manifest), json.loads(plan.read_text())
    return {
        **result,
        "patients": {c.case_id: c.patient_id for c in split_cases(manifest, 0).validation},
        **{part: planned[part] for part in ("spatial_dims", "patch_vox")},
        "batch_size": planned["training"]["batch_size"],
    }


def _keys(chosen: argparse.Namespace) -> Iterator[tuple[Dataset, dict[str, Any]]]:
    """Whole tables come first: all families of a dataset by one protocol, then the next."""
    for seed in chosen.seeds:
        for data in chosen.data:
            for protocol in chosen.only_protocol:
                for family in chosen.families:
                    yield (
                        data,
                        {
                            "dataset": data.name,
                            "family": family,
                            "protocol": protocol,
                            "seed": int(seed),
                            "budget": _told_budget(chosen, protocol),
                            "set": chosen.set,
                        },
                    )


def _budget(chosen: argparse.Namespace, protocol: str) -> list[str]:
    if protocol == "time":
        return [f"training.max_time={chosen.time}"]
    capped = [f"training.max_time={chosen.most_time}"] if chosen.most_time else []
    return [f"training.max_steps={chosen.steps}", *capped]


def _told_budget(chosen: argparse.Namespace, protocol: str) -> str:
    if protocol == "time":
        return str(chosen.time)
    return f"{chosen.steps} steps" + (f" within {chosen.most_time}" if chosen.most_time else "")


def _plan_of(output: Path, data: Dataset) -> Path:
    """Return the dataset's plan, made once for all families."""
    folder = output / "plans" / data.name
    if not (folder / "plan.json").exists():
        dims = [f"spatial_dims={data.spatial_dims}"] if data.spatial_dims else []
        medseg("plan", f"manifest={data.manifest}", f"output={folder}", *dims)
    return folder / "plan.json"


def _line() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("output", type=Path)
    words.add_argument("--data", nargs="+", type=Dataset.from_word, required=True)
    words.add_argument("--families", type=_listed, default=FAMILIES)
    words.add_argument("--time", default="150s")
    words.add_argument("--steps", type=int, default=300)
    words.add_argument("--most-time", default=None, help="at which equal steps end, such as 8m")
    words.add_argument("--only-protocol", type=_listed, default=PROTOCOLS, help="time or steps")
    words.add_argument("--seeds", type=_listed, default=("0",))
    words.add_argument("--threads", type=int, default=None, help="of every command")
    words.add_argument("--experiment", default="families", help="of MLflow")
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    return words


def _listed(word: str) -> tuple[str, ...]:
    return tuple(word.split(","))


if __name__ == "__main__":
    main()
