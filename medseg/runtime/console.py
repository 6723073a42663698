"""What a user sees: rich on a terminal, plain lines in a log or a pipe."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

Item = TypeVar("Item")

# In a log one line every so often says as much as a moving bar says on a terminal.
_PLAIN_EVERY_S = 10.0


def say(text: str = "", *, error: bool = False) -> None:
    """Print one line, as it stands."""
    _console(error=error).print(text, markup=False, highlight=False, soft_wrap=True)


def table(
    rows: Sequence[Sequence[object]], *, columns: Sequence[str], title: str | None = None
) -> None:
    """Print rows under column names; numbers are aligned to the right."""
    console = _console()
    drawn = Table(box=None, pad_edge=False)
    for position, name in enumerate(columns):
        numeric = all(isinstance(row[position], int | float) for row in rows) and bool(rows)
        drawn.add_column(escape(name), justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        drawn.add_row(*(escape(_cell(value)) for value in row))
    if not console.is_terminal:
        # A pipe has no width: never cut or fold a cell there.
        console.width = 10_000
    if title:
        # A title of the table's own would be folded to the width of its columns.
        say(title)
    console.print(drawn)


def progress(items: Iterable[Item], label: str) -> Iterator[Item]:
    """Pass items on while showing how many are done and how long the rest will take."""
    total = len(items) if isinstance(items, Sized) else None
    console = _console(error=True)
    if not console.is_terminal:
        yield from _plain_progress(items, label, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=escape(label))


class _Console(Console):
    """A console whose reader may leave (`| head`): the command still does its work."""

    def on_broken_pipe(self) -> None:
        """Print nowhere from now on; rich would end the process with code 1."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


class LiveProgress:
    """A bar with a changing text on a terminal; elsewhere a plain line every so often.

    Used as a context, so that the bar is taken down whatever happens.
    """

    def __init__(self, *, plain_every_s: float = 15.0) -> None:
        console = _console()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._plain_every_s = plain_every_s
        self._told = time.monotonic()
        if console.is_terminal:
            self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=console)
            self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> "LiveProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, total: float | None, text: str) -> None:
        """Show how far things are; the text takes the place of the last one."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=escape(text))
        elif time.monotonic() - self._told > self._plain_every_s:
            self._told = time.monotonic()
            say(text)

    def write(self, text: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)


def _plain_progress(items: Iterable[Item], label: str, total: int | None) -> Iterator[Item]:
    told = time.monotonic()
    of = f"/{total}" if total is not None else ""
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - told > _PLAIN_EVERY_S:
            told = time.monotonic()
            say(f"{label}: {done}{of}", error=True)


def _console(*, error: bool = False) -> Console:
    return _Console(file=sys.stderr if error else sys.stdout)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return "" if value is None else str(value)
