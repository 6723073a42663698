"""Segmentations of 3D Slicer (`.seg.nrrd`): an NRRD whose keys name, colour and code its segments.

Key names are those of Slicer's vtkMRMLSegmentationStorageNode. Segments that overlap lie in layers,
which are a channel axis of the file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.core.errors import LabelError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import Label, LabelSet
from medseg.core.stored_values import values_in
from medseg.core.volume import Volume
from medseg.io.nrrd import write_nrrd
from medseg.io.sidecars import stored_values

_DECLARES = re.compile(r"Segment(\d{1,6})_(?:ID|LabelValue)")
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_ANATOMY = "Anatomic codes - DICOM master list"
_TISSUE = "SCT^85756007^Tissue"
_STRUCTURE = "SCT^123037004^Anatomical Structure"
_SEPARATORS = str.maketrans("~^|", "   ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment: its name, the layer it lies in, and its value there."""

    name: str
    layer: int
    value: int


def is_segmentation(keys: dict[str, str]) -> bool:
    """Tell from the keys of an NRRD file whether 3D Slicer wrote segments into it."""
    return any(map(_DECLARES.fullmatch, keys))


def labels_of_segments(
    layers: Volume, keys: dict[str, str], path: Path, labels: LabelSet
) -> Volume:
    """Turn the layers of a segmentation into classes, matched with segments by name.

    Returns:
        One channel of indices 0..N (N + 1 where a layer holds the value to ignore); where segments
        overlap, one channel of 0 and 1 a class.

    Raises:
        LabelError: LBL-011 segments that are no class, LBL-003 values that are no segment.
        ReadError: SNR-001 as `segments_of`.
    """
    segments = segments_of(layers, keys, path)
    unknown = sorted({s.name for s in segments} - set(labels.names))
    if unknown:
        raise LabelError(
            f"{path}: segments {', '.join(unknown)} are no class of {', '.join(labels.names)}",
            code="LBL-011",
            hint="rename the segments, or the classes of the manifest",
        )
    _require_declared(layers, segments, labels, path)
    kind = np.uint8 if len(labels) < 254 else np.uint16
    label_map_IJK = np.zeros(layers.geometry.shape, dtype=kind)
    for segment in segments:
        index = labels.names.index(segment.name) + 1
        mask = layers.voxels[segment.layer] == segment.value
        before = label_map_IJK[mask]
        if ((before != 0) & (before != index)).any():
            return _apart(layers, segments, labels)
        label_map_IJK[mask] = index
    if labels.ignore_index is not None:
        ignored = (layers.voxels == labels.ignore_value).any(axis=0)
        label_map_IJK[ignored & (label_map_IJK == 0)] = labels.ignore_index
    return Volume(label_map_IJK[None], layers.geometry, ("labels",), layers.findings)


def laid_on(segments: Volume, grid: Geometry) -> Volume:
    """Lay a segmentation on the grid of its scan, which 3D Slicer may save a cut-out of.

    Outside the cut-out nothing is segmented. Voxels that are not those of the grid, or segments
    beyond it, leave the segmentation as it is, for the caller to refuse.
    """
    place = segments.geometry.place_in(grid)
    if place is None or segments.geometry.shape == grid.shape:
        return segments
    inside = tuple(
        slice(max(0, -first), min(own, size - first))
        for first, own, size in zip(place, segments.geometry.shape, grid.shape, strict=True)
    )
    cut = segments.voxels[(slice(None), *inside)]
    if np.count_nonzero(cut) != np.count_nonzero(segments.voxels):
        return segments
    laid = np.zeros((len(segments.channels), *grid.shape), dtype=segments.voxels.dtype)
    window = tuple(
        slice(first + own.start, first + own.stop) for first, own in zip(place, inside, strict=True)
    )
    laid[(slice(None), *window)] = cut
    return Volume(laid, grid, segments.channels, segments.findings)


def _apart(layers: Volume, segments: Sequence[Segment], labels: LabelSet) -> Volume:
    """Lay segments that overlap into a channel a class."""
    masks = np.zeros((len(labels), *layers.geometry.shape), dtype=np.uint8)
    for segment in segments:
        mask = layers.voxels[segment.layer] == segment.value
        masks[labels.names.index(segment.name)][mask] = 1
    return Volume(masks, layers.geometry, labels.names, layers.findings)


