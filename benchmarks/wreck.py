"""What a killed training left, and whether a resumed one ended as if nothing had happened."""

import re
from pathlib import Path
from typing import Any

import torch

from medseg.core.errors import CheckpointError
from medseg.models.tensor_file import load_newest

_FILES = ("state.pt", "model.pt")


def inspect(folder: Path) -> dict[str, Any]:
    """Load what a killed training left.

    Before the first save has ended there may be nothing to load; afterwards both files must load,
    and hold no step less than the last one that was told to be saved.
    """
    log = folder / "training.log"
    told = re.findall(r"step (\d+): (saving|saved)", log.read_text() if log.exists() else "")
    saved = [int(step) for step, what in told if what == "saved"]
    inside = bool(told) and told[-1][1] == "saving"
    failed, fallbacks, steps = [], 0, []
    for name in _FILES:
        if not (folder / name).exists() and not saved:
            continue
        try:
            value, findings = load_newest(folder / name)
        except CheckpointError as fault:
            failed.append(str(fault))
            continue
        fallbacks += bool(findings)
        steps.append(value["step"] if name == "state.pt" else value["trained_with"]["num_steps"])
    return {
        "inside": inside,
        "before_first_save": not saved,
        "step": steps[0] if steps else 0,
        "failed": failed,
        "fallbacks": fallbacks,
        "lost_a_save": bool(saved) and bool(steps) and min(steps) < max(saved),
        "parts_left": _num_unfinished(folder),
    }


def compare(folder: Path, undisturbed: Path) -> dict[str, Any]:
    """Tell whether weights, averages, optimizer, random state and history are the same bits."""
    (state, _), (expected, _) = (load_newest(one / "state.pt") for one in (folder, undisturbed))
    (model, _), (wanted, _) = (load_newest(one / "model.pt") for one in (folder, undisturbed))
    for value in (state, expected):
        # The only entry that the clock decides.
        del value["seconds"]
    return {
        "weights_equal": _same(model["weights"], wanted["weights"]),
        "state_equal": _same(state, expected),
        "parts_left": _num_unfinished(folder),
    }


def _num_unfinished(folder: Path) -> int:
    """Count what is no file of a run's: parts being written, and second names being given."""
    return len(list(folder.glob(".part-*"))) + len(list(folder.glob(".*.previous.pt.*")))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or (one != one and other != other)
