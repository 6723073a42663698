"""Objects told apart in several ways, for docs/models.md."""

from collections.abc import Sequence
from typing import Any

from benchmarks.objects import BASELINE, summarise
from benchmarks.page_text import (
    command,
    figure,
    markdown_table,
    ranged,
    settings_words,
)

Row = dict[str, Any]

_INTRO = """\
Trained with `task=` and `instance=WAY`, scored on the validation fold. AP counts an object as found
at IoU 0.5; PQ is panoptic quality; lesion Dice is the mean over reference objects. Means over cases
with intervals over patients; pooled figures and found, missed and false are of all cases together.
Steps are those each training came to. *otsu* is no network: the pieces of what Otsu's threshold
takes."""
_COLUMNS = (
    "way", "time", "steps", "class", "stratum", "cases", "AP at 0.5 [95 %]", "pooled AP",
    "PQ [95 %]", "pooled PQ", "lesion Dice [95 %]", "found", "missed", "false",
)  # fmt: skip
_FOUND = ("found", "missed", "false")


def objects_section(rows: Sequence[Row]) -> str:
    """Return a table a dataset and task; nothing where there is no row."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["key"]["dataset"], row["key"]["task"]), []).append(row)
    if not groups:
        return ""
    tables = [
        "\n\n".join([f"### {dataset}, `task={task}`", _table(own), *_commands(own)])
        for (dataset, task), own in groups.items()
    ]
    return "\n\n".join(["## Objects told apart", _INTRO, *tables])


def _table(rows: list[Row]) -> str:
    lines = [
        (
            one["way"],
            one["time"],
            ", ".join(str(n) for n in one["num_steps"] if n),
            one["class"],
            one["stratum"],
            str(one["num_cases"]),
            ranged(*_ends(one["ap_50"])),
            figure(one["pooled"]["ap_50"]),
            ranged(*_ends(one["pq"])),
            figure(one["pooled"]["pq"]),
            ranged(*_ends(one["lesion_dice"])),
            *(figure(one["pooled"][f"num_{name}"], digits=0) for name in _FOUND),
        )
        for one in summarise(rows)
    ]
    return markdown_table(_COLUMNS, lines)


def _ends(told: dict[str, float]) -> tuple[float, float, float]:
    return told["mean"], told["low"], told["high"]


def _commands(rows: list[Row]) -> list[str]:
    """One line a budget: all ways that were given it."""
    baseline = next((r["key"]["least_px"] for r in rows if r["key"]["way"] == BASELINE), None)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = row["key"]
        if key["way"] != BASELINE:
            groups.setdefault((key["time"], *key["set"]), []).append(key)
    lines = []
    for (time, *extra), keys in groups.items():
        words = ["benchmarks.objects", "MANIFEST", "OUTPUT", "--time", time]
        words += ["--task", keys[0]["task"]]
        if keys[0].get("things"):
            words += ["--things", keys[0]["things"]]
        for name in ("way", "fold", "seed"):
            words += [f"--{name}s", ",".join(dict.fromkeys(key[name] for key in keys))]
        if baseline is not None:
            words += ["--otsu", str(baseline)]
        lines.append(command(*words, *settings_words(extra)))
    return lines
