"""What `medseg predict` takes for one scan: seconds, and peak memory beside a child that idles.

usage: python -m benchmarks.predict_cost CHECKPOINT SCAN OUTPUT [--repeats 3] [--set KEY=VALUE ...]

The idle child imports the very modules that the command had imported at its end, and does nothing,
so the difference is what the scan, the network and its feature maps take. Peaks are `ru_maxrss` of
each child. Rows go to OUTPUT/predict_cost.jsonl, medians to OUTPUT/predict_cost.json.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.ledger import Ledger

_MEASURED = ("seconds", "case_s", "cpu_s", "peak_mib", "idle_mib")
# Of `ru_maxrss`: Linux counts in KiB, macOS in bytes.
PER_MIB = 1024**2 if sys.platform == "darwin" else 1024
# Nothing heavy is imported here: a child's peak counts what its parent held when it was started.
_COMMAND = """
import json, sys
from medseg.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as stream:
    json.dump([name for name in sys.modules if name != "__main__"], stream)
sys.exit(code)
"""
_IDLE = """
import contextlib, importlib, json, sys
with open(sys.argv[1]) as stream:
    for name in json.load(stream):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
"""


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("checkpoint", type=Path)
    words.add_argument("scan", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--set", nargs="*", default=[], help="further settings of medseg predict")
    chosen = words.parse_args()
    ledger = Ledger(chosen.output / "predict_cost.jsonl")
    same = {"checkpoint": str(chosen.checkpoint), "scan": chosen.scan.name, "set": chosen.set}
    rows = []
    for number in range(chosen.repeats):
        row = ledger.find(**same, run=number)
        if row is None:
            row = ledger.append(measure(chosen), **same, run=number)
            told = {name: row[name] for name in _MEASURED}
            print(told, flush=True)
        rows.append(row)
    summary = {**shape_of(chosen.scan), **medians(rows)}
    (chosen.output / "predict_cost.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Run the command and the idle child once each."""
    masks, modules = chosen.output / "masks", chosen.output / "modules.json"
    shutil.rmtree(masks, ignore_errors=True)
    line = [
        "predict", f"checkpoint={chosen.checkpoint}", f"input={chosen.scan}", f"output={masks}",
        *chosen.set,
    ]  # fmt: skip
    began = time.monotonic()
    used = child(_COMMAND, str(modules), *line)
    seconds = round(time.monotonic() - began, 2)
    idle = child(_IDLE, str(modules))
    with (masks / "predictions.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    return {
        "seconds": seconds,
        "case_s": float(row["seconds"]),
        # Far below `seconds` on a machine that others keep busy.
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(used.ru_maxrss / PER_MIB, 1),
        "idle_mib": round(idle.ru_maxrss / PER_MIB, 1),
    }


def child(code: str, *words: str) -> resource.struct_rusage:
    """Run Python code in a process of its own; return what it used.

    Raises:
        SystemExit: it failed.
    """
    running = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, *words])
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"{' '.join(words)}: ended with {running.returncode}")
    return used


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    found = {name: statistics.median(row[name] for row in rows) for name in _MEASURED}
    return {
        "repeats": len(rows),
        **found,
        "taken_mib": round(found["peak_mib"] - found["idle_mib"], 1),
    }


def shape_of(scan: Path) -> dict[str, Any]:
    """Read the scan's size, after all children have ended."""
    from medseg.io.formats import read_volume

    volume = read_volume(scan)
    return {
        "shape": list(volume.geometry.shape),
        "scan_float32_mib": round(volume.voxels.size * 4 / 2**20, 1),
    }


if __name__ == "__main__":
    main()
