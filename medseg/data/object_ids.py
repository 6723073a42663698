"""Ids of the objects of a mask: those its file stores, or the pieces of a class.

A file that stores several values for one class of things stores ids (`labels.nucleus='>0'`); where
it stores one value alone, values that were declared to mean the class (`labels.lesion=[1,2]`), or
named segments, an object is a piece that hangs together.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.errors import GeometryError
from medseg.core.labels import LabelMap, LabelSet
from medseg.core.volume import Array, Volume
from medseg.data.case import Case
from medseg.data.manifest import Manifest
from medseg.data.mask_files import MaskFiles
from medseg.io.formats import read_object_ids

Ids = NDArray[np.int32]


def read_ids(manifest: Manifest, case: Case, reference: Volume) -> Ids:
    """Read the ids of the objects of a case's reference.

    Several raters number their objects each in their own way, so of their common reference the
    pieces are taken.

    Args:
        manifest: its label set says which classes are things.
        case: a labelled case.
        reference: as `scans.read_reference` gives it.

    Returns:
        1..M (I, J, K), 0 where there is no object of a thing class.
    """
    labels = manifest.labels
    stored: dict[str, Array | None] = {}
    if len(case.labels) == 1:
        annotation = case.labels[0]
        if isinstance(annotation, str):
            annotation = dict.fromkeys(labels.names, annotation)
        read = {path: read_object_ids(manifest.path_of(path)) for path in set(annotation.values())}
        stored = {name: read[path] for name, path in annotation.items()}
    return ids_in(reference.only_channel, labels, stored)


def read_ids_beside(files: MaskFiles, path: Path, label_map_IJK: LabelMap, labels: LabelSet) -> Ids:
    """Read the ids of the objects of a mask: those beside it, else those of its own file.

    Args:
        files: of the mask, and of the ids beside it.
        path: the mask that was read.
        label_map_IJK: what it holds.
        labels: which classes are things.

    Raises:
        GeometryError: GEO-001: ids of another shape.
    """
    if not files.ids:
        return read_ids_of_file(path, label_map_IJK, labels)
    beside = replace(files, paths=files.ids).choose()
    stored = read_object_ids(beside)
    if stored is None or stored.shape != label_map_IJK.shape:
        found = "named segments" if stored is None else f"{stored.shape} voxels"
        raise GeometryError(
            f"{beside}: {found}; expected the ids of the objects of {path.name}, "
            f"{label_map_IJK.shape} voxels",
            code="GEO-001",
        )
    return np.where(np.isin(label_map_IJK, labels.things), stored, 0)


def read_ids_of_file(path: Path, label_map_IJK: LabelMap, labels: LabelSet) -> Ids:
    """Read the ids of the objects of one mask file, whose classes are read already."""
    return ids_in(label_map_IJK, labels, dict.fromkeys(labels.names, read_object_ids(path)))


def ids_in(label_map_IJK: LabelMap, labels: LabelSet, stored: Mapping[str, Array | None]) -> Ids:
    """Number the objects of all things, 1..M.

    Args:
        label_map_IJK: indices of classes.
        labels: which of them are things.
        stored: class -> what its file stores, (I, J, K); None or absent: nothing to go by.
    """
    ids = np.zeros(label_map_IJK.shape, np.int32)
    last = 0
    for index in labels.things:
        mask = label_map_IJK == index
        values = stored.get(labels.names[index - 1])
        distinct = np.unique(values[mask]) if values is not None else np.zeros(0)
        declared = labels.labels[index - 1].values
        merged = declared != ">0" and set(distinct.tolist()) <= set(declared)
        if values is not None and len(distinct) > 1 and not merged:
            ids[mask] = np.searchsorted(distinct, values[mask]) + 1 + last
            last += len(distinct)
        else:
            pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
            ids[mask] = pieces[mask] + last
            last += int(count)
    return ids
