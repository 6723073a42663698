"""Partial labels, scarce labels and small lesions, for docs/models.md."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks import partial_labels, scarce_labels, small_lesions
from benchmarks.one_fold import compare_sides
from benchmarks.page_text import (
    NONE,
    command,
    counted,
    figure,
    markdown_table,
    ranged,
    settings_words,
)

Row = dict[str, Any]

_PARTIAL = """\
Every other training case keeps one class of its reference. *full*: nothing is taken away;
*partial*: what is taken away is declared as not annotated (`annotated` of a manifest); *half*:
those cases are left out; *wrong*: what is taken away passes for background. Dice of each class on
the validation cases of fold 0, and what each way gains over the first, paired by case; means over
seeds, intervals over cases."""
_SCARCE = """\
A few training cases keep their labels, the others are unlabelled. *supervised*: the labelled cases
alone; *pretrained*: first `experiment=pretrain` on all scans, beside the training time;
*pretrained_within*: half of the time each; *mean_teacher*: `training.mean_teacher={}`. Read as the
table of partial labels."""
_LESIONS = """\
Phantoms with 1 to 20 lesions of 0.01 to 0.3 ml, about 0.01 % of their voxels. A lesion is found
when the mask shares a voxel with it; a case's recall is the mean over seeds, intervals are over
cases."""


def partial_section(rows: Sequence[Row]) -> str:
    """Return a table a dataset and budget; nothing where there is no row."""
    return _section(
        "Partial labels", _PARTIAL, rows, lambda own: _sides(own, partial_labels.SIDES, "partial")
    )


def scarce_section(rows: Sequence[Row]) -> str:
    """Return a table a dataset and budget; nothing where there is no row."""
    return _section(
        "Scarce labels", _SCARCE, rows, lambda own: _sides(own, scarce_labels.SIDES, "scarce")
    )


def lesions_section(rows: Sequence[Row]) -> str:
    """Return a table a budget; nothing where there is no row."""
    return _section("Small lesions", _LESIONS, rows, _lesions)


def _section(
    title: str, intro: str, rows: Sequence[Row], table_of: Callable[[list[Row]], str]
) -> str:
    """Put together what has the same dataset and settings, sides and seeds aside."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        same = {**row["key"], "side": None, "sampling": None, "seed": None}
        group = json.dumps([row.get("dataset"), same], sort_keys=True)
        groups.setdefault(group, []).append(row)
    if not groups:
        return ""
    return "\n\n".join([f"## {title}", intro, *map(table_of, groups.values())])


def _sides(rows: list[Row], order: Sequence[str], which: str) -> str:
    key = rows[0]["key"]
    same = {name: value for name, value in key.items() if name not in ("side", "seed")}
    sides = [side for side in order if side in {row["key"]["side"] for row in rows}]
    rows = _of_common_seeds(rows, "side")
    lines = []
    for told, found in compare_sides(rows, sides, **same).items():
        side, _, name = told.partition(": ")
        gain = found.get(f"less {sides[0]}")
        lines.append(
            (
                side,
                name,
                ranged(found["mean"], found["low"], found["high"]),
                ranged(*gain) if gain else NONE,
                _steps(row for row in rows if row["key"]["side"] == side),
            )
        )
    columns = ("side", "class", "Dice [95 %]", f"minus {sides[0]} [95 %]", "steps")
    words = [f"benchmarks.{which}_labels", "MANIFEST", "OUTPUT"]
    if which == "scarce":
        words += ["--labelled", str(key["labelled"]), "--pretrain-time", key["pretrain_time"]]
    words += ["--time", key["time"], "--seeds", ",".join(_seeds(rows)), "--sides", ",".join(sides)]
    few = f", {key['labelled']} labelled cases" if which == "scarce" else ""
    num_cases = counted(len(rows[0]["dice"]), "case")
    title = f"### {rows[0]['dataset']}{few}: {_trained(key)}"
    caption = f"{num_cases}, {counted(len(_seeds(rows)), 'seed')}."
    table = markdown_table(columns, lines)
    return "\n\n".join([title, caption, table, command(*words, *settings_words(key["set"]))])


def _trained(key: Mapping[str, Any]) -> str:
    """Say how long, and with which settings that are not the defaults."""
    return ", ".join([f"{key['time']} of training", *map(str, key["set"])])


def _lesions(rows: list[Row]) -> str:
    key = rows[0]["key"]
    rows = _of_common_seeds(rows, "sampling")
    sides = list(dict.fromkeys(row["key"]["sampling"] for row in rows))
    summary = small_lesions.summarise(rows, sides)
    small_ml = summary["small_ml"]
    lines = [
        (
            f"`{side}`",
            ranged(*summary[side]["recall_small"]),
            ranged(*summary[side]["recall_larger"]),
            figure(summary[side]["false_a_case"], digits=2),
            figure(summary[side]["dice"]),
            ", ".join(map(str, summary[side]["num_steps"])),
        )
        for side in sides
    ]
    columns = (
        "`training.sampling=`", f"found below {small_ml} ml [95 %]", "found above [95 %]",
        "false a case", "Dice", "steps",
    )  # fmt: skip
    words = ["benchmarks.small_lesions", "OUTPUT", "--time", key["time"]]
    words += ["--seeds", ",".join(_seeds(rows)), "--sampling", ",".join(sides)]
    parts = [f"### {_trained(key)}", markdown_table(columns, lines)]
    change = next((value for told, value in summary.items() if " less " in told), None)
    if change is not None:
        parts.append(f"Found below {small_ml} ml, {sides[1]} minus {sides[0]}: {ranged(*change)}.")
    return "\n\n".join([*parts, command(*words, *settings_words(key["set"]))])


def _of_common_seeds(rows: list[Row], side: str) -> list[Row]:
    """Leave out seeds that some side was not trained with yet, as far as any are common to all."""
    seeds_of: dict[str, set[str]] = {}
    for row in rows:
        seeds_of.setdefault(row["key"][side], set()).add(row["key"]["seed"])
    common = set.intersection(*seeds_of.values())
    return [row for row in rows if row["key"]["seed"] in common] or rows


def _seeds(rows: Iterable[Row]) -> list[str]:
    return sorted({str(row["key"]["seed"]) for row in rows})


def _steps(rows: Iterable[Row]) -> str:
    return ", ".join(str(row["num_steps"]) for row in rows)
