"""Strict reading of CSV and TSV: text stays text, and nothing about the file is guessed."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import ManifestError
from medseg.data.case import unknown_name

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line of the file it ends on, and its text by column."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text; an id such as "007" is still "007"."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def require(self, columns: Sequence[str]) -> None:
        """Refuse a table that lacks a column.

        Raises:
            ManifestError: CSV-006, naming the file and the nearest column it has.
        """
        for name in columns:
            if name not in self.columns:
                refusal = unknown_name(name, self.columns, what="column")
                raise ManifestError(f"{self.path}: {refusal.message}", code="CSV-006")


def read_table(path: Path) -> Table:
    """Read a table separated by commas, semicolons or tabs, as its first line shows.

    A byte-order mark and CRLF line ends are accepted; empty lines are skipped; text is stripped of
    blanks around it.

    Raises:
        ManifestError: CSV-001 cannot be read as UTF-8 text; CSV-002 no clear separator; CSV-003
            a column is named twice or not at all; CSV-004 a row has too many or too few values;
            CSV-005 quotes that do not close.
    """
    text = _text(path)
    delimiter = _delimiter(text, path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    try:
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if not columns:
                columns = _columns(values, path)
                continue
            if len(values) != len(columns):
                raise ManifestError(
                    f"{path}: line {reader.line_num} has {len(values)} values; expected "
                    f"{len(columns)}, separated by {_DELIMITERS[delimiter]}",
                    code="CSV-004",
                )
            rows.append(Row(reader.line_num, dict(zip(columns, values, strict=True))))
    except csv.Error as fault:
        raise ManifestError(f"{path}: line {reader.line_num}: {fault}", code="CSV-005") from fault
    return Table(path, columns, tuple(rows))


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as fault:
        raise ManifestError(f"{path}: {fault.strerror}", code="CSV-001") from fault
    except UnicodeDecodeError as fault:
        raise ManifestError(
            f"{path}: byte {fault.start} is not UTF-8",
            code="CSV-001",
            hint="save the table as UTF-8 (in Excel: CSV UTF-8)",
        ) from fault
    if "\0" in text or not text.strip():
        raise ManifestError(f"{path}: is empty or not a table of text", code="CSV-001")
    return text


def _delimiter(text: str, path: Path) -> str:
    header = text.lstrip().splitlines()[0]
    found = [d for d in _DELIMITERS if len(next(csv.reader([header], delimiter=d))) > 1]
    if len(found) > 1:
        listed = " and ".join(_DELIMITERS[d] for d in found)
        raise ManifestError(
            f"{path}: the first line holds {listed}; expected one kind of separator",
            code="CSV-002",
            hint="quote column names that hold a separator, or rename them",
        )
    return found[0] if found else ","


def _columns(names: list[str], path: Path) -> tuple[str, ...]:
    if "" in names:
        raise ManifestError(f"{path}: column {names.index('') + 1} has no name", code="CSV-003")
    for name in names:
        if names.count(name) > 1:
            raise ManifestError(f"{path}: two columns are named {name!r}", code="CSV-003")
    return tuple(names)
