"""What a DICOM SEG is written from: label maps as frames, and the headers of the source series."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from medseg import __version__
from medseg.core.errors import GeometryError, LabelError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet
from medseg.io.dicom.series.grouping import Series

# Names of classes may need letters that the character set of the scan does not have.
UTF_8 = "ISO_IR 192"
# What medseg's objects call the equipment that made them; a version is one device anywhere.
EQUIPMENT = {
    "manufacturer": "medseg",
    "manufacturer_model_name": "medseg",
    "software_versions": __version__,
    "device_serial_number": "0",
}
_log = logging.getLogger(__name__)
# What a SEG, SR or RTSTRUCT says of its patient and study: whose it is and where it is filed, and
# no more (docs/privacy.md). The standard lets a source leave these empty (type 2).
FILED_BY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
# highdicom copies whatever it finds of patient, visit, trial, request and equipment.
_PERSONAL_GROUPS = frozenset({0x0010, 0x0012, 0x0032, 0x0038, 0x0040})
_IDENTIFICATION_GROUP = 0x0008
_TEXTS = frozenset({"AE", "AS", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})


def absent_ids(instances: Sequence[Dataset]) -> str:
    """Return which ids a SEG refers to are absent from some slice; empty when all are there."""
    needed = ("StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    return ", ".join(name for name in needed if not all(one.get(name) for one in instances))


def frames_first(
    label_map: NDArray[Any], geometry: Geometry, labels: LabelSet
) -> NDArray[np.uint16]:
    """Return frames first: (K, J, I) of indices, or (K, J, I, N) of masks that may overlap.

    Raises:
        GeometryError: GEO-001, another shape than the grid's.
        LabelError: LBL-003, values that are no index of a class.
    """
    label_map = np.asarray(label_map)
    overlapping = label_map.ndim == 4
    expected = (len(labels), *geometry.shape) if overlapping else geometry.shape
    if label_map.shape != expected:
        raise GeometryError(
            f"label map of shape {label_map.shape}, expected {expected}", code="GEO-001"
        )
    highest = 1 if overlapping else len(labels)
    if label_map.min() < 0 or label_map.max() > highest:
        raise LabelError(
            f"label map holds {label_map.min()} to {label_map.max()}, expected 0 to {highest}",
            code="LBL-003",
            hint="voxels to ignore cannot be written into a SEG",
        )
    return np.ascontiguousarray(label_map.T).astype(np.uint8 if highest < 256 else np.uint16)


def warn_of_empty(masks: NDArray[Any], labels: LabelSet, path: Path) -> None:
    """Name in a warning every class that a file says nothing about."""
    if masks.ndim == 4:
        present = set((np.flatnonzero(masks.any(axis=(0, 1, 2))) + 1).tolist())
    else:
        present = set(np.unique(masks).tolist())
    for index, name in enumerate(labels.names, start=1):
        if index not in present:
            _log.warning("%s: segment %d (%s) has no voxels", path.name, index, name)


def source_instances(series: Series) -> tuple[list[Dataset], list[int]]:
    """Return the source's headers, and k in the order in which they list their frames.

    Raises:
        WriteError: DCM-051, a mosaic, or a stack spread over several multi-frame files.
    """
    order = sorted(range(series.num_slices), key=lambda k: series.frames[k].index)
    files = list(dict.fromkeys(frame.file for frame in series.frames))
    if any(frame.storage.tiles for frame in series.frames):
        raise WriteError(
            f"series {series.selector}: is a Siemens mosaic, whose slices are no frames",
            code="DCM-051",
            hint="write NIfTI or RTSTRUCT",
        )
    instances = []
    for file in files:
        with file.open() as stream:
            header = dcmread(stream, stop_before_pixels=True, force=True)
        instances.append(_bare(header))
    if len(files) > 1 and len(files) != series.num_slices:
        raise WriteError(
            f"series {series.selector}: its slices are spread over {len(files)} multi-frame files",
            code="DCM-051",
            hint="a SEG refers to single-frame files, or to one multi-frame file",
        )
    return instances, order if len(files) == 1 else list(range(series.num_slices))


def _bare(header: Dataset) -> Dataset:
    """Return a source's header without what a SEG need not say of the patient or the scanner."""
    bare = Dataset()
    for element in header:
        group, representation = element.tag.group, element.VR
        is_personal = group in _PERSONAL_GROUPS or representation in _TEXTS
        # Codes and ids of physicians, procedures and diagnoses.
        is_personal |= group == _IDENTIFICATION_GROUP and representation == "SQ"
        if element.keyword in FILED_BY or not (is_personal or element.tag.is_private):
            bare.add(element)
    for keyword in FILED_BY:
        if keyword not in bare:
            setattr(bare, keyword, "")
    return bare
