"""Finished ledgers put beside the code, for docs/models.md: whole rows, nothing of one machine.

usage: python -m benchmarks.keep LEDGER.jsonl ... [--dataset NAME]

A ledger goes to benchmarks/results under its own name; rows of several with one name are put
together, and a row whose key is kept already replaces it. --dataset names the dataset of rows that
do not. `python -m benchmarks.models_page` then writes the page.
"""

import argparse
import json
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]

# What computes; the others read and write files.
_VERSIONS = ("medseg", "torch", "monai")
_ABSOLUTE = re.compile(r"(?<![\w.:/])(/[\w.-]+){2,}|[A-Za-z]:\\|file:")


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("ledgers", nargs="+", type=Path)
    words.add_argument("--dataset")
    chosen = words.parse_args()
    for path in chosen.ledgers:
        rows = [kept(row, dataset=chosen.dataset) for row in rows_in(path)]
        target = RESULTS / path.name
        together = merged(rows_in(target), rows)
        RESULTS.mkdir(exist_ok=True)
        target.write_text("".join(json.dumps(row) + "\n" for row in together))
        print(f"{target.name}: {len(rows)} rows of {path.parent.name}, {len(together)} in all")


def rows_in(path: Path) -> list[Row]:
    """Read the rows of a ledger; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def kept(row: Row, *, dataset: str | None = None) -> Row:
    """Return a row without the versions of what only reads and writes files.

    Raises:
        SystemExit: it holds an absolute path or the name of this machine, or names no dataset.
    """
    known = {name: row["versions"][name] for name in _VERSIONS if name in row["versions"]}
    row = {**row, "versions": known}
    if dataset is not None and "dataset" not in row["key"]:
        row = {**row, "dataset": dataset}
    # Only phantoms of the benchmark's own need no name.
    if "side" in row["key"] and "dataset" not in row:
        raise SystemExit(f"{row['key']}: names no dataset; give --dataset")
    text = json.dumps(row, ensure_ascii=False)
    if found := _ABSOLUTE.search(text):
        raise SystemExit(f"{row['key']}: holds the path {found[0]}; a kept row must not")
    if re.search(rf"\b{re.escape(socket.gethostname())}\b", text):
        raise SystemExit(f"{row['key']}: holds the name of this machine; a kept row must not")
    return row


def merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Put rows together in the order they came; of one key the latest holds."""
    return list({json.dumps(row["key"], sort_keys=True): row for row in (*old, *new)}.values())


if __name__ == "__main__":
    main()
