"""How much of each class a mask holds, and `volumes.csv`, the table of it."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet
from medseg.runtime.files import write_text

_COLUMNS = ("case_id", "class", "voxels", "ml")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassVolume:
    """One class in one mask.

    Attributes:
        class_name: the class.
        num_vox: its voxels.
        ml: their volume in millilitres; NaN on a grid without physical size.
    """

    class_name: str
    num_vox: int
    ml: float


def measure_volumes(
    label_map_IJK: LabelMap, *, geometry: Geometry, labels: LabelSet
) -> tuple[ClassVolume, ...]:
    """Measure every class of a label map of indices 0..N, in the order of the label set."""
    counts = np.zeros(labels.num_indices, np.int64)
    # Plane by plane, since counting takes eight bytes a voxel; what lies past the last class is to
    # be ignored.
    for plane in label_map_IJK:
        counts += np.bincount(plane.ravel(), minlength=len(counts))[: len(counts)]
    voxel_ml = geometry.voxel_ml if geometry.unit == "mm" else float("nan")
    return tuple(
        ClassVolume(class_name=name, num_vox=int(counts[index]), ml=float(counts[index]) * voxel_ml)
        for index, name in enumerate(labels.names, start=1)
    )


def write_volumes(
    volumes: Mapping[str, Sequence[ClassVolume]], path: Path, *, without: Collection[str] = ()
) -> None:
    """Write a row a case and class; an empty cell is a volume that the scan's grid does not tell.

    Rows that the table already has of other cases stay.

    Args:
        volumes: by case.
        path: the table.
        without: cases whose rows are taken out.

    Raises:
        WriteError: the folder cannot be written.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    told = {*volumes, *without}
    writer.writerows(row for row in _earlier_rows(path) if row[0] not in told)
    for case_id, measured in volumes.items():
        writer.writerows(
            (case_id, one.class_name, one.num_vox, "" if one.ml != one.ml else f"{one.ml:.6g}")
            for one in measured
        )
    write_text(out.getvalue(), path)


def _earlier_rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.reader(stream) if len(row) == len(_COLUMNS)][1:]
