"""Tables and numbers as docs/models.md prints them."""

import math
import shlex
from collections.abc import Sequence
from typing import Any

NONE = "-"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; all but the first column are aligned to the right where they hold numbers."""
    aligned = [
        "---:" if number and all(_is_number(row[number]) for row in rows) else "---"
        for number in range(len(columns))
    ]
    lines = [columns, aligned, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def command(*words: str) -> str:
    """Return the line that made a table, words in capitals standing for the reader's own paths."""
    return "```\npython -m " + " ".join(map(shlex.quote, words)) + "\n```"


def ranged(mean: float | None, low: float | None, high: float | None, *, digits: int = 3) -> str:
    """A mean with the interval that is thought to hold it; the interval is left out without one."""
    if _undefined(low) or _undefined(high):
        return figure(mean, digits=digits)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def figure(value: float | None, *, digits: int = 3) -> str:
    """A number; a dash where it is undefined."""
    return NONE if _undefined(value) else f"{value:.{digits}f}"


def short(value: float) -> str:
    """Three digits and a prefix, such as `1.93 M`."""
    for prefix, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:.3g} {prefix}"
    return f"{value:.3g}"


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as `1 seed`, `2 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def settings_words(extra: Sequence[Any]) -> list[str]:
    """The words of `--set`, if there were any."""
    return ["--set", *map(str, extra)] if extra else []


def _undefined(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _is_number(cell: str) -> bool:
    return cell in (NONE, "") or cell[0].isdigit() or cell[0] == "-"
