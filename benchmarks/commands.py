"""The real commands, run as a user runs them, and their results read from what they wrote."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.predict_cost import PER_MIB

# Ends of a command that was asked to stop, by Ctrl-C or SIGTERM: whoever asked meant all of it.
_STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
Scores = dict[str, dict[str, float]]


class CommandError(RuntimeError):
    """A command that ended with another code than 0; the message is the last line it said."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a command took: seconds from start to end, and the peak memory of its process."""

    seconds: float
    peak_mib: float


def medseg(*words: str) -> Used:
    """Run one command; its output is shown.

    Raises:
        CommandError: it failed, which ends a benchmark that does not expect it.
        SystemExit: it was asked to stop.
    """
    began, last = time.monotonic(), ""
    line = [sys.executable, "-W", "ignore", "-m", "medseg.cli", *words]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, errors="replace") as running:
        for said in running.stderr or ():
            sys.stderr.write(said)
            last = said.strip() or last
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode in _STOPPED:
        raise SystemExit(f"medseg {words[0]}: stopped")
    if running.returncode < 0:
        last = f"ended by signal {-running.returncode}"
    if running.returncode:
        raise CommandError(last or f"ended with {running.returncode}")
    return Used(
        seconds=round(time.monotonic() - began, 2), peak_mib=round(used.ru_maxrss / PER_MIB, 1)
    )


def dice_of(scores_csv: Path) -> Scores:
    """Read Dice by case and class from the `scores.csv` of `medseg evaluate`."""
    found: Scores = {}
    with scores_csv.open(newline="") as stream:
        for row in csv.DictReader(stream):
            value = float(row["dice"]) if row["dice"] else float("nan")
            found.setdefault(row["case_id"], {})[row["class"]] = value
    return found


def case_means(scores: Scores) -> dict[str, float]:
    """Mean over the classes of each case; undefined scores are left out."""
    return {case: float(np.nanmean(list(by_class.values()))) for case, by_class in scores.items()}


def case_seconds(predictions_csv: Path) -> float:
    """Mean time a scan, from reading to writing, in the `predictions.csv` of `medseg predict`."""
    with predictions_csv.open(newline="") as stream:
        rows = [float(row["seconds"]) for row in csv.DictReader(stream) if row["seconds"]]
    return float(np.mean(rows))
