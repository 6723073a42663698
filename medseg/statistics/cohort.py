"""What the scores of many cases come to: mean, median, interval and counts for every class.

Rows are those of scores.csv. Intervals are drawn over patients (`bootstrap`); every one starts from
the same seed, so that adding a class or a measure changes no other number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medseg.statistics.bootstrap import NUM_RESAMPLES, mean_interval

Row = Mapping[str, Any]
Summary = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summariser:
    """Summarises rows of scores.

    Attributes:
        measures: columns to average.
        classes: whose mean within a case is its foreground score (regions would count twice).
        level: of the intervals.
        seed: of every interval's draws.
        num_resamples: draws an interval.
    """

    measures: Sequence[str]
    classes: Sequence[str]
    level: float = 0.95
    seed: int = 0
    num_resamples: int = NUM_RESAMPLES

    def summarise(self, rows: Sequence[Row]) -> Summary:
        """Return the summary of all rows, and of each stratum where there are several.

        Args:
            rows: one a case and class; a row with an `error` was not scored and is only counted.
        """
        strata = sorted({row["stratum"] for row in rows})
        groups = {
            stratum: self._cohort([row for row in rows if row["stratum"] == stratum])
            for stratum in strata
        }
        return {
            "interval": {
                "method": "BCa bootstrap over patients",
                "level": self.level,
                "num_resamples": self.num_resamples,
                "seed": self.seed,
            },
            **self._cohort(rows),
            "groups": groups if len(strata) > 1 else {},
        }

    def _cohort(self, rows: Sequence[Row]) -> Summary:
        scored = [row for row in rows if not row["error"]]
        failed: dict[str, list[str]] = {}
        for row in rows:
            if row["error"] and row["error"] not in failed.setdefault(row["case_id"], []):
                failed[row["case_id"]].append(row["error"])
        return {
            "num_cases": _num(rows, "case_id"),
            "num_patients": _num(rows, "patient_id"),
            "num_failed": len(failed),
            "failed": failed,
            "foreground": self._measures(self._foreground(scored)),
            "classes": {
                name: self._class([row for row in scored if row["class"] == name])
                for name in dict.fromkeys(row["class"] for row in scored)
            },
        }

    def _class(self, rows: Sequence[Row]) -> Summary:
        only_missed = [row["prediction_empty"] and not row["reference_empty"] for row in rows]
        absent = [row for row in rows if row["reference_empty"]]
        return {
            "num": len(rows),
            "num_reference_empty": len(absent),
            "num_prediction_empty": sum(row["prediction_empty"] for row in rows),
            "num_missed": sum(only_missed),
            "num_false_positive": sum(not row["prediction_empty"] for row in absent),
            "false_positive": self._volumes(absent),
            "scores": self._measures(rows),
        }

    def _volumes(self, absent: Sequence[Row]) -> Summary:
        """Mean and largest predicted volume where the reference is empty."""
        names = {name for row in absent for name in row if name.startswith("volume_prediction")}
        found = {name: [row[name] for row in absent if name in row] for name in sorted(names)}
        return {
            name: {"mean": float(np.mean(volumes)), "largest": max(volumes)}
            for name, volumes in found.items()
        }

    def _foreground(self, rows: Sequence[Row]) -> list[Row]:
        """Mean over the classes of each case, where they are defined."""
        cases: dict[str, list[Row]] = {}
        for row in rows:
            if row["class"] in self.classes:
                cases.setdefault(row["case_id"], []).append(row)
        return [
            {
                "patient_id": own[0]["patient_id"],
                **{
                    name: _average(np.mean, [row[name] for row in own if name in row])
                    for name in self.measures
                    if any(name in row for row in own)
                },
            }
            for own in cases.values()
        ]

    def _measures(self, rows: Sequence[Row]) -> Summary:
        return {
            name: self._measure([row for row in rows if name in row], name)
            for name in self.measures
            if any(name in row for row in rows)
        }

    def _measure(self, rows: Sequence[Row], name: str) -> Summary:
        values = [row[name] for row in rows]
        interval = mean_interval(
            values,
            rng=np.random.default_rng(self.seed),
            level=self.level,
            clusters=[row["patient_id"] for row in rows],
            num_resamples=self.num_resamples,
        )
        return {**asdict(interval), "median": _average(np.median, values)}


def _average(average: Callable[[list[float]], Any], values: Sequence[float]) -> float:
    """Average of the defined values, NaN when there are none."""
    defined = [value for value in values if value == value]
    return float(average(defined)) if defined else float("nan")


def _num(rows: Sequence[Row], name: str) -> int:
    return len({row[name] for row in rows})
