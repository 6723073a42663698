"""What a file is, told by its first bytes; suffixes only break ties."""

import re
import struct
from pathlib import Path
from typing import Literal

from medseg.core.errors import ReadError
from medseg.io.contents import GZIP_MAGIC, damage_named, opened
from medseg.io.nifti import pair_of

Kind = Literal["nifti", "nrrd", "mha", "picture", "tiff", "dicom", "zip"]

# By kind, the names its files usually have; the first is what a misnamed file is told to take.
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "nifti": (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz"),
    "nrrd": (".nrrd", ".nhdr"),
    "mha": (".mha", ".mhd"),
    "picture": (".png", ".jpg", ".jpeg"),
    "tiff": (".tif", ".tiff"),
    "dicom": (".dcm", ".dicom", ".ima"),
    "zip": (".zip",),
}
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"NRRD", "nrrd"),
    (b"\x89PNG\r\n\x1a\n", "picture"),
    (b"\xff\xd8\xff", "picture"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"PK\x03\x04", "zip"),
)
# Files that people hand over as scans, and what to tell them.
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (MINC 2 or a cache)", "convert it to NIfTI"),
    (b"CDF\x01", "a MINC 1 file", "convert it to NIfTI"),
    (b"BZh", "packed with bzip2", "unpack it, or pack it with gzip"),
    (b"\xfd7zXZ\0", "packed with xz", "unpack it, or pack it with gzip"),
    (b"\x93NUMPY", "a NumPy array, which does not say where its voxels lie", "convert it to NIfTI"),
    (b"%PDF", "a PDF document", "hand over the scan itself"),
    (b"\0\0\0\x01\0\0", "a FreeSurfer MGH volume", "convert it with mri_convert to NIfTI"),
)
_HTML = re.compile(rb"\s*(<!doctype html|<html|<\?xml)", re.IGNORECASE)
_METAIMAGE = re.compile(rb"\s*(ObjectType|ObjectSubType|NDims|Comment)\s*=")
_HEAD_BYTES = 540


def sniff(path: Path) -> Kind:
    """Tell what a file is.

    Raises:
        ReadError: FIL-001 no such file, FIL-002 a folder, FIL-003 empty, FIL-004 something else
            that can be named, FIL-006 nothing that medseg knows.
    """
    if path.is_dir():
        raise ReadError(
            f"{path}: a folder, expected a file", code="FIL-002", hint="name the scan inside it"
        )
    if not path.exists():
        raise ReadError(f"{path}: no such file", code="FIL-001", hint="check the path")
    kind = kind_of(path)
    if kind is None:
        raise _unknown(path)
    return kind


def kind_of(path: Path) -> Kind | None:
    """Tell what a file is; None when its first bytes say nothing medseg knows.

    Raises:
        ReadError: the file cannot be read, or is a damaged gzip stream.
    """
    header_path, _ = pair_of(path)
    if header_path != path and header_path.exists():
        # An .img file has no mark of its own; its header has.
        return kind_of(header_path)
    head = _head(path)
    if _is_nifti(head):
        return "nifti"
    if head[128:132] == b"DICM":
        return None if _is_packed(path) else "dicom"
    if _METAIMAGE.match(head):
        return "mha"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return _dicom_without_preamble(path)


def suffix_of(path: Path) -> str:
    """Return the suffix by which medseg knows a file, lower case; "" when it knows none."""
    known = [
        ".seg.nrrd",
        ".seg.dcm",
        ".sr.dcm",
        ".rtstruct.dcm",
        *(suffix for suffixes in SUFFIXES.values() for suffix in suffixes),
    ]
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix)), key=len, default="")


def _head(path: Path) -> bytes:
    """Return the first bytes, unpacked."""
    with opened(path) as stream:
        return stream.read(_HEAD_BYTES)


def _is_packed(path: Path) -> bool:
    with damage_named(path), path.open("rb") as stream:
        return stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _is_nifti(head: bytes) -> bool:
    if len(head) < 348:
        return False
    sizes = struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4])
    return bool({348, 540} & {*sizes}) or head[344:347] in (b"n+1", b"ni1") or head[4:6] == b"n+"


def _dicom_without_preamble(path: Path) -> Kind | None:
    from medseg.io.dicom.reader import is_dicom

    if path.suffix.lower() in (*SUFFIXES["dicom"], "") and is_dicom(path):
        return "dicom"
    return None


def _unknown(path: Path) -> ReadError:
    with damage_named(path), path.open("rb") as stream:
        raw = stream.read(_HEAD_BYTES)
    if not raw:
        return ReadError(
            f"{path}: empty (0 bytes)", code="FIL-003", hint="copy or download the file again"
        )
    header_path, _ = pair_of(path)
    if header_path != path:
        return ReadError(
            f"{path}: the header {header_path.name} that belongs to these voxels is missing",
            code="NII-009",
            hint="put both files side by side under one name",
        )
    head = _head(path) if raw.startswith(GZIP_MAGIC) else raw
    if raw.startswith(GZIP_MAGIC) and (head[128:132] == b"DICM" or head.startswith(GZIP_MAGIC)):
        what = "a DICOM file" if head[128:132] == b"DICM" else "a file that was packed before"
        return ReadError(f"{path}: {what}, packed with gzip", code="FIL-004", hint="unpack it")
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            return ReadError(f"{path}: {what}", code="FIL-004", hint=hint)
    if _HTML.match(head):
        return ReadError(
            f"{path}: a web page (an error message saved as a file?)",
            code="FIL-004",
            hint="download the file again and look at its first lines",
        )
    return ReadError(
        f"{path}: not a format medseg reads; its first bytes are {head[:8]!r}",
        code="FIL-006",
        hint="medseg reads DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG and TIFF",
    )
