"""Cases listed in a CSV or TSV, by columns of paths or by patterns over its columns."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import cast, get_args

from medseg.core.errors import ManifestError
from medseg.data.case import Annotation, Channel, SplitName, unknown_name
from medseg.data.layouts.found import Draft, Found, Request
from medseg.data.tables import Row, Table, read_table

# Columns of one value a case; the others are `image.CHANNEL`, `label.RATER` and `mask.CLASS`.
_PLAIN = (
    "case_id", "patient_id", "fold", "split", "stratum", "spacing_mm", "annotated",
)  # fmt: skip
_GROUPS = ("image", "label", "mask")


def is_table(source: Path) -> bool:
    """Tell whether a source is a file that is named like a table."""
    return source.is_file() and source.suffix.lower() in (".csv", ".tsv")


def read_cases_table(request: Request) -> Found:
    """Find the cases a table lists.

    Paths are relative to its folder, or to the data root where the table lies elsewhere; absolute
    ones have to lie below it.

    A column is named after what it holds (`case_id`, `image.CT`, ...) or is said to hold it
    (`columns.case_id=id`). Instead of columns of paths, patterns may be given in which
    `{column}` stands for the text of a row (`images.CT='scans/{id}.nii.gz'`).

    Raises:
        ManifestError: CSV-001 to CSV-007, with file, line and the nearest column.
    """
    table = read_table(request.source)
    chosen = {name: request.columns.get(name, name) for name in _PLAIN}
    for key in request.columns:
        if key not in _PLAIN:
            raise unknown_name(key, _PLAIN, what="columns.")
    table.require([chosen["case_id"], *request.columns.values()])
    _refuse_near_misses(table, chosen)
    images = dict(request.images) or _columns_of(table, "image")
    if not images:
        raise ManifestError(
            f"{table.path}: no column image or image.CHANNEL (it has {', '.join(table.columns)})",
            code="CSV-006",
            hint="name one, or give a pattern such as images.CT='scans/{case_id}.nii.gz'",
        )
    raters = dict(request.raters) or _columns_of(table, "label")
    masks = _columns_of(table, "mask")
    root, folder = _places(request)
    drafts = tuple(
        _Reader(table, row, chosen, root, folder).draft(images, raters, masks) for row in table.rows
    )
    return Found(
        root=root,
        channels=tuple(
            Channel(name=name, modality=request.modalities.get(name, "")) for name in images
        ),
        drafts=drafts,
    )


class _Reader:
    """Reads one row, and says where it stands when a value makes no sense."""

    def __init__(
        self, table: Table, row: Row, columns: Mapping[str, str], root: Path, folder: Path
    ) -> None:
        self.table, self.row, self.columns = table, row, columns
        self.root, self.folder = root, folder

    def draft(
        self, images: Mapping[str, str], raters: Mapping[str, str], masks: Mapping[str, str]
    ) -> Draft:
        """Return the case of this row; an empty cell stands for a value that is not there."""
        labels: dict[str, Annotation] = {
            rater: path for rater, p in raters.items() if (path := self._filled(p))
        }
        if files := {name: path for name, p in masks.items() if (path := self._filled(p))}:
            labels["mask"] = files
        fold = self._text("fold")
        return Draft(
            case_id=self._text("case_id"),
            patient_id=self._text("patient_id"),
            images={name: path for name, p in images.items() if (path := self._filled(p))},
            labels=tuple(labels.values()),
            raters=tuple(labels) if len(raters) + bool(masks) > 1 else (),
            annotated=tuple(self._text("annotated").split()) or None,
            fold=int(self._checked(fold, r"\d+", "a number from 0")) if fold else None,
            split=self._split(),
            stratum=self._text("stratum"),
            spacing_mm=self._spacing_mm(),
        )

    def _text(self, key: str) -> str:
        return self.row.values.get(self.columns[key], "")

    def _filled(self, pattern: str) -> str:
        """Put the row's text into a pattern; "" where one of its cells is empty."""
        cells = []

        def cell(found: re.Match[str]) -> str:
            name = found[1]
            if name not in self.table.columns:
                refusal = unknown_name(name, self.table.columns, what=f"{pattern!r}: column")
                raise ManifestError(f"{self.table.path}: {refusal.message}", code="CSV-006")
            cells.append(self.row.values[name])
            return cells[-1]

        path = re.sub(r"\{([^{}]*)\}", cell, pattern)
        return self._below_root(path) if all(cells) else ""

    def _below_root(self, path: str) -> str:
        place = Path(os.path.normpath(self.folder / path))
        if not place.is_relative_to(self.root):
            raise self._refusal(repr(path), f"a path below {self.root}")
        return place.relative_to(self.root).as_posix()

    def _split(self) -> SplitName | None:
        found = self._text("split")
        if not found:
            return None
        if found not in get_args(SplitName):
            raise self._refusal(f"split {found!r}", "train, test or unlabelled")
        return cast(SplitName, found)

    def _spacing_mm(self) -> tuple[float, float, float] | None:
        text = self._text("spacing_mm")
        if not text:
            return None
        number = r"\d+(\.\d+)?(e-?\d+)?"
        self._checked(text, f"{number} {number} {number}", "three lengths in mm, as in '0.5 0.5 2'")
        i, j, k = (float(part) for part in text.split())
        return i, j, k

    def _checked(self, text: str, expression: str, expected: str) -> str:
        if not re.fullmatch(expression, text):
            raise self._refusal(repr(text), expected)
        return text

    def _refusal(self, found: str, expected: str) -> ManifestError:
        return ManifestError(
            f"{self.table.path}: line {self.row.line}: found {found}; expected {expected}",
            code="CSV-007",
        )


def _places(request: Request) -> tuple[Path, Path]:
    """Return the data root, and the folder that relative paths of the table start from."""
    folder = request.source.absolute().parent
    root = request.data_root.absolute() if request.data_root else folder
    if folder.resolve().is_relative_to(root.resolve()):
        return root, root / folder.resolve().relative_to(root.resolve())
    return root, root


def _columns_of(table: Table, group: str) -> dict[str, str]:
    """Return, for `image`, `image.CT` and the like, what follows the dot -> a pattern."""
    found = {}
    for column in table.columns:
        head, _, tail = column.partition(".")
        if head == group:
            found[tail or group] = f"{{{column}}}"
    return found


def _refuse_near_misses(table: Table, chosen: Mapping[str, str]) -> None:
    """Other columns may stand in a table, but one that is nearly ours is a slip."""
    known = [*_PLAIN, *_GROUPS]
    for column in table.columns:
        if column.partition(".")[0] in known or column in chosen.values():
            continue
        if near := get_close_matches(column.lower(), known, n=1, cutoff=0.85):
            raise ManifestError(
                f"{table.path}: column {column!r} is unknown; did you mean {near[0]!r}?",
                code="CSV-006",
                hint="rename the column, also if it means something else",
            )
