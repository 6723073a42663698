"""What the ledger of families comes to: one row a dataset, budget and family."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.commands import case_means
from medseg.statistics.bootstrap import mean_interval

# A network that has taken fewer steps than this tells of its start, not of its family.
LEAST_STEPS = 200
_SAME = ("spatial_dims", "patch_vox", "batch_size", "num_parameters", "patch_flops")


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean Dice with 95 % intervals over patients, and what each family costs.

    A case's Dice is the mean over its classes, then over the seeds; costs are medians over seeds.
    A family all of whose runs failed is a row with the reason of the first.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = row["key"]
        group = (key["dataset"], key["protocol"], key["budget"], *key["set"], key["family"])
        groups.setdefault(group, []).append(row)
    return [
        {**{name: value for name, value in own[0]["key"].items() if name != "seed"}, **_told(own)}
        for own in groups.values()
    ]


def _told(rows: list[dict[str, Any]]) -> dict[str, Any]:
    done = [row for row in rows if "error" not in row]
    told = {"threads": rows[0]["threads"], "seeds": [row["key"]["seed"] for row in rows]}
    if not done:
        return {**told, "error": rows[0]["error"]}
    dice: dict[str, list[float]] = {}
    for row in done:
        for case, mean in case_means(row["dice"]).items():
            dice.setdefault(case, []).append(mean)
    patients = {case: who for row in done for case, who in row["patients"].items()}
    interval = mean_interval(
        [float(np.mean(values)) for values in dice.values()],
        rng=np.random.default_rng(0),
        clusters=[patients[case] for case in dice],
    )
    return {
        **told,
        **{name: done[0][name] for name in _SAME},
        "num_cases": interval.num,
        "num_patients": len({patients[case] for case in dice}),
        "dice": interval.mean,
        # One patient is no sample: there is no interval.
        "low": None if math.isnan(interval.low) else interval.low,
        "high": None if math.isnan(interval.high) else interval.high,
        "num_steps": [row["num_steps"] for row in done],
        "step_s": float(np.median([row["seconds"] / max(1, row["num_steps"]) for row in done])),
        "case_s": float(np.median([row["case_s"] for row in done])),
        "peak_mib": float(np.median([row["peak_mib"] for row in done])),
        "trained": min(row["num_steps"] for row in done) >= LEAST_STEPS,
    }
