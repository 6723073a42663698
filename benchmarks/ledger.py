"""A ledger of measurements: one JSON line a result, so that a stopped benchmark goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.runtime.hardware import measure_hardware, pick_device
from medseg.runtime.provenance import commit, versions


class Ledger:
    """Rows on disk, each found again by its key.

    Args:
        path: of the `.jsonl` file; made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text().splitlines() if line]

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the row of that key, None when it was not measured yet."""
        for row in self.rows:
            if row["key"] == key:
                return row
        return None

    def append(self, result: Mapping[str, Any], **key: Any) -> dict[str, Any]:
        """Add a row with the commit, versions and, where there is one, GPU it was measured on."""
        row = {"key": key, **result, "commit": commit(), "versions": versions(), **_gpu()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.rows.append(row)
        return row


def _gpu() -> dict[str, str]:
    device = pick_device()
    return {"gpu": measure_hardware(device).name} if device.type == "cuda" else {}
