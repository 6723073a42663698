"""Families of networks beside each other, for docs/models.md."""

from collections.abc import Sequence
from typing import Any

from benchmarks.families import FAMILIES
from benchmarks.families_summary import LEAST_STEPS, summarise
from benchmarks.page_text import (
    NONE,
    command,
    counted,
    figure,
    markdown_table,
    ranged,
    settings_words,
    short,
)

_COLUMNS = (
    "`model=`", "Dice [95 %]", "minus the best", "parameters", "FLOP a patch", "steps", "s a step",
    "s a scan", "MiB", "remark",
)  # fmt: skip
# Equal steps need no quiet machine; equal times do, and tell what is slow.
_SECONDS = ("s a step", "s a scan")
_INTRO = f"""\
Trained on the other folds, scored on fold 0: the plan's patches and batches for all, and every
default of `medseg train`. Dice is the mean over classes, its interval over patients (bootstrap);
the best comes first, and the others stand behind it by their difference, paired by case. A scan's
seconds and the peak memory are those of `medseg predict`, which reads, segments and writes; they
stand in the tables of equal time alone. *Not trained*: fewer than {LEAST_STEPS} steps were done, so
that the row tells what the network costs, not what it can do. Budgets are short; more time changes
the order."""


def families_section(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table a dataset and budget; nothing where there is no row."""
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in summarise(rows):
        group = (one["dataset"], one["protocol"], one["budget"], *one["set"])
        tables.setdefault(group, []).append(one)
    if not tables:
        return ""
    return "\n\n".join(
        ["## Families beside each other", _INTRO, *(_table(own) for own in tables.values())]
    )


def _table(rows: list[dict[str, Any]]) -> str:
    trained = sorted(
        (one for one in rows if one.get("trained")), key=lambda one: -float(one["dice"])
    )
    others = sorted(
        (one for one in rows if not one.get("trained")), key=lambda one: -one.get("dice", -1.0)
    )
    left = _SECONDS if rows[0]["protocol"] == "steps" else ()
    kept = [position for position, name in enumerate(_COLUMNS) if name not in left]
    lines = [[_line(one)[position] for position in kept] for one in (*trained, *others)]
    columns = [_COLUMNS[position] for position in kept]
    heading = f"### {_title(rows)}\n\n{_caption(rows)}"
    return f"{heading}\n\n{markdown_table(columns, lines)}\n\n{_command(rows)}"


def _line(one: dict[str, Any]) -> tuple[str, ...]:
    name = f"`{one['family']}`"
    if "error" in one:
        return (name, *[NONE] * (len(_COLUMNS) - 2), f"failed: {one['error']}")
    return (
        name,
        ranged(one["dice"], one["low"], one["high"]),
        ranged(*one["behind"]) if "behind" in one else NONE,
        short(one["num_parameters"]),
        short(one["patch_flops"]),
        ", ".join(map(str, one["num_steps"])),
        figure(one["step_s"]),
        figure(one["case_s"], digits=2),
        figure(one["peak_mib"], digits=0),
        "" if one["trained"] else "not trained",
    )


def _title(rows: list[dict[str, Any]]) -> str:
    one = rows[0]
    dims = {own["spatial_dims"] for own in rows if "error" not in own}
    kind = f", {'slices' if dims == {2} else 'volumes'}" if dims else ""
    budget = f"{one['budget']} of training" if one["protocol"] == "time" else one["budget"]
    return ", ".join([f"{one['dataset']}{kind}: {budget}", *one["set"]])


def _caption(rows: list[dict[str, Any]]) -> str:
    done = next((one for one in rows if "error" not in one), None)
    if done is None:
        return "No family was trained."
    patch = " x ".join(map(str, done["patch_vox"]))
    threads, num_seeds = done["threads"], max(len(one["seeds"]) for one in rows)
    ran = f", {counted(threads, 'thread')}" if threads else ""
    ran += f", on one {done['gpu']}" if done["gpu"] else ""
    return (
        f"{counted(done['num_cases'], 'case')} of {counted(done['num_patients'], 'patient')}, "
        f"{counted(num_seeds, 'seed')}; patches of {patch}, {done['batch_size']} a step{ran}."
    )


def _command(rows: list[dict[str, Any]]) -> str:
    one = rows[0]
    dims = next((f"@{own['spatial_dims']}" for own in rows if "error" not in own), "")
    words = ["benchmarks.families", "OUTPUT", "--data", f"{one['dataset']}=MANIFEST{dims}"]
    words += ["--only-protocol", one["protocol"], *_budget_words(one)]
    names = [name for name in FAMILIES if name in {own["family"] for own in rows}]
    names += [own["family"] for own in rows if own["family"] not in FAMILIES]
    if names != list(FAMILIES):
        words += ["--families", ",".join(names)]
    words += ["--seeds", ",".join(map(str, one["seeds"]))]
    if one["threads"]:
        words += ["--threads", str(one["threads"])]
    return command(*words, *settings_words(one["set"]))


def _budget_words(one: dict[str, Any]) -> list[str]:
    if one["protocol"] == "time":
        return ["--time", one["budget"]]
    steps, _, most = one["budget"].partition(" steps within ")
    return ["--steps", steps.removesuffix(" steps"), *(["--most-time", most] if most else [])]
