"""What the ledger of families comes to: one row a dataset, budget and family."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.commands import case_means
from medseg.statistics.bootstrap import Interval, mean_interval, paired_interval

Row = dict[str, Any]

# A network that has taken fewer steps than this tells of its start, not of its family.
LEAST_STEPS = 200
_SAME = ("spatial_dims", "patch_vox", "batch_size", "num_parameters", "patch_flops")


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Return mean Dice with 95 % intervals over patients, and what each family costs.

    A case's Dice is the mean over its classes, then over the seeds; costs are medians over seeds.
    `behind` is the difference from the best family of the same dataset and budget that was trained,
    paired by case. A family all of whose runs failed is a row with the reason of the first.
    """
    tables: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in rows:
        key = row["key"]
        table = tables.setdefault((key["dataset"], key["protocol"], key["budget"], *key["set"]), {})
        table.setdefault(key["family"], []).append(row)
    return [told for table in tables.values() for told in _table(table)]


def _table(table: dict[str, list[Row]]) -> list[Row]:
    told = {family: _told(rows) for family, rows in table.items()}
    trained = [family for family, one in told.items() if one.get("trained")]
    if trained:
        best = max(trained, key=lambda family: float(told[family]["dice"]))
        for family, one in told.items():
            if family != best and "error" not in one:
                one["behind"] = _behind(table[family], table[best])
    return list(told.values())


def _told(rows: list[Row]) -> Row:
    done = [row for row in rows if "error" not in row]
    told = {name: value for name, value in rows[0]["key"].items() if name != "seed"}
    told |= {"threads": rows[0]["threads"], "gpu": rows[0].get("gpu")}
    told["seeds"] = [row["key"]["seed"] for row in rows]
    if not done:
        return {**told, "error": rows[0]["error"]}
    dice, patients = _dice_by_case(done), _patients(done)
    interval = mean_interval(
        list(dice.values()),
        rng=np.random.default_rng(0),
        clusters=[patients[case] for case in dice],
    )
    mean, low, high = _ends(interval)
    return {
        **told,
        **{name: done[0][name] for name in _SAME},
        "num_cases": interval.num,
        "num_patients": len({patients[case] for case in dice}),
        "dice": mean,
        "low": low,
        "high": high,
        "num_steps": [row["num_steps"] for row in done],
        "step_s": float(np.median([row["seconds"] / max(1, row["num_steps"]) for row in done])),
        "case_s": float(np.median([row["case_s"] for row in done])),
        "peak_mib": float(np.median([row["peak_mib"] for row in done])),
        "trained": min(row["num_steps"] for row in done) >= LEAST_STEPS,
    }


def _behind(rows: list[Row], best: list[Row]) -> list[float | None]:
    """Mean and interval of a family's Dice less the best one's, over the cases of both."""
    own, other = (_dice_by_case([r for r in some if "error" not in r]) for some in (rows, best))
    patients = _patients(best)
    cases = [case for case in own if case in other]
    return _ends(
        paired_interval(
            [own[case] for case in cases],
            [other[case] for case in cases],
            rng=np.random.default_rng(0),
            clusters=[patients[case] for case in cases],
        )
    )


def _dice_by_case(rows: Sequence[Row]) -> dict[str, float]:
    """Mean over classes, then over seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for case, mean in case_means(row["dice"]).items():
            found.setdefault(case, []).append(mean)
    return {case: float(np.mean(values)) for case, values in found.items()}


def _patients(rows: Sequence[Row]) -> dict[str, str]:
    return {
        case: who for row in rows if "error" not in row for case, who in row["patients"].items()
    }


def _ends(interval: Interval) -> list[float | None]:
    """One patient is no sample: there is no interval."""
    ends = (interval.mean, interval.low, interval.high)
    return [None if math.isnan(value) else value for value in ends]
