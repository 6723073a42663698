"""Trainings that something happens to: stores that are down, signals, others: rows 78 to 83."""

import json
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from benchmarks.bad_images import REFUSED, RIGHT
from benchmarks.bad_labels import train_line
from benchmarks.tiny_set import write_tiny_set
from benchmarks.trial import LIMIT_S, Trial
from benchmarks.warm import Ended, Running, run, start
from medseg.models.tensor_file import load_tensors
from medseg.tracking.outbox import Outbox

_LONG = ("training.max_steps=100000", "training.checkpoint_every_s=0.2", "training.num_workers=0")
# A scheduler that takes a machine back waits about so long.
_STOP_LIMIT_S = 10.0


def bad_runs(folder: Path) -> Iterator[Trial]:
    """Yield trainings and what happens to them."""
    manifest = write_tiny_set(folder / "data")
    yield from _stores(folder, manifest)
    yield from _signals(folder, manifest)
    yield from _lost_workers(folder, manifest)
    yield Trial(
        row=81,
        name="a loss that is not finite",
        line=train_line(
            manifest, folder / "diverged", "optimizer.lr=1e30", "training.max_steps=40"
        ),
        wants=REFUSED,
    )
    yield _two_runs(folder, manifest)
    yield from _changed(folder, manifest)


def _stores(folder: Path, manifest: Path) -> Iterator[Trial]:
    """Train while the tracking store refuses, never answers, or is locked by somebody."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{probe.getsockname()[1]}"
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(64)
    base = folder / "locked.db"
    holder = sqlite3.connect(base)
    holder.execute("BEGIN EXCLUSIVE")
    stores = {
        "nobody listens at the tracking server's port": refusing,
        "the tracking server never answers": f"http://127.0.0.1:{hole.getsockname()[1]}",
        "the tracking database is locked": f"sqlite:///{base}",
    }
    for number, (name, uri) in enumerate(stores.items()):
        run_folder = folder / f"store_{number}"
        line = train_line(manifest, run_folder, "mlflow.enabled=true", f"mlflow.uri={uri}")
        yield Trial(row=78, name=name, line=line, wants=RIGHT, oracle=partial(_kept, run_folder))
    hole.close()
    holder.close()


def _kept(folder: Path) -> str:
    """Tell whether a training ended well and its points wait to be sent."""
    finished = json.loads((folder / "result.json").read_text())["finished"]
    return "" if finished and Outbox(folder).num_left else "points of the curves are lost"


def _signals(folder: Path, manifest: Path) -> Iterator[Trial]:
    """Stop a training by each signal it knows, and by a second Ctrl-C."""
    listed = (
        ("SIGTERM", (signal.SIGTERM,), 143),
        ("SIGUSR1", (signal.SIGUSR1,), 138),
        ("Ctrl-C", (signal.SIGINT,), 130),
        ("Ctrl-C twice", (signal.SIGINT, signal.SIGINT), 130),
    )
    for number, (name, signals, exit_code) in enumerate(listed):
        run_folder = folder / f"signal_{number}"

        def stop(running: Running, signals: tuple[signal.Signals, ...] = signals) -> None:
            for one in signals:
                psutil.Process(running.pid).send_signal(one)
                time.sleep(0.02)

        yield Trial(
            row=79,
            name=name,
            line=train_line(manifest, run_folder, *_LONG),
            wants=RIGHT,
            exits=(exit_code,),
            limit_s=_STOP_LIMIT_S,
            oracle=partial(_resumable, run_folder),
            act=_disturbed(train_line(manifest, run_folder, *_LONG), run_folder, stop),
        )


def _resumable(folder: Path) -> str:
    return "" if load_tensors(folder / "state.pt")["step"] > 0 else "nothing was saved"


def _lost_workers(folder: Path, manifest: Path) -> Iterator[Trial]:
    run_folder = folder / "worker"
    line = train_line(manifest, run_folder, *_LONG[:2], "training.num_workers=1")

    def kill_worker(running: Running) -> None:
        for worker in psutil.Process(running.pid).children():
            worker.kill()

    yield Trial(
        row=80,
        name="a process that draws patches is killed",
        line=line,
        wants=REFUSED,
        survivors=partial(_resumable, run_folder),
        act=_disturbed(line, run_folder, kill_worker),
    )


def _two_runs(folder: Path, manifest: Path) -> Trial:
    run_folder = folder / "shared"
    line = train_line(manifest, run_folder, *_LONG)

    def second() -> Ended:
        first = start(line, log=folder / "first_said")
        try:
            _wait_for_save(run_folder)
            return run([*line, "training.resume=true"], log=folder / "second_said")
        finally:
            first.kill()

    return Trial(row=82, name="two runs in one folder", line=line, wants=REFUSED, act=second)


def _changed(folder: Path, manifest: Path) -> Iterator[Trial]:
    """Resume a training with other settings or data than it began with."""
    run_folder = folder / "begun"
    ended = run(train_line(manifest, run_folder), log=folder / "begun_said")
    if ended.exit_code:
        raise SystemExit(ended.printed)
    other = write_tiny_set(folder / "other", seed=1, num_cases=7)
    changes = {
        "another seed": (manifest, "training.seed=1"),
        "another network": (manifest, "model=resunet"),
        "another loss": (manifest, "loss=ce"),
        "another budget": (manifest, "training.max_steps=4"),
        "another learning rate": (manifest, "optimizer.lr=1e-5"),
        "another schedule": (manifest, "schedule=constant"),
        "another augmentation": (manifest, "augment=none"),
        "another fold": (manifest, "fold=1"),
        "other data": (other, "fold=0"),
    }
    for name, (data, change) in changes.items():
        line = train_line(data, run_folder, "training.resume=true", change)
        yield Trial(row=83, name=f"resumed with {name}", line=line, wants=REFUSED)


def _disturbed(
    line: tuple[str, ...], run_folder: Path, disturb: Callable[[Running], None]
) -> Callable[[], Ended]:
    """Run a training, do something to it once it has saved, and count the seconds from there."""

    def act() -> Ended:
        running = start(line, log=run_folder.with_name(f"{run_folder.name}_said"))
        _wait_for_save(run_folder)
        disturbed = time.monotonic()
        disturb(running)
        ended = running.wait(disturbed - running.began + 2 * LIMIT_S)
        return replace(ended, seconds=round(time.monotonic() - disturbed, 3))

    return act


def _wait_for_save(run_folder: Path) -> None:
    """Wait until a training has saved something.

    Raises:
        SystemExit: it has not within two minutes.
    """
    until = time.monotonic() + 120
    while not (run_folder / "model.pt").exists():
        if time.monotonic() > until:
            raise SystemExit(f"{run_folder}: no model.pt was saved")
        time.sleep(0.01)
