"""What the scores of raters, and of a prediction against each, come to: a summary a pair."""

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.statistics.cohort import Summariser

Row = Mapping[str, Any]
PairSummary = Mapping[str, Any]

_COLUMNS = ("class", "pair", "cases", "Dice", "surface Dice")
_DISTANCES = ("hd95_mm", "hd95_px")
_MEASURES = ("dice", "surface_dice", *_DISTANCES)


def summarise_pairs(rows: Sequence[Row], summariser: Summariser) -> list[dict[str, Any]]:
    """Return, for every two who marked the same cases, what their scores come to.

    Args:
        rows: of raters.csv, one a case, class and pair.
        summariser: how; of its measures overlap and the robust distance are kept.
    """
    kept = Summariser(
        measures=[name for name in _MEASURES if name in summariser.measures],
        classes=summariser.classes,
        level=summariser.level,
        seed=summariser.seed,
        num_resamples=summariser.num_resamples,
    )
    found = []
    for first, second in dict.fromkeys((row["first"], row["second"]) for row in rows):
        own = [row for row in rows if (row["first"], row["second"]) == (first, second)]
        cohort = kept.summarise(own)
        found.append(
            {
                "first": first,
                "second": second,
                "num_cases": cohort["num_cases"],
                "foreground": cohort["foreground"],
                "classes": {name: one["scores"] for name, one in cohort["classes"].items()},
            }
        )
    return found


def pair_rows(pairs: Sequence[PairSummary]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns of the printed table, and a row a class and pair, the foreground last."""
    classes = list(dict.fromkeys(name for pair in pairs for name in pair["classes"]))
    lines = [(name, pair, pair["classes"].get(name)) for name in classes for pair in pairs]
    lines += [("foreground", pair, pair["foreground"]) for pair in pairs]
    measured = {measure for _, _, scores in lines for measure in scores or ()}
    chosen = [name for name in _DISTANCES if name in measured]
    rows = [
        (
            name,
            f"{pair['first']} - {pair['second']}",
            str(pair["num_cases"]),
            *(_mean(scores, measure) for measure in ("dice", "surface_dice", *chosen)),
        )
        for name, pair, scores in lines
        if scores
    ]
    return (*_COLUMNS, *chosen), rows


def _mean(scores: Mapping[str, Any], measure: str) -> str:
    if measure not in scores:
        return ""
    mean = scores[measure]["mean"]
    return "-" if mean != mean else f"{mean:.3f}"
