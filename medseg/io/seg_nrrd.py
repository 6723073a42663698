"""Segmentations of 3D Slicer (`.seg.nrrd`): an NRRD whose keys name, colour and code its segments.

Key names are those of Slicer's vtkMRMLSegmentationStorageNode. Segments that overlap lie in layers,
which are a channel axis of the file.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.core.errors import LabelError, ReadError
from medseg.core.labels import Label, LabelSet
from medseg.core.volume import Volume
from medseg.io.nrrd import write_nrrd
from medseg.io.sidecars import stored_values

_MOST_SEGMENTS = 10_000
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
    return "Segment0_LabelValue" in keys or "Segment0_ID" in keys


def labels_of_segments(
    layers: Volume, keys: dict[str, str], path: Path, labels: LabelSet
) -> Volume:
    """Turn the layers of a segmentation into classes, matched with segments by name.

    Returns:
        One channel of indices 0..N; where segments overlap, one channel of 0 and 1 a class.

    Raises:
        LabelError: LBL-011 segments that are no class.
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
    apart = np.zeros((len(labels), *layers.geometry.shape), dtype=bool)
    for segment in segments:
        mask = layers.voxels[segment.layer] == segment.value
        apart[labels.names.index(segment.name)] |= mask
    if (apart.sum(axis=0) > 1).any():
        masks = apart.astype(np.uint8)
        return Volume(masks, layers.geometry, labels.names, layers.findings)
    kind = np.uint8 if len(labels) < 254 else np.uint16
    indices = np.arange(1, len(labels) + 1, dtype=kind)
    label_map_IJK = np.tensordot(indices, apart, axes=1).astype(kind)
    return Volume(label_map_IJK[None], layers.geometry, ("labels",), layers.findings)


def segments_of(layers: Volume, keys: dict[str, str], path: Path) -> tuple[Segment, ...]:
    """Return the segments that the keys declare.

    Raises:
        ReadError: SNR-001 a key that is missing or not a number, or a layer that is not there.
    """
    found: list[Segment] = []
    for n in range(_MOST_SEGMENTS):
        if f"Segment{n}_ID" not in keys and f"Segment{n}_LabelValue" not in keys:
            break
        name = keys.get(f"Segment{n}_Name") or keys.get(f"Segment{n}_ID", f"Segment_{n + 1}")
        # Before layers were introduced each segment had one of its own.
        layer = keys.get(f"Segment{n}_Layer", str(n))
        value = keys.get(f"Segment{n}_LabelValue", "1")
        if not (layer.isdecimal() and value.isdecimal() and int(layer) < len(layers.voxels)):
            raise ReadError(
                f"{path}: segment {n}: layer {layer!r}, value {value!r}; the file has "
                f"{len(layers.voxels)} layers",
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
    """
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
