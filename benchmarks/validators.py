"""What other people's tools say of every kind of DICOM file that medseg writes.

usage: python -m benchmarks.validators SOURCE OUTPUT

On each DICOM series below SOURCE a mask is drawn, of an organ with a hole, another one and an empty
class, and written as SEG (BINARY, LABELMAP), RTSTRUCT and SR. These judge what was written:

- dciodvfy (dicom3tools): errors against the standard's object definitions;
- dcmdump, and dsrdump for reports (dcmtk): errors while parsing;
- segimage2itkimage and tid1500reader (dcmqi): read it, voxels and volumes compared.

A tool that is not installed is named and left out. Rows go to OUTPUT/validators.json, a table is
printed: by tool and kind the files judged, those with errors, and each error once.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from medseg.core.errors import MedsegError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, label_set
from medseg.inference.case_files import write_case_files
from medseg.inference.sources import Source, sources_in
from medseg.io.writing import SUFFIX_OF, SegType

_LABELS = label_set({"liver": 1, "left kidney": 2, "lesion": 3})
_KINDS: dict[str, tuple[str, SegType]] = {
    "SEG BINARY": ("dicom_seg", "BINARY"),
    "SEG LABELMAP": ("dicom_seg", "LABELMAP"),
    "RTSTRUCT": ("rtstruct", "BINARY"),
    "SR": ("sr", "BINARY"),
}
# Uids and numbers make one error look like many.
_PARTICULARS = re.compile(r"\b[0-9.]{9,}\b")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was written, by class from 1 on: voxels and ml."""

    num_vox: list[int]
    volume_ml: list[float]


# What a tool has to say against a file; [] is nothing.
Judge = Callable[[Path, Drawn], list[str]]


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("source", type=Path)
    words.add_argument("output", type=Path)
    chosen = words.parse_args()
    rows: list[dict[str, Any]] = []
    for number, source in enumerate(s for s in sources_in(chosen.source) if s.dicom is not None):
        try:
            rows += list(judged(source, chosen.output / f"{number:03d}"))
        except MedsegError as refusal:
            rows.append({"series": number, "refused": str(refusal)})
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "validators.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


def judged(source: Source, folder: Path) -> Iterator[dict[str, Any]]:
    """Write a mask on a series in every kind, and yield what each tool says of each."""
    scan = source.read()
    label_map = organs(scan.geometry)
    counts = np.bincount(label_map.ravel(), minlength=len(_LABELS) + 1)[1:]
    drawn = Drawn(counts.tolist(), (counts * scan.geometry.voxel_ml).tolist())
    for kind, (name, seg_type) in _KINDS.items():
        # A report refers to a SEG, which is written beside it.
        names = {"dicom_seg", name}
        files = {one: folder / f"{kind}{SUFFIX_OF[one]}" for one in sorted(names)}
        write_case_files(
            label_map, files, geometry=scan.geometry, labels=_LABELS, scan=source, seg_type=seg_type
        )
        for tool, judge in judges(kind).items():
            found = None if judge is None else judge(files[name], drawn)
            yield {"series": folder.name, "kind": kind, "tool": tool, "errors": found}


def organs(grid: Geometry) -> LabelMap:
    """Draw an ellipsoid with a hole and a smaller one beside it; the third class stays empty."""
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in grid.shape]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    radius = np.linalg.norm(at - np.array([-0.3, 0, 0]).reshape(3, 1, 1, 1), axis=0)
    label_map = np.zeros(grid.shape, np.uint8)
    label_map[(radius < 0.5) & (radius > 0.2)] = 1
    label_map[np.linalg.norm(at - np.array([0.6, 0.1, 0]).reshape(3, 1, 1, 1), axis=0) < 0.25] = 2
    return label_map


def judges(kind: str) -> dict[str, Judge | None]:
    """Return the tools that know a kind; None for those that are not installed."""
    chosen: dict[str, Judge] = {"dciodvfy": _dciodvfy, "dcmdump": _dcmdump}
    if kind == "SR":
        chosen |= {"dsrdump": _dsrdump, "tid1500reader": _tid1500reader}
    elif kind != "RTSTRUCT":
        chosen |= {"segimage2itkimage": _segimage}
    return {tool: judge if _found(tool) else None for tool, judge in chosen.items()}


def _dciodvfy(path: Path, _: Drawn) -> list[str]:
    return _lines("dciodvfy", "-new", path, starting="Error")


def _dcmdump(path: Path, _: Drawn) -> list[str]:
    return _lines("dcmdump", path, starting="E:")


def _dsrdump(path: Path, _: Drawn) -> list[str]:
    return _lines("dsrdump", path, starting="E:")


def _tid1500reader(path: Path, drawn: Drawn) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.json"
        done = _run("tid1500reader", "--inputDICOM", path, "--outputMetadata", target)
        if done.returncode:
            return [f"exit code {done.returncode}"]
        groups = json.loads(target.read_text())["Measurements"]
    told = [float(group["measurementItems"][0]["value"]) for group in groups]
    same = len(told) == len(drawn.volume_ml) and np.allclose(told, drawn.volume_ml, rtol=1e-5)
    return [] if same else [f"{told} ml by segment, expected {drawn.volume_ml}"]


def _segimage(path: Path, drawn: Drawn) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        done = _run(
            "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder,
            "--outputType", "nrrd",
        )  # fmt: skip
        if done.returncode:
            return [f"exit code {done.returncode}"]
        # A file a segment, or one label map of all; empty segments are left out.
        read = [
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))).ravel()
            for file in Path(folder).glob("*.nrrd")
        ]
    counts = np.bincount(np.concatenate(read), minlength=len(drawn.num_vox) + 1)[1:].tolist()
    return [] if counts == drawn.num_vox else [f"{counts} voxels, expected {drawn.num_vox}"]


def _lines(tool: str, *words: str | Path, starting: str) -> list[str]:
    said = _run(tool, *words).stderr.splitlines()
    return [_PARTICULARS.sub("#", line) for line in said if line.startswith(starting)]


def _run(tool: str, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    line = [_found(tool) or tool, *words]
    return subprocess.run(line, check=False, capture_output=True, text=True, errors="replace")


def _found(tool: str) -> str | None:
    return shutil.which(tool) or shutil.which(tool, path=Path(sys.executable).parent)


def table(rows: list[dict[str, Any]]) -> str:
    """Return by kind and tool how many files were judged, and every error once."""
    refused = [row for row in rows if "refused" in row]
    groups: dict[tuple[str, str], list[list[str] | None]] = {}
    for row in rows:
        if "tool" in row:
            groups.setdefault((row["kind"], row["tool"]), []).append(row["errors"])
    lines = ["| kind | tool | files | with errors | errors |", "| --- | --- | ---: | ---: | --- |"]
    for (kind, tool), found in groups.items():
        judged = [errors for errors in found if errors is not None]
        told = sorted({error for errors in judged for error in errors})
        words = "; ".join(told) if judged else "not installed"
        lines.append(f"| {kind} | {tool} | {len(judged)} | {sum(map(bool, judged))} | {words} |")
    lines += [f"series {row['series']} not drawn on: {row['refused']}" for row in refused]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
