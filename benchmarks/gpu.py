"""Everything a GPU is checked for, in one command.

usage: python -m benchmarks.gpu MANIFEST OUTPUT [--time 5m] [--steps 60]

Plans MANIFEST for the GPU; trains fold 0 for TIME (bfloat16 where the GPU has it); times steps on
batches as they are drawn, on one batch again and again, and with a compiled network; segments fold
0 on the GPU and on the CPU with the same checkpoint, and counts the voxels that differ. Each part
is a row of OUTPUT/gpu.jsonl, from which a stopped run goes on; all are in OUTPUT/gpu.json.
"""

import argparse
import csv
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ledger import Ledger
from benchmarks.steps import Steps, forget_peak, peak_mib
from medseg.cli import main as medseg
from medseg.data.manifest import read_manifest
from medseg.data.splits import split_cases
from medseg.io.formats import read_label_map
from medseg.planning.plan_file import read_plan


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--time", default="5m")
    words.add_argument("--steps", type=int, default=60, help="steps timed of each kind")
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg train")
    # For trying this script out where there is no GPU.
    words.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    chosen = words.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"benchmarks.gpu: not run: PyTorch {torch.__version__} sees no GPU here")
    ledger = Ledger(chosen.output / "gpu.jsonl")
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "device": lambda: describe(chosen.device),
        "train": lambda: train(chosen),
        "steps_real": lambda: steps(chosen).timed(dummy=False),
        "steps_dummy": lambda: steps(chosen).timed(dummy=True),
        "steps_compiled": lambda: steps(chosen).timed(dummy=True, compiled=True),
        "predict": lambda: predict(chosen, "predict", device=chosen.device),
        "predict_cpu": lambda: predict(chosen, "predict_cpu", device="cpu"),
        "agreement": lambda: agreement(chosen),
    }
    summary = {}
    for name, part in parts.items():
        key = {"part": name, "device": chosen.device, "time": chosen.time, "set": chosen.set}
        row = ledger.find(**key) or ledger.append(part(), **key)
        summary[name] = {k: v for k, v in row.items() if k not in ("key", "commit", "versions")}
        print(name, summary[name], flush=True)
    (chosen.output / "gpu.json").write_text(json.dumps(summary, indent=2) + "\n")


def describe(device: str) -> dict[str, Any]:
    if device != "cuda":
        return {"name": device}
    found = torch.cuda.get_device_properties(0)
    return {"name": found.name, "memory_gib": round(found.total_memory / 2**30, 1)}


def train(chosen: argparse.Namespace) -> dict[str, Any]:
    """Plan and train by the commands, in this process, so that the memory can be asked for."""
    run = chosen.output / "run"
    shutil.rmtree(run, ignore_errors=True)
    plan = chosen.output / "plan"
    command("plan", f"manifest={chosen.manifest}", f"output={plan}", f"device={chosen.device}")
    forget_peak(chosen.device)
    began = time.monotonic()
    command("train", *train_words(chosen), f"output={run}", f"training.max_time={chosen.time}")
    wall_s = time.monotonic() - began
    result = json.loads((run / "result.json").read_text())
    planned = read_plan(plan / "plan.json")
    pace_s = result["seconds"] / result["num_steps"]
    num_training = len(split_cases(read_manifest(chosen.manifest), 0).training)
    return {
        "num_steps": result["num_steps"],
        "step_s": pace_s,
        "epoch_s": pace_s * max(1, num_training // planned.training.batch_size),
        "wall_s": wall_s,
        "patch_vox": planned.patch_vox,
        "batch_size": planned.training.batch_size,
        "gpu_peak_mib": peak_mib(chosen.device),
        "dice": result["scores"],
    }


def train_words(chosen: argparse.Namespace) -> list[str]:
    """Settings that the command and the timed steps share."""
    return [
        f"manifest={chosen.manifest}", f"plan={chosen.output / 'plan' / 'plan.json'}", "fold=0",
        f"device={chosen.device}", f"cache={chosen.output / 'cache'}", "mlflow.enabled=false",
        "training.num_validations=1", *chosen.set,
    ]  # fmt: skip


def steps(chosen: argparse.Namespace) -> Steps:
    return Steps(train_words(chosen), cache=chosen.output / "cache", num_steps=chosen.steps)


def predict(chosen: argparse.Namespace, name: str, *, device: str) -> dict[str, Any]:
    """Segment fold 0; without mirror images, which a CPU leaves out by itself."""
    masks = chosen.output / name
    shutil.rmtree(masks, ignore_errors=True)
    forget_peak(device)
    began = time.monotonic()
    command(
        "predict", f"manifest={chosen.manifest}", "split=0", f"checkpoint={chosen.output / 'run'}",
        f"output={masks}", f"device={device}", "mirror=false",
    )  # fmt: skip
    wall_s = time.monotonic() - began
    with (masks / "predictions.csv").open(newline="") as stream:
        seconds = [float(row["seconds"]) for row in csv.DictReader(stream)]
    return {
        "num_cases": len(seconds),
        "case_s": statistics.median(seconds),
        "first_case_s": seconds[0],
        "wall_s": wall_s,
        "gpu_peak_mib": peak_mib(device),
    }


def agreement(chosen: argparse.Namespace) -> dict[str, Any]:
    """Count voxels whose class depends on the device, among all and among those of any class."""
    labels = read_manifest(chosen.manifest).labels
    num_vox = num_marked = num_differing = 0
    shares = []
    for path in sorted((chosen.output / "predict").glob("*.nii.gz")):
        one = read_label_map(path, labels).voxels
        other = read_label_map(chosen.output / "predict_cpu" / path.name, labels).voxels
        differing = int(np.count_nonzero(one != other))
        shares.append(differing / one.size)
        num_vox += one.size
        num_marked += int(np.count_nonzero((one > 0) | (other > 0)))
        num_differing += differing
    return {
        "num_cases": len(shares),
        "num_vox": num_vox,
        "num_differing_vox": num_differing,
        "differing_share": num_differing / num_vox,
        "differing_share_of_marked": num_differing / max(1, num_marked),
        "worst_case_share": max(shares),
    }


def command(*words: str) -> None:
    """Run one command in this process.

    Raises:
        SystemExit: it failed.
    """
    if code := medseg(list(words)):
        raise SystemExit(f"medseg {' '.join(words)}: ended with {code}")


if __name__ == "__main__":
    main()
