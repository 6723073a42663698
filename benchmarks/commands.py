"""The real commands, run as a user runs them, and their results read from what they wrote."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np

Scores = dict[str, dict[str, float]]


def medseg(*words: str) -> None:
    """Run one command; its output is shown, and a failure ends the benchmark."""
    subprocess.run([sys.executable, "-W", "ignore", "-m", "medseg.cli", *words], check=True)


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