def _require_declared(
    layers: Volume, segments: Sequence[Segment], labels: LabelSet, path: Path
) -> None:
    for number, layer in enumerate(layers.voxels):
        declared = [
            0,
            labels.ignore_value,
            *(segment.value for segment in segments if segment.layer == number),
        ]
        if odd := sorted(set(values_in(layer).tolist()) - set(declared)):
            raise LabelError(
                f"{path}: layer {number} holds the values {', '.join(map(str, odd[:6]))}, which no "
                "segment declares",
                code="LBL-003",
                hint="save the segmentation again in 3D Slicer, or rename a plain label map to "
                ".nrrd without its Segment keys",
            )


def segments_of(layers: Volume, keys: dict[str, str], path: Path) -> tuple[Segment, ...]:
    """Return the segments that the keys declare.

    Raises:
        ReadError: SNR-001 a key that is missing or not a number, or a layer that is not there.
    """
    found: list[Segment] = []
    # Numbers may leave gaps where segments were removed.
    for n in sorted({int(match[1]) for key in keys if (match := _DECLARES.fullmatch(key))}):
        name = keys.get(f"Segment{n}_Name") or keys.get(f"Segment{n}_ID", f"Segment_{n + 1}")
        # Before layers were introduced each segment had one of its own.
        layer = keys.get(f"Segment{n}_Layer", str(n))
        value = keys.get(f"Segment{n}_LabelValue", "1")
        if not (
            layer.isdecimal()
            and value.isdecimal()
            and int(value) > 0
            and int(layer) < len(layers.voxels)
        ):
            raise ReadError(
                f"{path}: segment {n}: layer {layer!r}, value {value!r}; expected a layer of the "
                f"file's {len(layers.voxels)} and a value above 0",
                code="SNR-001",
                hint="save the segmentation again in 3D Slicer",
            )
        found.append(Segment(name=name, layer=int(layer), value=int(value)))
    if not found:
        raise ReadError(
            f"{path}: no segments are declared; expected a segmentation of 3D Slicer",
            code="SNR-001",
            hint="rename it to .nrrd if it is a plain label map",
        )
    return tuple(found)


def write_segments(stored: Volume, path: Path, labels: LabelSet) -> None:
    """Write a label map that 3D Slicer opens as named, coloured and coded segments.

    Args:
        stored: one channel of stored values, as `LabelSet.to_stored` gives them.
        path: .seg.nrrd.
        labels: the classes; one without a code is written as tissue of its name.

    Raises:
        WriteError: SNR-002, a name or stored value that would not come back.
    """
    for value, label in stored_values(labels):
        if value < 1 or not label.name or label.name != " ".join(label.name.split()):
            raise WriteError(
                f"{path}: class {label.name!r} stores {value}; a .seg.nrrd holds values above 0, "
                "and names without outer or repeated blanks and line breaks",
                code="SNR-002",
                hint="change the name or the value of the class, or write .nrrd",
            )
    # 3D Slicer cuts a layer to the extent of its first segment: each must span the whole grid.
    extent = " ".join(f"0 {count - 1}" for count in stored.geometry.shape)
    keys = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for n, (value, label) in enumerate(stored_values(labels)):
        keys |= {
            f"Segment{n}_ID": f"Segment_{n + 1}",
            f"Segment{n}_Name": label.name,
            f"Segment{n}_NameAutoGenerated": "0",
            f"Segment{n}_Color": " ".join(f"{shade / 255:.6f}" for shade in label.colour),
            f"Segment{n}_ColorAutoGenerated": "0",
            f"Segment{n}_Extent": extent,
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": "0",
            f"Segment{n}_Tags": f"TerminologyEntry:{_terminology(label)}|",
        }
    write_nrrd(stored, path, keys=keys)


def _terminology(label: Label) -> str:
    if label.code is None:
        category = kind = _TISSUE
    else:
        category = _STRUCTURE
        code = label.code
        kind = "^".join(
            part.translate(_SEPARATORS) for part in (code.scheme, code.value, code.meaning)
        )
    return "~".join([_CONTEXT, category, kind, "^^", _ANATOMY, "^^", "^^"])
