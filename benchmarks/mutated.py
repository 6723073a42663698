"""Good files of every format, and their mutations: each a pure function of its number."""

import gzip
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK
import tifffile
from PIL import Image
from pydicom.uid import JPEGLSLossless, RLELossless

from benchmarks.ct_series import AFFINE, voxels_of, write_ct, write_enhanced
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.io.dicom.rtstruct.writing import write_rtstruct
from medseg.io.dicom.seg.segmentation import write_seg

# Mutations aim at the head of a file half of the time: there they find what holds it together.
_HEAD_BYTES = 1500
_PREAMBLE_BYTES = 132
_VALUES = np.array([0, 1, 0x7F, 0x80, 0xFE, 0xFF], dtype=np.uint8)
_SLICES = 3
_GZIP, _PNG = b"\x1f\x8b", b"\x89PNG\r\n\x1a\n"


def write_good(folder: Path) -> dict[str, Path]:
    """Write a good file of each format into a folder of its own; return the files by format."""
    shutil.rmtree(folder, ignore_errors=True)
    return {name: write(_made(folder / name)) for name, write in FORMATS.items()}


def mutated(whole: bytes, number: int) -> bytes:
    """Return mutation `number` of a file: one to three changes.

    Checksums would give nearly every change away, so odd numbers of gzip and PNG get right ones.
    """
    rng = np.random.default_rng(number)
    packed = bool(number % 2) and whole.startswith(_GZIP)
    content = gzip.decompress(whole) if packed else whole
    for _ in range(rng.integers(1, 4)):
        content = _CHANGES[rng.integers(len(_CHANGES))](content, rng)
    if packed:
        return gzip.compress(content, 1, mtime=0)
    return _with_checksums(content) if number % 2 and whole.startswith(_PNG) else content


def _with_checksums(png: bytes) -> bytes:
    """Give the chunks of a PNG the checksums that they should have, as far as they can be found."""
    content, start = bytearray(png), len(_PNG)
    while start + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 8 + length
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(content[start + 4 : end]))
        start = end + 4
    return bytes(content)


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Draw a byte, in the head half of the time; the preamble of DICOM says nothing."""
    first = _PREAMBLE_BYTES if content[128:132] == b"DICM" else 0
    end = min(len(content), _HEAD_BYTES) if rng.random() < 0.5 else len(content)
    return int(rng.integers(min(first, end - 1), end)) if end else 0


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        place = _place(content, rng)
        damaged[place : place + 1] = bytes([damaged[place] ^ (1 << int(rng.integers(8)))])
    return bytes(damaged)


def _set(content: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    value = rng.choice(_VALUES, rng.integers(1, 5)).tobytes()
    return content[:place] + value + content[place + len(value) :]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)] or content


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    return content[:place] + rng.bytes(int(rng.integers(1, 64))) + content[place:]


def _delete(content: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[place + int(rng.integers(1, 64)) :] or content


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    place, length = _place(content, rng), int(rng.integers(1, 200))
    return content[:place] + content[place : place + length] + content[place:]


def _swap(content: bytes, rng: np.random.Generator) -> bytes:
    """Exchange two spans of one length: fields of the header, as a rule."""
    length = int(rng.choice([1, 2, 4, 8, 16]))
    one, other = sorted((_place(content, rng), _place(content, rng)))
    if other - one < length or other + length > len(content):
        return _flip(content, rng)
    first, second = content[one : one + length], content[other : other + length]
    return (
        content[:one] + second + content[one + length : other] + first + content[other + length :]
    )


_CHANGES = (_flip, _flip, _set, _cut, _insert, _delete, _repeat, _swap, _swap)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _few(folder: Path) -> list[Path]:
    return write_ct(folder, voxels_of(7)[:, :, :_SLICES])


def _ct(folder: Path) -> Path:
    return _few(folder)[1]


def _rle(folder: Path) -> Path:
    return _compressed(folder, RLELossless)


def _jpeg_ls(folder: Path) -> Path:
    return _compressed(folder, JPEGLSLossless)


def _compressed(folder: Path, syntax: pydicom.uid.UID) -> Path:
    path = _few(folder)[1]
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path)
    return path


def _enhanced(folder: Path) -> Path:
    return write_enhanced(folder, voxels_of(7)[:, :, :_SLICES])


def _seg(folder: Path) -> Path:
    return _drawn(folder, write_seg, "seg.dcm")


def _rtstruct(folder: Path) -> Path:
    return _drawn(folder, write_rtstruct, "rtstruct.dcm")


def _drawn(folder: Path, write: Callable[..., None], name: str) -> Path:
    scan = voxels_of(7)[:, :, :_SLICES]
    write_ct(folder / "scan", scan)
    mask = np.zeros(scan.shape, np.uint8)
    mask[4:12, 5:15, 1:] = 1
    mask[6:9, 7:9, 1] = 2
    write(
        mask, folder / name, geometry=Geometry(scan.shape, AFFINE),
        labels=label_set({"organ": 1, "tumour": 2}), source=folder / "scan",
    )  # fmt: skip
    return folder / name


def _by_nibabel(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        image = nibabel.Nifti1Image(voxels_of(7), AFFINE)
        image.set_qform(AFFINE, 1)
        nibabel.save(image, folder / name)
        return folder / name

    return write


def _by_itk(name: str, *, packed: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        image = SimpleITK.GetImageFromArray(voxels_of(7))
        if ".seg." in name:
            image = SimpleITK.Cast(image > -800, SimpleITK.sitkUInt8)
            fields = {"ID": "one", "Name": "organ", "LabelValue": "1", "Layer": "0"}
            for field, value in fields.items():
                image.SetMetaData(f"Segment0_{field}", value)
        SimpleITK.WriteImage(image, folder / name, useCompression=packed)
        return folder / name

    return write


def _by_pillow(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        gray = ((voxels_of(7)[:, :, 9].astype(int) + 1000) // 4).clip(0, 255).astype(np.uint8)
        Image.fromarray(np.tile(gray, (4, 4))).save(folder / name)
        return folder / name

    return write


def _by_tifffile(compression: str | None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        tifffile.imwrite(folder / "a.tif", voxels_of(7).T, compression=compression)
        return folder / "a.tif"

    return write


def _deep_colour(folder: Path) -> Path:
    pixels = np.random.default_rng(7).integers(0, 2**16, (40, 30, 3), dtype=np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), folder / "a.png")
    return folder / "a.png"


FORMATS: dict[str, Callable[[Path], Path]] = {
    "dicom_ct": _ct,
    "dicom_rle": _rle,
    "dicom_jpeg_ls": _jpeg_ls,
    "dicom_enhanced": _enhanced,
    "dicom_seg": _seg,
    "dicom_rtstruct": _rtstruct,
    "nifti": _by_nibabel("a.nii"),
    "nifti_gz": _by_nibabel("a.nii.gz"),
    "nrrd": _by_itk("a.nrrd"),
    "seg_nrrd": _by_itk("a.seg.nrrd", packed=True),
    "mha": _by_itk("a.mha"),
    "tiff": _by_tifffile(None),
    "tiff_zlib": _by_tifffile("zlib"),
    "png": _by_pillow("a.png"),
    "png_deep": _deep_colour,
    "jpeg": _by_pillow("a.jpg"),
}
