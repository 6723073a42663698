"""What object scores come to: means over cases, and beside them all cases taken as one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medseg.statistics.cohort import Row, Summariser, Summary


def summarise_objects(
    rows: Sequence[Row],
    summariser: Summariser,
    *,
    pool: Callable[[Sequence[Row]], Mapping[str, Any]],
) -> Summary:
    """Summarise rows of object scores; each class, of each stratum, gets an entry `pooled`.

    Args:
        rows: one a case and class; a row with an `error` was not scored.
        summariser: averages over cases.
        pool: returns what the rows of one class come to when their cases are one.
    """
    summary = summariser.summarise(rows)
    for stratum, part in {None: summary, **summary["groups"]}.items():
        for name, entry in part["classes"].items():
            scored = [row for row in rows if row["class"] == name and not row["error"]]
            own = [row for row in scored if stratum is None or row["stratum"] == stratum]
            entry["pooled"] = dict(pool(own))
    return summary


def pooled_scores(summary: Summary) -> dict[str, float]:
    """Return the pooled scores of a summary that may hold objects, named `<measure>/<class>`."""
    classes = summary.get("objects", {}).get("classes", {})
    return {
        f"{measure}/{name}": float(value)
        for name, entry in classes.items()
        for measure, value in entry["pooled"].items()
    }
