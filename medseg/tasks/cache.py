"""`medseg cache`: what prepared cases take on disk, and how to be rid of those nobody uses."""

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import ConfigError
from medseg.runtime.console import say, table
from medseg.runtime.home import home

_DAY_S = 86400.0
_MARK = "case.json"


@dataclass(frozen=True, slots=True)
class PreparedFolder:
    """One prepared case on disk: where, how large in bytes, and days since it was last opened."""

    path: Path
    num_bytes: int
    age_days: float


def main(argv: Sequence[str]) -> int:
    """List or prune the cache, as the arguments say."""
    words = argparse.ArgumentParser(
        prog="medseg cache",
        description="Prepared scans are kept so that the next training starts at once.",
    )
    words.add_argument("action", choices=("list", "prune"))
    words.add_argument(
        "--older-than-days", type=float, default=0.0, help="prune only what was not used since"
    )
    words.add_argument("--folder", type=Path, help="cache folder; default: in the home folder")
    chosen = words.parse_args(argv)
    folder = chosen.folder or home() / "cache"
    if chosen.folder and not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    found = list(prepared_folders(folder))
    if chosen.action == "list":
        _show(found, folder)
        return 0
    old = [one for one in found if one.age_days >= chosen.older_than_days]
    for one in old:
        shutil.rmtree(one.path)
    say(f"{len(old)} of {len(found)} prepared cases removed, {_mebibytes(old)} MiB: {folder}")
    return 0


def prepared_folders(folder: Path) -> Iterator[PreparedFolder]:
    """Yield the prepared cases below a cache folder, and nothing else that may lie there."""
    for mark in sorted(folder.glob(f"*/*/{_MARK}")):
        size = sum(path.stat().st_size for path in mark.parent.iterdir())
        age_s = time.time() - mark.stat().st_mtime
        yield PreparedFolder(mark.parent, size, age_s / _DAY_S)


def _show(found: Sequence[PreparedFolder], folder: Path) -> None:
    datasets = sorted({one.path.parent.name for one in found})
    rows = []
    for name in datasets:
        own = [one for one in found if one.path.parent.name == name]
        youngest = min(one.age_days for one in own)
        rows.append((name, len(own), _mebibytes(own), round(youngest, 1)))
    table(rows, columns=("dataset", "cases", "MiB", "days since use"), title=str(folder))


def _mebibytes(found: Sequence[PreparedFolder]) -> int:
    return round(sum(one.num_bytes for one in found) / 2**20)
