"""Masks and volumes written, the format chosen by suffix; one writer for predict and export.

| suffix | label map | volume |
|---|---|---|
| .nii, .nii.gz | yes | yes; float16 becomes float32; probabilities uint8 or uint16 if asked |
| .nrrd | yes | yes |
| .seg.nrrd | with names, colours and codes | no |
| .mha | yes, unless sheared | yes, unless sheared |
| .png | one slice without placement | one slice, one channel |
| .tif, .tiff | slices without placement | one channel |
| .dcm, .seg.dcm | DICOM SEG, with its source | no |
| .rtstruct.dcm | RTSTRUCT, with its source | no |
"""

import re
from pathlib import Path
from typing import Literal

import numpy as np

from medseg.core.errors import LabelError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelMap, LabelSet
from medseg.core.volume import Array, Volume
from medseg.io.images import write_picture
from medseg.io.mha import write_mha
from medseg.io.nifti_write import Quantised, write_nifti
from medseg.io.nrrd import write_nrrd
from medseg.io.placement import image_affine
from medseg.io.seg_nrrd import write_segments
from medseg.io.sniff import suffix_of
from medseg.io.tiff import write_tiff

SegType = Literal["BINARY", "LABELMAP"]
# Formats by the names that commands take; `sr` reports on a case's `dicom_seg`.
SUFFIX_OF = {
    "nifti": ".nii.gz",
    "nrrd": ".nrrd",
    "seg_nrrd": ".seg.nrrd",
    "mha": ".mha",
    "png": ".png",
    "tiff": ".tif",
    "dicom_seg": ".seg.dcm",
    "sr": ".sr.dcm",
    "rtstruct": ".rtstruct.dcm",
}
# Of these, what refers to the DICOM series it was drawn on; scans of other kinds go without.
FROM_DICOM = ("dicom_seg", "sr", "rtstruct")
# Suffixes of what refers to the DICOM series it was drawn on, and what messages call it.
_DRAWN_ON_SERIES = {
    ".dcm": "a DICOM SEG",
    ".seg.dcm": "a DICOM SEG",
    ".rtstruct.dcm": "an RTSTRUCT",
}
_PICTURES = (".png", ".tif", ".tiff")
_UNSAFE = re.compile(r"[^\w.-]+")


def write_label_map(
    label_map_IJK: LabelMap,
    path: Path,
    *,
    geometry: Geometry,
    labels: LabelSet,
    source: Path | None = None,
    series_uid: str | None = None,
    seg_type: SegType = "BINARY",
) -> None:
    """Write indices 0..N as the values that files store, on the grid of the scan.

    Args:
        label_map_IJK: indices, as `read_label_map` gives them.
        path: where; the suffix chooses the format.
        geometry: the grid, that of the scan.
        labels: stored values, names, colours and codes.
        source: the folder, .zip or file of the DICOM series that a SEG or RTSTRUCT refers to.
        series_uid: which series of it, where there are several.
        seg_type: how a DICOM SEG stores its segments, see `write_seg`.

    Raises:
        WriteError: FIL-020 a suffix medseg does not write, FIL-021 a DICOM mask without source,
            FIL-022 a placement that a picture cannot carry, FIL-023 another shape.
        LabelError: LBL-005 indices that are no class.
    """
    if label_map_IJK.shape != geometry.shape:
        raise WriteError(
            f"{path}: a label map of shape {label_map_IJK.shape} on a grid of {geometry.shape}",
            code="FIL-023",
        )
    suffix = suffix_of(path)
    if suffix in _DRAWN_ON_SERIES:
        if source is None:
            raise WriteError(
                f"{path}: {_DRAWN_ON_SERIES[suffix]} refers to the series it was drawn on, and "
                "none was given",
                code="FIL-021",
                hint="name the DICOM series as the source, or write .nii.gz",
            )
        if suffix == SUFFIX_OF["rtstruct"]:
            from medseg.io.dicom.rtstruct.writing import write_rtstruct

            write_rtstruct(
                label_map_IJK,
                path,
                geometry=geometry,
                labels=labels,
                source=source,
                series_uid=series_uid,
            )
            return
        from medseg.io.dicom.seg.segmentation import write_seg

        write_seg(
            label_map_IJK,
            path,
            geometry=geometry,
            labels=labels,
            source=source,
            series_uid=series_uid,
            kind=seg_type,
        )
        return
    stored = Volume(_stored(label_map_IJK, labels, path)[None], geometry, ("labels",))
    if suffix == ".seg.nrrd":
        write_segments(stored, path, labels)
    else:
        write_volume(stored, path)


