"""Names and colours of classes beside a mask: for ITK-SNAP, for 3D Slicer, and whole as JSON."""

import re
from collections.abc import Iterator
from pathlib import Path

from medseg.core.errors import LabelError
from medseg.core.labels import Label, LabelSet
from medseg.runtime.files import read_json, write_json, write_text

_ITKSNAP_LINE = re.compile(r'^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\S+\s+\S+\s+\S+\s+"(.*)"\s*$')


def write_sidecars(folder: Path, labels: LabelSet, *, stem: str = "labels") -> tuple[Path, ...]:
    """Write STEM.label (ITK-SNAP), STEM.ctbl (3D Slicer) and STEM.json (everything, for medseg)."""
    itksnap, slicer, whole = (folder / f"{stem}.{suffix}" for suffix in ("label", "ctbl", "json"))
    write_text(itksnap_text(labels), itksnap)
    write_text(slicer_text(labels), slicer)
    write_json(labels.to_json(), whole)
    return itksnap, slicer, whole


def read_labels(path: Path) -> LabelSet:
    """Read the classes from the JSON that `write_sidecars` wrote, or from an ITK-SNAP label file.

    Raises:
        LabelError: LBL-010 a file that is neither.
    """
    if path.suffix.lower() == ".json":
        value = read_json(path, kind=LabelError, what="a label set")
        if not isinstance(value.get("labels"), list):
            raise _not_labels(path)
        return LabelSet.from_json(value)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise _not_labels(path) from fault
    found = [match for line in text.splitlines() if (match := _ITKSNAP_LINE.match(line))]
    entries = [
        {"name": m[5], "values": int(m[1]), "colour": [int(m[2]), int(m[3]), int(m[4])]}
        for m in found
        if int(m[1]) > 0
    ]
    if not entries:
        raise _not_labels(path)
    return LabelSet.from_json({"labels": entries})


def itksnap_text(labels: LabelSet) -> str:
    """Return the label description file that ITK-SNAP imports."""
    lines = [
        "# ITK-SNAP Label Description File",
        "# index red green blue opacity visible in-mesh name",
        _itksnap_line(0, (0, 0, 0), "Clear Label", shown=False),
        *(
            _itksnap_line(value, label.colour, _plain(label.name), shown=True)
            for value, label in stored_values(labels)
        ),
    ]
    return "\n".join(lines) + "\n"


def slicer_text(labels: LabelSet) -> str:
    """Return the colour table that 3D Slicer loads; a name there has no spaces."""
    lines = [
        "# Color table file",
        f"# {len(labels) + 1} values",
        "0 Background 0 0 0 0",
        *(
            f"{value} {'_'.join(_plain(label.name).split())} {' '.join(map(str, label.colour))} 255"
            for value, label in stored_values(labels)
        ),
    ]
    return "\n".join(lines) + "\n"


def stored_values(labels: LabelSet) -> Iterator[tuple[int, Label]]:
    """Pair each class with the value that `LabelSet.to_stored` writes for it."""
    for label in labels.labels:
        yield (1 if label.values == ">0" else label.values[0]), label


def _itksnap_line(value: int, colour: tuple[int, int, int], name: str, *, shown: bool) -> str:
    red, green, blue = colour
    seen = int(shown)
    return f'{value:5d} {red:5d} {green:5d} {blue:5d} {seen:9d} {seen:2d} {seen:2d}    "{name}"'


def _plain(name: str) -> str:
    return " ".join(name.replace('"', "'").split())


def _not_labels(path: Path) -> LabelError:
    return LabelError(
        f"{path}: declares no classes; expected labels.json or an ITK-SNAP label file",
        code="LBL-010",
        hint="name the manifest instead",
    )
