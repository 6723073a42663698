"""A summary in words: a line a class, and what was missed or found where nothing is."""

from collections.abc import Iterator, Mapping
from typing import Any

Summary = Mapping[str, Any]

_FIXED_COLUMNS = ("class", "Dice", "interval", "median", "surface Dice")

_OBJECT_COUNTS = ("reference", "prediction", "found", "missed", "false")


def summary_rows(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns of the printed table; a row a class, the foreground, and it by stratum.

    Args:
        summary: as `cohort.Summariser` makes it.
    """
    lines = {name: entry["scores"] for name, entry in summary["classes"].items()}
    lines["foreground"] = summary["foreground"]
    for stratum, group in summary["groups"].items():
        lines[f"foreground, {stratum or 'no stratum'}"] = group["foreground"]
    measured = {measure for scores in lines.values() for measure in scores}
    # Lengths and volumes are named after their unit; pixels and millimetres may both occur.
    units = ("hd95_mm", "hd95_px", "volume_error_ml", "volume_error_px")
    chosen = [measure for measure in units if measure in measured]
    rows = [_row(name, scores, chosen) for name, scores in lines.items() if scores]
    return (*_FIXED_COLUMNS, *chosen), rows


def object_rows(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns of the printed table of objects; a row a class, and a class and stratum.

    Args:
        summary: of objects: that of `cohort.Summariser`, with the `pooled` scores of each class.
    """
    parts = {"": summary, **{f", {name}": part for name, part in summary["groups"].items()}}
    rows = []
    for where, part in parts.items():
        for name, entry in part["classes"].items():
            pooled = entry["pooled"]
            ap = next(measure for measure in pooled if measure.startswith("ap_"))
            mean = entry["scores"][ap]
            rows.append(
                (
                    name + where,
                    *(str(pooled[f"num_{what}"]) for what in _OBJECT_COUNTS),
                    *(_number(pooled[measure]) for measure in ("pq", "sq", "rq", ap)),
                    _mean(mean),
                    f"{mean['low']:.3f} to {mean['high']:.3f}"
                    if mean["low"] == mean["low"]
                    else "-",
                )
            )
    return ("class", *_OBJECT_COUNTS, "PQ", "SQ", "RQ", "AP", "mean AP", "interval"), rows


def summary_notes(summary: Summary) -> Iterator[str]:
    """Yield a line for each class that was missed, or that some case does not have."""
    for name, entry in summary["classes"].items():
        num_absent = entry["num_reference_empty"]
        if num_absent or entry["num_missed"]:
            yield (
                f"{name}: missed in {entry['num_missed']} of {entry['num'] - num_absent} cases "
                f"that have it, found in {entry['num_false_positive']} of {num_absent} that do not"
            )


def _row(name: str, scores: Summary, chosen: list[str]) -> tuple[str, ...]:
    dice = scores["dice"]
    return (
        name,
        _mean(dice),
        f"{dice['low']:.3f} to {dice['high']:.3f}" if dice["low"] == dice["low"] else "-",
        _number(dice["median"]),
        *(
            _mean(scores[measure]) if measure in scores else ""
            for measure in ("surface_dice", *chosen)
        ),
    )


def _mean(entry: Summary) -> str:
    """A mean, with the number of values it leaves out because they are undefined."""
    undefined = f" ({entry['num_undefined']} undefined)" if entry["num_undefined"] else ""
    return _number(entry["mean"]) + undefined


def _number(value: float) -> str:
    if value != value:
        return "-"
    # Distances and volumes of micrographs would all be 0.000.
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"
