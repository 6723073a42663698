"""Mutated files of every format: read, refused with a code, or what must never be.

usage: python -m benchmarks.mutations OUTPUT [--formats nifti,png] [--count 5000] [--workers 2]
           [--limit-s 10]

Of every format a small good file is made; mutation number n of it (bits flipped, the end cut off,
spans inserted, deleted, swapped or overwritten, fields of the header exchanged) follows from n
alone. A child process reads one after the other, with warnings as errors. What it says is counted:
`read`, `refused` (a coded refusal of one line), `uncoded` (a refusal without one), `other` (any
other exception), `crash` (the child died), `slow` (no answer within `--limit-s`, to be raised where
others keep the machine busy; the child is killed) and `fat` (it took more than a GiB). Blocks of
100 go to OUTPUT/mutations.jsonl, from which a stopped run goes on, counts to OUTPUT/mutations.json;
files that did anything but read or refuse are kept in OUTPUT/kept.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock, Timer
from typing import IO, Any

from benchmarks.ledger import Ledger
from benchmarks.mutated import FORMATS, mutated, write_good

_MOST_KIB = 2**20
_BLOCK = 100
_FINE = ("read", "refused")


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("output", type=Path)
    words.add_argument("--formats", default=",".join(FORMATS))
    words.add_argument("--count", type=int, default=5000)
    words.add_argument("--workers", type=int, default=1)
    words.add_argument("--limit-s", type=float, default=10.0)
    words.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    chosen = words.parse_args()
    if chosen.read:
        serve()
        return
    good = write_good(chosen.output / "good")
    ledger, lock = Ledger(chosen.output / "mutations.jsonl"), Lock()
    wanted = [
        (name, start)
        for start in range(0, chosen.count, _BLOCK)
        for name in chosen.formats.split(",")
        if ledger.find(format=name, start=start) is None
    ]

    def measure(task: tuple[str, int]) -> None:
        name, start = task
        found = block(name, start, good[name], chosen.output, limit_s=chosen.limit_s)
        with lock:
            ledger.append(found, format=name, start=start)
            print(name, start, found["counts"], flush=True)

    with ThreadPoolExecutor(chosen.workers) as pool:
        list(pool.map(measure, wanted))
    told = summary(ledger.rows)
    (chosen.output / "mutations.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))


def block(name: str, start: int, good: Path, output: Path, *, limit_s: float) -> dict[str, Any]:
    """Read a block of mutations of one file; return how often what happened, and what was odd."""
    place = output / "tried" / f"{name}_{start}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good.parent, place)
    path = place / good.name
    whole = path.read_bytes()
    counts: Counter[str] = Counter()
    odd: list[dict[str, Any]] = []
    reader = Reader(limit_s)
    for number in range(start, start + _BLOCK):
        path.write_bytes(mutated(whole, number))
        told = reader.ask(path)
        counts[told["outcome"]] += 1
        if told["outcome"] not in _FINE:
            odd.append({"number": number, **told})
            (output / "kept").mkdir(exist_ok=True)
            shutil.copyfile(path, output / "kept" / f"{name}_{number}_{path.name}")
    reader.end()
    shutil.rmtree(place)
    return {"counts": dict(counts), "odd": odd, "longest_s": reader.longest_s}


class Reader:
    """A child that reads files, and is started again when it is gone."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._child: subprocess.Popen[str] | None = None
        self.longest_s = 0.0

    def ask(self, path: Path) -> dict[str, Any]:
        """Have a file read; return what the child says, or what became of it."""
        child = self._child or self._started()
        late: list[bool] = []

        def stop() -> None:
            late.append(True)
            child.kill()

        timer = Timer(self._limit_s, stop)
        timer.start()
        print(path, file=_pipe(child.stdin), flush=True)
        line = _pipe(child.stdout).readline()
        timer.cancel()
        if not line:
            self.end()
            return {"outcome": "slow" if late else "crash", "exit_code": child.returncode}
        told: dict[str, Any] = json.loads(line)
        self.longest_s = max(self.longest_s, told.pop("cpu_s"))
        if told.pop("peak_kib") > _MOST_KIB:
            self.end()
            return {**told, "outcome": "fat"}
        return told

    def end(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _started(self) -> "subprocess.Popen[str]":
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.mutations", ".", "--read"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # The start of a child is not the file's fault.
        _pipe(self._child.stdout).readline()
        return self._child


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise SystemExit("a child without pipes")
    return stream


def serve() -> None:
    """Be the child: read the files that are named on the standard input."""
    from medseg.core.errors import MedsegError
    from medseg.io.formats import read_volume

    print("ready", flush=True)
    for line in sys.stdin:
        path = Path(line.strip())
        began = os.times()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if path.name in ("seg.dcm", "rtstruct.dcm"):
                    read_mask(path)
                else:
                    read_volume(path.parent if path.suffix == ".dcm" else path)
            told = {"outcome": "read"}
        except MedsegError as refusal:
            coded = bool(refusal.code) and "\n" not in str(refusal)
            told = {"outcome": "refused" if coded else "uncoded", "said": str(refusal)[:200]}
        except Exception as fault:  # noqa: BLE001 - what escapes a reader is what we look for
            told = {"outcome": "other", "said": f"{type(fault).__name__}: {fault}"[:200]}
        ended = os.times()
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu_s = round(ended.user + ended.system - began.user - began.system, 2)
        print(json.dumps({**told, "peak_kib": peak_kib, "cpu_s": cpu_s}), flush=True)


def read_mask(path: Path) -> None:
    """Read a SEG on its own grid, or an RTSTRUCT on that of the scan beside it."""
    from medseg.io.dicom.rtstruct.reading import read_rtstruct
    from medseg.io.dicom.seg.segmentation import read_seg

    if path.name.startswith("seg"):
        read_seg(path)
    else:
        read_rtstruct(path, source=path.parent / "scan")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in sorted({row["key"]["format"] for row in rows}):
        mine = [row for row in rows if row["key"]["format"] == name]
        counts: Counter[str] = Counter()
        for row in mine:
            counts.update(row["counts"])
        told[name] = {
            "files": sum(counts.values()),
            **dict(counts),
            "longest_cpu_s": max(row["longest_s"] for row in mine),
            "odd": [one for row in mine for one in row["odd"]],
        }
    return told


if __name__ == "__main__":
    main()
