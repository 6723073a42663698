"""What is written of objects: a map of their ids beside each mask, and a table of all of them."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from medseg.core.geometry import Geometry, Unit
from medseg.core.labels import LabelSet
from medseg.core.volume import Volume
from medseg.data.mask_files import IDS
from medseg.io.formats import write_volume
from medseg.io.writing import SUFFIX_OF
from medseg.postprocess.objects import Objects
from medseg.runtime.files import write_text

# The table of all objects, beside the masks.
OBJECTS = "objects.csv"
# Formats that hold plain numbers; the others store named segments, which objects are not.
_PLAIN = ("nifti", "nrrd", "mha", "png", "tiff")
_COLUMNS = (
    "case_id", "object_id", "class", "volume_ml", "volume_px", "x_mm", "y_mm", "z_mm",
    "x_px", "y_px", "z_px", "confidence",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundObject:
    """One object of a case.

    Attributes:
        object_id: its value in the map of ids.
        class_name: its class.
        unit: what the grid is measured in.
        volume: in ml; the number of pixels (voxels) on a grid without physical size.
        centroid: RAS mm; the index of the voxel on a grid without physical size.
        confidence: 0 to 1, see `postprocess.objects`.
    """

    object_id: int
    class_name: str
    unit: Unit
    volume: float
    centroid: tuple[float, float, float]
    confidence: float

    def to_row(self) -> dict[str, str]:
        """Return the columns of objects.csv by name, without those of the other unit."""
        volume = f"volume_{'ml' if self.unit == 'mm' else 'px'}"
        place = zip("xyz", self.centroid, strict=True)
        return {
            "object_id": str(self.object_id),
            "class": self.class_name,
            volume: f"{self.volume:.6g}",
            **{f"{axis}_{self.unit}": f"{at:.2f}" for axis, at in place},
            "confidence": f"{self.confidence:.4f}",
        }


def ids_paths(folder: Path, case_id: str, formats: Sequence[str]) -> tuple[Path, ...]:
    """Return where the ids of a case go: in each format that holds numbers, else NIfTI."""
    plain = [name for name in formats if name in _PLAIN] or ["nifti"]
    return tuple(folder / f"{case_id}{IDS}{SUFFIX_OF[name]}" for name in plain)


def write_ids(objects: Objects, paths: Sequence[Path], *, geometry: Geometry) -> None:
    """Write the ids of objects, 0 for none: uint16, uint32 beyond 65535 objects.

    Raises:
        WriteError: as `write_volume`.
    """
    kind = np.uint16 if len(objects) <= np.iinfo(np.uint16).max else np.uint32
    volume = Volume(objects.ids_IJK.astype(kind)[np.newaxis], geometry, ("ids",))
    for path in paths:
        write_volume(volume, path)


def measure_objects(
    objects: Objects, *, geometry: Geometry, labels: LabelSet
) -> tuple[FoundObject, ...]:
    """Measure the objects of a case on its scan's grid, in the order of their ids."""
    if not len(objects):
        return ()
    ids = np.arange(1, len(objects) + 1)
    sizes = np.bincount(objects.ids_IJK.ravel(), minlength=len(ids) + 1)[1:]
    centres = np.array(ndimage.center_of_mass(objects.ids_IJK > 0, objects.ids_IJK, ids))
    if geometry.unit == "mm":
        centres = geometry.to_world(centres)
    voxel = geometry.voxel_ml if geometry.unit == "mm" else 1.0
    return tuple(
        FoundObject(
            object_id=int(number),
            class_name=labels.names[int(index) - 1],
            unit=geometry.unit,
            volume=float(size) * voxel,
            centroid=(float(x), float(y), float(z)),
            confidence=float(confidence),
        )
        for number, index, size, (x, y, z), confidence in zip(
            ids, objects.class_M, sizes, centres, objects.confidence_M, strict=True
        )
    )


def write_objects(
    found: Mapping[str, Sequence[FoundObject]], path: Path, *, without: Collection[str] = ()
) -> None:
    """Write `objects.csv`, a row an object; rows that it has of other cases stay.

    Args:
        found: by case.
        path: the table.
        without: cases whose rows are taken out.
    """
    rows: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [r for r in csv.DictReader(stream) if r["case_id"] not in {*found, *without}]
    rows += [{"case_id": name, **one.to_row()} for name, own in found.items() for one in own]
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out.getvalue(), path)