def require_room(path: Path, *, geometry: Geometry) -> None:
    """Refuse, before any work is done, a file that could not hold a label map of a scan.

    Args:
        path: that would be written; the suffix chooses the format.
        geometry: the grid of the scan.

    Raises:
        WriteError: FIL-022, as `write_label_map`.
    """
    suffix = suffix_of(path)
    if suffix in _PICTURES:
        _require_picture(path, suffix, geometry=geometry, num_channels=1)


def write_class_masks(
    label_map_IJK: LabelMap, folder: Path, *, geometry: Geometry, labels: LabelSet, name: str
) -> tuple[Path, ...]:
    """Write one NIfTI mask of zeros and ones a class, FOLDER/NAME_CLASS.nii.gz; return the paths.

    Raises:
        WriteError: as `write_label_map`; FIL-024 two classes whose file names would be the same.
    """
    paths = tuple(folder / f"{name}_{_UNSAFE.sub('_', each)}.nii.gz" for each in labels.names)
    if len({path.name.lower() for path in paths}) < len(paths):
        raise WriteError(
            f"{folder}: classes {', '.join(labels.names)} do not give different file names",
            code="FIL-024",
            hint="rename the classes",
        )
    for index, path in enumerate(paths, start=1):
        mask = (label_map_IJK == index).astype(np.uint8)
        write_nifti(Volume(mask[None], geometry, ("mask",)), path)
    return paths


def write_volume(volume: Volume, path: Path, *, quantised: Quantised | None = None) -> None:
    """Write a scan or a probability map; no text but what the format needs.

    Args:
        volume: what to write.
        path: where; the suffix chooses the format.
        quantised: store probabilities as whole numbers with a slope (NIfTI only).

    Raises:
        WriteError: FIL-020 a suffix medseg does not write, FIL-022 channels or a placement that a
            picture cannot carry, and what the format cannot hold.
    """
    suffix = suffix_of(path)
    if suffix in (".nii", ".nii.gz"):
        write_nifti(volume, path, quantised=quantised)
        return
    if quantised:
        raise WriteError(f"{path}: only NIfTI holds quantised probabilities", code="FIL-020")
    if suffix == ".nrrd":
        write_nrrd(volume, path)
    elif suffix == ".mha":
        write_mha(volume, path)
    elif suffix in _PICTURES:
        _write_pixels(volume, path, suffix)
    else:
        raise WriteError(
            f"{path}: medseg does not write {suffix or 'this suffix'}",
            code="FIL-020",
            hint="use .nii.gz, .nrrd, .seg.nrrd, .mha, .png, .tif or .dcm",
        )


def _write_pixels(volume: Volume, path: Path, suffix: str) -> None:
    _require_picture(path, suffix, geometry=volume.geometry, num_channels=len(volume.channels))
    if suffix == ".png":
        write_picture(volume.voxels[0, :, :, 0], path)
    else:
        write_tiff(volume.voxels[0], path)


def _require_picture(path: Path, suffix: str, *, geometry: Geometry, num_channels: int) -> None:
    placeless = np.allclose(geometry.affine, image_affine(geometry.spacing_mm), atol=1e-6)
    fits = geometry.shape[2] == 1 if suffix == ".png" else True
    if num_channels > 1 or not placeless or not fits:
        raise WriteError(
            f"{path}: {num_channels} x {geometry.shape} voxels with a place in space; a {suffix} "
            "file would lose it",
            code="FIL-022",
            hint="write .nii.gz or .nrrd instead",
        )


def _stored(label_map_IJK: LabelMap, labels: LabelSet, path: Path) -> Array:
    """Translate indices into stored values; ignored voxels get the value declared for them."""
    if not np.issubdtype(label_map_IJK.dtype, np.integer):
        raise LabelError(f"{path}: labels of type {label_map_IJK.dtype}", code="LBL-005")
    ignore_value = labels.ignore_value
    if ignore_value is None:
        return labels.to_stored(_known(label_map_IJK, labels, path))
    ignored = label_map_IJK == labels.ignore_index
    stored = labels.to_stored(_known(np.where(ignored, 0, label_map_IJK), labels, path))
    kind = np.promote_types(stored.dtype, np.min_scalar_type(ignore_value))
    return np.where(ignored, ignore_value, stored).astype(kind)


def _known(label_map_IJK: LabelMap, labels: LabelSet, path: Path) -> LabelMap:
    least, most = int(label_map_IJK.min()), int(label_map_IJK.max())
    if least < 0 or most > len(labels):
        raise LabelError(
            f"{path}: indices {least} to {most}; the label set has {len(labels)} classes",
            code="LBL-005",
            hint="was the mask made with another label set?",
        )
    return label_map_IJK
