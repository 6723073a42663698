"""Masks that are DICOM objects: SEG or RTSTRUCT, whichever a path holds."""

from pathlib import Path

import numpy as np
from pydicom import Dataset

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet
from medseg.core.volume import Volume
from medseg.io.dicom.headers.attributes import text, unspoken
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.reader import is_dicom
from medseg.io.dicom.references import (
    RTSTRUCT_CLASSES,
    SEG_CLASSES,
    drawn_on,
    find_object,
    require_same_space,
)
from medseg.io.dicom.rtstruct.reading import classes_drawn, read_rtstruct, read_rtstruct_labels
from medseg.io.dicom.seg.segmentation import read_seg, read_seg_labels


def read_dicom_mask(
    path: Path, labels: LabelSet, *, onto: Geometry | None = None, scan: Path | None = None
) -> Volume:
    """Read a SEG or RTSTRUCT as indices 0..N.

    Args:
        path: the object, or a folder that holds exactly one.
        labels: the classes to translate segments or regions into.
        onto: the grid of the scan; an RTSTRUCT needs it.
        scan: the scan it was drawn on, to compare frames of reference with, where that is DICOM.

    Returns:
        One channel of indices, or, where classes overlap, one channel of 0 and 1 a class.

    Raises:
        MedsegError: DCM-034 no such object, or several; DCM-033 another frame of reference than
            the scan's; and as `read_seg` and `read_rtstruct`.
    """
    with unspoken():
        file, dataset = _find(path)
        if scan is not None and is_dicom(scan):
            what = "RTSTRUCT" if _is_rtstruct(dataset) else "SEG"
            require_same_space(drawn_on(dataset), scan, name=file.name, what=what)
    read = read_rtstruct if _is_rtstruct(dataset) else read_seg
    return read(path, labels=labels, onto=onto)


def read_dicom_labels(path: Path) -> LabelSet:
    """Return the segments of a SEG or the regions of an RTSTRUCT as a label set.

    Raises:
        MedsegError: as `read_seg_labels` and `read_rtstruct_labels`.
    """
    return read_rtstruct_labels(path) if is_rtstruct(path) else read_seg_labels(path)


def classes_in_dicom(path: Path, labels: LabelSet) -> frozenset[int]:
    """Return the indices of the classes that a SEG or RTSTRUCT marks, wherever it lies.

    Raises:
        MedsegError: as `read_dicom_mask`, less what needs a grid.
    """
    if is_rtstruct(path):
        return classes_drawn(path, labels)
    found = read_seg(path, labels=labels).voxels
    if len(found) > 1:
        return frozenset(index for index, mask in enumerate(found, start=1) if mask.any())
    return frozenset(np.unique(found).tolist()) - {0}


def is_rtstruct(path: Path) -> bool:
    """Tell an RTSTRUCT from a SEG.

    Raises:
        ReadError: DCM-034, it is neither, or there are several.
    """
    with unspoken():
        return _is_rtstruct(_find(path)[1])


def _find(path: Path) -> tuple[DicomFile, Dataset]:
    return find_object(path, (*SEG_CLASSES, *RTSTRUCT_CLASSES), what="DICOM SEG or RTSTRUCT")


def _is_rtstruct(dataset: Dataset) -> bool:
    return text(dataset, "SOPClassUID") in RTSTRUCT_CLASSES
