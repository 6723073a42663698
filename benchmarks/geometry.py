"""Where medseg puts voxels, beside everybody else: real scans, and all 48 orientations.

usage: python -m benchmarks.geometry DATA OUTPUT [--part files|orientations]

DATA is a folder of real scans (see `geometry_files`). Results go to OUTPUT/geometry.jsonl, from
which a stopped run goes on, and to OUTPUT/geometry.json and OUTPUT/geometry.md. It ends with 1 when
two readers differ and no reason is known.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks import geometry_files, geometry_orientations
from benchmarks.geometry_exceptions import EXCEPTIONS
from benchmarks.ledger import Ledger
from medseg.core.geometry import TOLERANCE_MM

UNEXPLAINED = "NOT EXPLAINED"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("data", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--part", choices=("files", "orientations"), help="one of the two")
    chosen = words.parse_args()
    warnings.simplefilter("ignore")
    ledger = Ledger(chosen.output / "geometry.jsonl")
    if chosen.part != "orientations":
        measure_files(chosen.data, ledger)
    if chosen.part != "files":
        measure_orientations(ledger)
    summary = {"files": summarise_files(ledger), "orientations": summarise_orientations(ledger)}
    (chosen.output / "geometry.json").write_text(json.dumps(summary, indent=2) + "\n")
    text = markdown(summary)
    (chosen.output / "geometry.md").write_text(text)
    print(text)
    if odd := [one for one in summary["files"]["exceptions"] if one["reason"] == UNEXPLAINED]:
        raise SystemExit(f"{len(odd)} comparisons differ, and geometry_exceptions has no reason")


def measure_files(data: Path, ledger: Ledger) -> None:
    for item in geometry_files.items_in(data):
        if ledger.find(part="files", item=item.name):
            continue
        rows = dict(geometry_files.measure(item))
        ledger.append({"readers": rows}, part="files", item=item.name)
        print(item.name, rows, flush=True)


def measure_orientations(ledger: Ledger) -> None:
    for kind in geometry_orientations.KINDS:
        for orientation in geometry_orientations.orientations():
            key = {"part": "orientations", "orientation": orientation, "kind": kind}
            if ledger.find(**key):
                continue
            with tempfile.TemporaryDirectory() as folder:
                result = geometry_orientations.measure(orientation, kind, Path(folder))
            ledger.append(result, **key)


def summarise_files(ledger: Ledger) -> dict[str, Any]:
    """Sort all comparisons into those within the goal and exceptions, each with its reason."""
    rows = [row for row in ledger.rows if row["key"]["part"] == "files"]
    within, exceptions, refused = [], [], []
    for row in rows:
        item = row["key"]["item"]
        for reader, found in row["readers"].items():
            entry = {"item": item, "reader": reader, **found}
            if reader == "medseg":
                refused.append(entry)
            elif is_within(found):
                within.append(entry)
            else:
                exceptions.append({**entry, "reason": reason_for(item, reader)})
    return {
        "num_scans": len(rows) - len(refused),
        "num_comparisons": len(within) + len(exceptions),
        "largest_corner_mm": max((row["corner_mm"] for row in within), default=0.0),
        "within": within,
        "exceptions": exceptions,
        "refused_by_medseg": refused,
    }


def is_within(found: dict[str, Any]) -> bool:
    """Tell whether corners and voxels agree."""
    return found.get("corner_mm", float("inf")) <= TOLERANCE_MM and found["differing_vox"] == 0


def reason_for(item: str, reader: str) -> str:
    return next(
        (
            reason
            for (pattern, name), reason in EXCEPTIONS.items()
            if name == reader and fnmatchcase(item, pattern)
        ),
        UNEXPLAINED,
    )


def summarise_orientations(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the worst of 48 orientations for every kind of grid and every format."""
    rows = [row for row in ledger.rows if row["key"]["part"] == "orientations"]
    table = []
    for kind in geometry_orientations.KINDS:
        of_kind = [row for row in rows if row["key"]["kind"] == kind]
        for name in ("series", *geometry_orientations.FORMATS) if of_kind else ():
            found = [row[name] for row in of_kind]
            table.append(
                {
                    "kind": kind,
                    "format": name,
                    "num_orientations": len(found),
                    "corner_mm": max(one["corner_mm"] for one in found),
                    "differing_vox": sum(one["differing_vox"] for one in found),
                    "reader": found[0].get("reader", ""),
                    "reader_corner_mm": max(one.get("reader_corner_mm", 0.0) for one in found),
                    "reader_differing_vox": sum(
                        one.get("reader_differing_vox", 0) for one in found
                    ),
                }
            )
    return table


def markdown(summary: dict[str, Any]) -> str:
    files, lines = summary["files"], ["# Geometry, beside other libraries", ""]
    lines += [
        f"{files['num_scans']} scans, {files['num_comparisons']} comparisons: "
        f"{len(files['within'])} agree (largest corner difference "
        f"{files['largest_corner_mm']:.2g} mm, 0 voxels), {len(files['exceptions'])} do not; "
        f"medseg refuses {len(files['refused_by_medseg'])} files.",
        "",
        *table(("reader", "agree", "differ or refuse"), _by_reader(files)),
        "## Exceptions",
        "",
        *table(
            ("scan", "reader", "found", "why"), [_exception(one) for one in files["exceptions"]]
        ),
        "## Refused by medseg",
        "",
        *table(
            ("scan", "why"), [(one["item"], one["refused"]) for one in files["refused_by_medseg"]]
        ),
        "## 48 orientations",
        "",
        "Largest over 48 orientations: as medseg reads it back, and as another library does.",
        "",
        *table(
            ("grid", "format", "corner mm", "voxels", "other", "corner mm", "voxels"),
            [_orientation(row) for row in summary["orientations"]],
        ),
    ]
    return "\n".join(lines)


def _by_reader(files: dict[str, Any]) -> list[Sequence[object]]:
    names = sorted({one["reader"] for one in (*files["within"], *files["exceptions"])})
    return [
        (
            name,
            sum(one["reader"] == name for one in files["within"]),
            sum(one["reader"] == name for one in files["exceptions"]),
        )
        for name in names
    ]


def _exception(one: dict[str, Any]) -> Sequence[object]:
    found = one.get("refused") or (
        f"corners {one['corner_mm']:.3g} mm, {one['differing_vox']} of {one['num_vox']} voxels"
    )
    return one["item"], one["reader"], found, one["reason"]


def _orientation(row: dict[str, Any]) -> Sequence[object]:
    return (
        row["kind"], row["format"], f"{row['corner_mm']:.2g}", row["differing_vox"], row["reader"],
        f"{row['reader_corner_mm']:.2g}" if row["reader"] else "",
        row["reader_differing_vox"] if row["reader"] else "",
    )  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table, and an empty one."""
    lines = [head, ["---"] * len(head), *rows]
    cells = (" | ".join(str(cell).replace("|", "/") for cell in row) for row in lines)
    return [*(f"| {row} |" for row in cells), ""]


if __name__ == "__main__":
    main()
