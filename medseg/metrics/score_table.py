"""The rows of scores.csv: who, which class, every score, and why there is none."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from medseg.core.geometry import Unit
from medseg.metrics.summary import MEASURES, column

Row = Mapping[str, Any]

_WHO = ("case_id", "patient_id", "stratum", "class")
_UNITS: tuple[Unit, ...] = ("mm", "px")


def scores_text(rows: Sequence[Row]) -> str:
    """Return rows as CSV: `nan` is an undefined score, an empty cell one that was not measured.

    Args:
        rows: one a case and class: `Score.to_row` with case_id, patient_id, stratum and error.
    """
    names = dict.fromkeys((*_WHO, *(name for row in rows for name in row if name != "error")))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*names, "error"], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


def measures_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns that are averaged over cases; lengths in mm and in pixels stay apart."""
    names = dict.fromkeys(column(name, unit) for unit in _UNITS for name in MEASURES)
    return tuple(name for name in names if any(name in row for row in rows))


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
