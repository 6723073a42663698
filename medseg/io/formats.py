"""Every file format behind a few functions: read a scan or a mask, write one, find and name them.

A file is what its first bytes say (`sniff`); a name that says otherwise is a finding. What is
written is chosen by suffix. Folders and .zip archives are DICOM.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.core.errors import GeometryError, LabelError, ReadError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet
from medseg.core.stored_values import whole_numbers
from medseg.core.volume import Array, Volume
from medseg.io.images import Palette, read_picture
from medseg.io.mha import read_mha
from medseg.io.nifti import read_nifti
from medseg.io.nrrd import read_nrrd_keys
from medseg.io.placement import image_affine
from medseg.io.seg_nrrd import is_segmentation, labels_of_segments, laid_on
from medseg.io.sniff import SUFFIXES, Kind, sniff, suffix_of
from medseg.io.tiff import read_tiff
from medseg.io.writing import write_class_masks, write_label_map, write_volume

__all__ = [
    "case_name",
    "classes_in_mask",
    "find_scans",
    "fitting_name",
    "read_label_map",
    "read_volume",
    "write_class_masks",
    "write_label_map",
    "write_volume",
]

Spacing = tuple[float, float, float]
# How far a declared spacing may be from the one a file carries, relative.
_SPACING_TOLERANCE = 1e-3


def read_volume(
    path: Path,
    *,
    series_uid: str | None = None,
    spacing_mm: Spacing | None = None,
    channels_axis: bool = False,
    suv: bool = False,
) -> Volume:
    """Read a scan of any format.

    Args:
        path: a file, or a folder or .zip that holds a DICOM series.
        series_uid: which series, where a folder holds several.
        spacing_mm: size of a voxel, for images that carry none; turns their unit from px to mm.
        channels_axis: a fourth axis of a NIfTI or NRRD file holds channels.
        suv: turn the activity of a DICOM PET into SUV by body weight (g/ml); other formats carry no
            dose, and their values are taken as they are.

    Raises:
        ReadError: what the reader of the format refuses, coded; FIL-001 to FIL-006 (`sniff`).
        GeometryError: no such placement; FIL-013 a declared spacing that the file contradicts.
    """
    kind = _kind_of_scan(path)
    if kind in ("dicom", "zip"):
        from medseg.io.dicom.reader import read_dicom

        volume = read_dicom(path, series_uid=series_uid, suv=suv)
    else:
        volume = _read_file(path, kind, channels_axis=channels_axis, palette="colours")[0]
    return _with_spacing(volume, spacing_mm, path)


def read_label_map(
    path: Path,
    labels: LabelSet,
    *,
    spacing_mm: Spacing | None = None,
    onto: Geometry | None = None,
    scan: Path | None = None,
) -> Volume:
    """Read a mask as indices 0..N (N + 1 where it is to be ignored).

    Args:
        path: a file of any format, also a .seg.nrrd, a DICOM SEG or an RTSTRUCT.
        labels: what the stored values (or the names of segments and regions) stand for.
        spacing_mm: size of a voxel, for images that carry none.
        onto: the grid of the scan, on which the frames of a DICOM SEG are placed (a SEG may leave
            out slices without a mark), the contours of an RTSTRUCT drawn, and a .seg.nrrd is laid
            that was cut out of it; other formats lie on the grid their file declares.
        scan: the scan itself; a SEG or RTSTRUCT of another frame of reference is refused.

    Returns:
        One channel of indices, (1, I, J, K); of a SEG, an RTSTRUCT or a .seg.nrrd whose classes
        overlap, one channel of 0 and 1 a class.

    Raises:
        LabelError: LBL-001 to LBL-003 values that are no class, LBL-004 a picture in colours,
            LBL-011 segments that are no class (`seg_nrrd`).
        ReadError: as `read_volume`.
        GeometryError: as `read_volume`.
    """
    kind = _kind_of_scan(path)
    if kind in ("dicom", "zip"):
        from medseg.io.dicom.masks import read_dicom_mask

        return read_dicom_mask(path, labels, onto=onto, scan=scan)
    stored, keys = _read_file(path, kind, channels_axis=kind == "nrrd", palette="indices")
    if is_segmentation(keys):
        segments = labels_of_segments(stored, keys, path, labels)
        return segments if onto is None else laid_on(segments, onto)
    first = stored.voxels[0]
    if any(not np.array_equal(first, other) for other in stored.voxels[1:]):
        raise LabelError(
            f"{path}: a mask of {len(stored.voxels)} channels (colours?); expected one value a "
            "voxel",
            code="LBL-004",
            hint="save the mask with one number a class",
        )
    index = labels.from_stored(first, name=str(path))
    found = Volume(index[None], stored.geometry, ("labels",), stored.findings)
    return _with_spacing(found, spacing_mm, path)


def read_object_ids(path: Path) -> Array | None:
    """Read the whole numbers that a mask stores, such as ids of objects, (I, J, K).

    Returns:
        None for formats that store named segments (DICOM SEG, .seg.nrrd) and no numbers.

    Raises:
        LabelError: LBL-001, LBL-002 numbers that are not whole.
        ReadError: as `read_volume`.
    """
    kind = _kind_of_scan(path)
    if kind in ("dicom", "zip"):
        return None
    stored, keys = _read_file(path, kind, channels_axis=kind == "nrrd", palette="indices")
    if is_segmentation(keys):
        return None
    ids = stored.voxels[0]
    return whole_numbers(ids, str(path)) if np.issubdtype(ids.dtype, np.inexact) else ids


def classes_in_mask(path: Path, labels: LabelSet) -> tuple[str, ...]:
    """Return the classes that a mask marks, in the order of the label set; it needs no scan.

    Raises:
        MedsegError: as `read_label_map`.
    """
    if _kind_of_scan(path) in ("dicom", "zip"):
        from medseg.io.dicom.masks import classes_in_dicom

        held = classes_in_dicom(path, labels)
    else:
        mask = read_label_map(path, labels)
        if len(mask.channels) > 1:
            return tuple(n for n, one in zip(labels.names, mask.voxels, strict=True) if one.any())
        held = frozenset(np.unique(mask.voxels).tolist())
    return tuple(name for index, name in enumerate(labels.names, start=1) if index in held)


def case_name(path: Path) -> str:
    """Return the name of a scan without the suffixes medseg knows: "a.b.nii.gz" is "a.b"."""
    return path.name.removesuffix(path.name[len(path.name) - len(suffix_of(path)) :])


def find_scans(folder: Path) -> list[Path]:
    """List the scans under a folder, sorted: files, and folders whose files are DICOM.

    A file with a suffix medseg knows is listed whatever it holds, so that a damaged one is reported
    and not passed over. Hidden files are left out; of an .hdr/.img pair the header is listed.

    Raises:
        ReadError: FIL-001 no such folder.
    """
    if not folder.is_dir():
        raise ReadError(f"{folder}: no such folder", code="FIL-001", hint="check the path")
    return sorted(_scans_under(folder))


def _scans_under(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(root) / name for name in sorted(names) if not name.startswith(".")]
        scans = [file for file in files if _known(file)]
        rest = [file for file in files if file not in scans]
        yield from scans
        if any(_is_dicom_file(file) for file in rest):
            yield Path(root)
            # What lies below belongs to the same study; the reader looks there itself.
            folders.clear()


def _known(file: Path) -> bool:
    suffix = suffix_of(file)
    return bool(suffix) and not suffix.startswith(".img") and suffix not in SUFFIXES["dicom"]


def _is_dicom_file(file: Path) -> bool:
    from medseg.io.dicom.reader import is_dicom

    # Slices often have no suffix, or a number for one; text beside them is common.
    return file.name.upper() != "DICOMDIR" and file.is_file() and is_dicom(file)


def _kind_of_scan(path: Path) -> Kind:
    if not path.is_dir():
        return sniff(path)
    suffix = suffix_of(path)
    if suffix and suffix not in SUFFIXES["dicom"]:
        raise ReadError(
            f"{path}: a folder, though its name ends like a file",
            code="FIL-002",
            hint="name the scan inside it",
        )
    return "dicom"


def _read_file(
    path: Path, kind: Kind, *, channels_axis: bool, palette: Palette
) -> tuple[Volume, dict[str, str]]:
    """Read any file but DICOM; return its `key:=value` pairs too, if the format has some."""
    keys: dict[str, str] = {}
    if kind == "nifti":
        volume = read_nifti(path, channels_axis=channels_axis)
    elif kind == "nrrd":
        volume, keys = read_nrrd_keys(path, channels_axis=channels_axis)
    elif kind == "mha":
        volume = read_mha(path)
    elif kind == "tiff":
        volume = read_tiff(path, palette=palette)
    else:
        volume = read_picture(path, palette=palette)
    return replace(volume, findings=(*_misnamed(path, kind), *volume.findings)), keys


def fitting_name(path: Path, kind: Kind) -> str:
    """Return the name that a file should have by its content: its own, unless the suffix errs."""
    suffix = suffix_of(path).removeprefix(".seg")
    packed = kind == "nifti" and _is_packed(path)
    if suffix in SUFFIXES[kind] and (kind != "nifti" or suffix.endswith(".gz") == packed):
        return path.name
    return case_name(path) + SUFFIXES[kind][0] + (".gz" if packed else "")


def _misnamed(path: Path, kind: Kind) -> list[Finding]:
    better = fitting_name(path, kind)
    if better == path.name:
        return []
    suffix = suffix_of(path).removeprefix(".seg")
    content = better.removeprefix(case_name(path))
    return [
        Finding(
            code="FIL-010",
            severity="warning",
            subject=path.name,
            message=f"named {suffix or 'without a known suffix'}, but its content is {content}",
            hint=f"rename it to {better}; other tools go by the name",
        )
    ]


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _with_spacing(volume: Volume, spacing_mm: Spacing | None, path: Path) -> Volume:
    if spacing_mm is None:
        return volume
    geometry = volume.geometry
    if geometry.unit == "px":
        shown = Geometry(geometry.shape, image_affine(spacing_mm), "mm")
        return replace(volume, geometry=shown)
    if not np.allclose(geometry.spacing_mm, spacing_mm, rtol=_SPACING_TOLERANCE):
        raise GeometryError(
            f"{path}: the file says {geometry.spacing_mm} mm a voxel, declared are {spacing_mm}",
            code="FIL-013",
            hint="declare spacing_mm only for images that carry none",
        )
    return volume
