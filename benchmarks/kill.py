"""kill -9 at random moments of a training: what was saved must load, and the end must be the same.

usage: python -m benchmarks.kill OUTPUT [--kills 50] [--inside 15] [--steps 60] [--seed 0]

A tiny network is trained with a save after every step, killed, resumed, killed again, until it
finishes; then another such chain begins, until there were KILLS kills, INSIDE of them between the
lines `saving` and `saved` of training.log. Every other kill is aimed at a save, the rest fall
anywhere from the start of the process on. Rows go to OUTPUT/kill.jsonl, from which a stopped run
goes on, the counts to OUTPUT/kill.json.
"""

import argparse
import json
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ledger import Ledger
from benchmarks.tiny_set import write_tiny_set
from benchmarks.warm import Ended, Running, start
from benchmarks.wreck import compare, inspect

# An aimed kill waits for one of the next saves, so that a chain sees several.
_MOST_SAVES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the trainings run, and what they all are alike in."""

    output: Path
    steps: int
    seed: int

    def folder(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.output / f"{name}_{self.steps}_{self.seed}"

    def train(self, folder: Path, *, resume: bool) -> Running:
        """Start a training, with dropout, whose random numbers must go on as well."""
        line = [
            "train", f"manifest={self.output / 'data' / 'manifest.json'}", "fold=0", "model=unet",
            "model.dropout=0.2", f"training.seed={self.seed}", f"output={folder}",
            f"cache={self.output / 'cache'}", "device=cpu", "mlflow.enabled=false",
            f"training.max_steps={self.steps}", "overrides.batch_size=2",
            "training.checkpoint_every_s=0", "training.num_validations=2",
            f"training.resume={'true' if resume else 'false'}",
        ]  # fmt: skip
        return start(line, log=folder.with_name(f"{folder.name}_said"))


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("output", type=Path)
    words.add_argument("--kills", type=int, default=50)
    words.add_argument("--inside", type=int, default=15)
    words.add_argument("--steps", type=int, default=60)
    words.add_argument("--seed", type=int, default=0)
    chosen = words.parse_args()
    os.environ["MEDSEG_HOME"] = str(chosen.output / "home")
    place = Place(output=chosen.output.absolute(), steps=chosen.steps, seed=chosen.seed)
    ledger = Ledger(place.output / "kill.jsonl")
    same = {"steps": chosen.steps, "seed": chosen.seed}
    whole_s = undisturbed(place, ledger, same)
    while True:
        rows = [row for row in ledger.rows if row["key"].items() >= same.items()]
        kills = [row for row in rows if row["what"] == "kill"]
        chains = [row for row in rows if row["what"] == "chain"]
        inside = sum(row["inside"] for row in kills)
        enough = len(kills) >= chosen.kills and inside >= chosen.inside
        if enough and rows[-1]["what"] == "chain":
            break
        key = {**same, "attempt": len(rows)}
        rng = np.random.default_rng((chosen.seed, len(rows)))
        result = attempt(place, len(chains), rng, whole_s=math.inf if enough else whole_s)
        row = ledger.append(result, **key)
        print({name: row[name] for name in result}, flush=True)
    summary = summarise(kills, chains)
    (place.output / "kill.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def undisturbed(place: Place, ledger: Ledger, same: dict[str, int]) -> float:
    """Train without a kill, the data being prepared already; return the seconds it took."""
    if known := ledger.find(**same, run="undisturbed"):
        return float(known["seconds"])
    data = place.output / "data"
    if not (data / "manifest.json").exists():
        write_tiny_set(data)
    for name in ("first", "undisturbed"):
        shutil.rmtree(place.folder(name), ignore_errors=True)
        ended = place.train(place.folder(name), resume=False).wait(600)
        _require_success(ended)
    result = {"what": "undisturbed", "seconds": ended.seconds}
    return float(ledger.append(result, **same, run="undisturbed")["seconds"])


def attempt(
    place: Place, chain: int, rng: np.random.Generator, *, whole_s: float
) -> dict[str, Any]:
    """Start or resume a chain, kill it at a drawn moment, and look at what it left.

    Args:
        place: see there.
        chain: its number.
        rng: of the moment.
        whole_s: seconds an undisturbed training takes; infinite: let this one finish.
    """
    folder = place.folder(f"chain_{chain}")
    running = place.train(folder, resume=(folder / "state.pt").exists())
    aimed = bool(rng.random() < 0.5)
    if math.isinf(whole_s):
        ended = running.wait(600)
    elif aimed:
        ended = _kill_in_a_save(running, folder / "training.log", rng)
    else:
        ended = _kill_after(running, rng.uniform(0, whole_s))
    about = {"chain": chain, "seconds": ended.seconds}
    if ended.exit_code == -9:
        return {"what": "kill", "aimed": aimed, **about, **inspect(folder)}
    _require_success(ended)
    return {"what": "chain", **about, **compare(folder, place.folder("undisturbed"))}


def summarise(kills: list[dict[str, Any]], chains: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kills": len(kills),
        "kills_inside_a_save": sum(row["inside"] for row in kills),
        "kills_before_the_first_save": sum(row["before_first_save"] for row in kills),
        "loads_that_failed": sum(len(row["failed"]) for row in kills),
        "fell_back_to_previous": sum(row["fallbacks"] for row in kills),
        "lost_a_save": sum(row["lost_a_save"] for row in kills),
        "resumed_to_the_end": len(chains),
        "final_weights_equal": all(row["weights_equal"] for row in chains),
        "final_state_equal": all(row["state_equal"] for row in chains),
        "unfinished_files_left_at_the_end": sum(row["parts_left"] for row in chains),
        "seconds_of_training": round(sum(row["seconds"] for row in (*kills, *chains)), 1),
    }


def _kill_after(running: Running, seconds: float) -> Ended:
    until = running.began + seconds
    while time.monotonic() < until and running.poll() is None:
        time.sleep(0.001)
    return running.kill()


def _kill_in_a_save(running: Running, log: Path, rng: np.random.Generator) -> Ended:
    """Kill shortly after the log says that a save has begun, once it has said so a few times."""
    seen = log.stat().st_size if log.exists() else 0
    wanted = int(rng.integers(1, _MOST_SAVES + 1))
    lasted_s = 0.02
    began = 0.0
    while running.poll() is None:
        text = log.read_bytes()[seen:] if log.exists() else b""
        count, done = text.count(b": saving"), text.count(b": saved")
        if count >= wanted:
            time.sleep(rng.uniform(0, lasted_s))
            break
        if count > done and not began:
            began = time.monotonic()
        elif count == done and began:
            lasted_s, began = time.monotonic() - began, 0.0
    return running.kill()


def _require_success(ended: Ended) -> None:
    if ended.exit_code:
        raise SystemExit(f"a training ended with {ended.exit_code}:\n{ended.printed}")


if __name__ == "__main__":
    main()
