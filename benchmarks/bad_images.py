"""Scans whose header or bytes are odd or broken: rows 37 to 60 of the table of bad inputs.

Files are made by nibabel and then bent byte by byte; what the good ones among them should read as
is said by nibabel, or by SimpleITK where nibabel does not know the format.
"""

import gzip
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from benchmarks.tiny_set import AFFINE, ball, write_image
from benchmarks.trial import Want

REFUSED: tuple[Want, ...] = ("refused",)
RIGHT: tuple[Want, ...] = ("right",)
NOTED: tuple[Want, ...] = ("noted",)
# Where fields of a NIfTI-1 header lie (nifti1.h).
_PIXDIM_K, _SLOPE, _INTERCEPT = 76 + 3 * 4, 112, 116
_QFORM_CODE, _SFORM_CODE, _SROW = 252, 254, 280
_DIM = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class BadImage:
    """A scan, and how it should be answered.

    Attributes:
        row, name: as in `Trial`.
        path: of the file.
        wants: the right answers of every command that reads it.
        twin: a file that an independent reader reads, and that should read alike; the file itself
            where there is none.
        affine: expected placement, where the independent reader's default is another.
        audit: what `medseg check` should answer, if something else than `wants`.
    """

    row: int
    name: str
    path: Path
    wants: tuple[Want, ...]
    twin: Path | None = None
    affine: NDArray[np.float64] | None = None
    audit: tuple[Want, ...] | None = None


def bad_images(folder: Path) -> Iterator[BadImage]:
    """Write the files, one after the other, and yield what they are."""
    yield from _placements(folder)
    yield from _numbers(folder)
    yield from _axes(folder)
    yield from _bytes(folder)


def _scan() -> NDArray[np.int16]:
    return ball(np.random.default_rng(37))[0]


def _bent(path: Path, fields: Mapping[int, bytes], voxels: NDArray[np.generic]) -> Path:
    """Write a plain NIfTI file and overwrite some bytes of its header."""
    write_image(voxels, path)
    raw = bytearray(path.read_bytes())
    for start, value in fields.items():
        raw[start : start + len(value)] = value
    path.write_bytes(raw)
    return path


def _floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def _rows(affine: NDArray[np.float64]) -> bytes:
    return _floats(*affine[:3].ravel())


def _turned(degrees: float) -> NDArray[np.float64]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return np.asarray(turn @ AFFINE)


def _placements(folder: Path) -> Iterator[BadImage]:
    scan = _scan()
    nowhere = {_QFORM_CODE: bytes(2), _SFORM_CODE: bytes(2)}
    qform_only = {_SFORM_CODE: bytes(2)}
    sform_only = {_QFORM_CODE: bytes(2)}
    moved, mirrored, sheared, flat = AFFINE.copy(), AFFINE.copy(), AFFINE.copy(), AFFINE.copy()
    moved[0, 3] += 5
    mirrored[0] *= -1
    sheared[0, 2] += 0.25
    flat[:, 2] = flat[:, 1]
    permuted = AFFINE[:, [2, 0, 1, 3]]
    nothing = np.full((4, 4), np.nan)
    listed: list[tuple[int, str, dict[int, bytes], tuple[Want, ...], bool]] = [
        (37, "neither sform nor qform", nowhere, REFUSED, False),
        (38, "sform 5 mm beside the qform", {_SROW: _rows(moved)}, NOTED, False),
        (38, "sform mirrored against the qform", {_SROW: _rows(mirrored)}, NOTED, False),
        (38, "qform alone", qform_only, RIGHT, False),
        (38, "sform alone", sform_only, RIGHT, False),
        (39, "sheared sform", {**sform_only, _SROW: _rows(sheared)}, RIGHT, False),
        (40, "left-handed", {**sform_only, _SROW: _rows(mirrored)}, RIGHT, False),
        (40, "oblique", {**sform_only, _SROW: _rows(_turned(31))}, RIGHT, False),
        (40, "axes in another order", {**sform_only, _SROW: _rows(permuted)}, RIGHT, False),
        (41, "NaN in the sform, a good qform", {_SROW: _rows(nothing)}, NOTED, True),
        (41, "NaN in the sform alone", {**sform_only, _SROW: _rows(nothing)}, REFUSED, False),
        (41, "singular sform, a good qform", {_SROW: _rows(flat)}, NOTED, True),
        (41, "singular sform alone", {**sform_only, _SROW: _rows(flat)}, REFUSED, False),
        (42, "voxel size 0", {_PIXDIM_K: _floats(0)}, REFUSED, False),
        (42, "voxel size NaN", {_PIXDIM_K: _floats(float("nan"))}, REFUSED, False),
        (42, "voxel size below 0", {_PIXDIM_K: _floats(-1.3)}, REFUSED, False),
    ]
    for number, (row, name, fields, wants, by_qform) in enumerate(listed):
        path = _bent(folder / f"placed_{number}.nii", fields, scan)
        affine = nibabel.load(path).get_qform() if by_qform else None
        yield BadImage(row=row, name=name, path=path, wants=wants, affine=affine)


def _numbers(folder: Path) -> Iterator[BadImage]:
    scan = _scan()
    listed: list[tuple[int, str, dict[int, bytes], NDArray[np.generic], tuple[Want, ...]]] = [
        (43, "slope NaN", {_SLOPE: _floats(float("nan"), 5)}, scan, NOTED),
        (43, "slope infinite", {_SLOPE: _floats(float("inf"), 5)}, scan, NOTED),
        (44, "slope 0, intercept 5", {_SLOPE: _floats(0, 5)}, scan, RIGHT),
        (45, "slope 2, intercept -1024", {_SLOPE: _floats(2, -1024)}, scan, RIGHT),
        (46, "int64", {}, scan.astype(np.int64), RIGHT),
        (46, "float64", {}, scan / 7, RIGHT),
        (46, "uint16 above 32767", {}, (scan.astype(np.int32) + 40_000).astype(np.uint16), RIGHT),
        (51, "complex", {}, scan.astype(np.complex64), REFUSED),
    ]
    for number, (row, name, fields, voxels, wants) in enumerate(listed):
        path = _bent(folder / f"numbers_{number}.nii", fields, voxels)
        yield BadImage(row=row, name=name, path=path, wants=wants)


def _axes(folder: Path) -> Iterator[BadImage]:
    scan = _scan()
    several = np.stack([scan, scan + 1, scan + 2], axis=-1)
    holed, endless = scan.astype(np.float32), scan.astype(np.float32)
    holed[3, 4, 5], endless[3, 4, 5] = np.nan, np.inf
    colours = np.zeros(scan.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    colours["R"], colours["G"] = scan % 256, 7
    # A model of volumes may segment a slice or refuse it; an audit must say that it is one.
    either: tuple[Want, ...] = ("right", "refused")
    listed: list[tuple[int, str, NDArray[np.generic], tuple[Want, ...], tuple[Want, ...]]] = [
        (47, "fourth axis of one voxel", scan[..., None], RIGHT, RIGHT),
        (47, "fourth and fifth axis of one voxel", scan[..., None, None], RIGHT, RIGHT),
        (47, "five axes, a vector at every voxel", several[:, :, :, None], REFUSED, REFUSED),
        (47, "five axes", np.stack([several, several], axis=-1), REFUSED, REFUSED),
        (48, "three channels that nobody declared", several, REFUSED, REFUSED),
        (49, "two axes", scan[:, :, 7], either, REFUSED),
        (50, "a voxel of NaN", holed, ("noted", "refused"), REFUSED),
        (50, "an infinite voxel", endless, ("noted", "refused"), REFUSED),
        (50, "NaN everywhere", np.full_like(holed, np.nan), ("noted", "refused"), REFUSED),
        (52, "three colours a voxel", colours, REFUSED, REFUSED),
    ]
    for number, (row, name, voxels, wants, audit) in enumerate(listed):
        path = write_image(voxels, folder / f"axes_{number}.nii.gz")
        yield BadImage(row=row, name=name, path=path, wants=wants, audit=audit)


def _bytes(folder: Path) -> Iterator[BadImage]:
    scan = _scan()
    plain = write_image(scan, folder / "good" / "plain.nii")
    packed = write_image(scan, folder / "good" / "packed.nii.gz")
    raw, gz = plain.read_bytes(), packed.read_bytes()
    checksum, length = bytearray(gz), bytearray(gz)
    checksum[-8] ^= 1
    length[-4] ^= 1
    huge = bytearray(raw[:2000])
    huge[_DIM : _DIM + 8] = struct.pack("<4h", 3, 32767, 32767, 32767)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    listed: list[tuple[int, str, str, bytes, tuple[Want, ...]]] = [
        (53, "truncated", "a.nii", raw[: len(raw) // 2], REFUSED),
        (53, "truncated inside its header", "b.nii", raw[:200], REFUSED),
        (53, "truncated and packed", "c.nii.gz", gz[: len(gz) // 2], REFUSED),
        (53, "last byte missing", "d.nii.gz", gz[:-1], REFUSED),
        (54, "wrong checksum", "e.nii.gz", bytes(checksum), REFUSED),
        (54, "wrong length", "f.nii.gz", bytes(length), REFUSED),
        (55, "packed, named as if not", "g.nii", gz, NOTED),
        (55, "not packed, named as if", "h.nii.gz", raw, NOTED),
        (56, "no bytes", "i.nii.gz", b"", REFUSED),
        (56, "Git LFS pointer", "j.nii.gz", pointer, REFUSED),
        (56, "web page", "k.nii.gz", page, REFUSED),
        (57, "32767 voxels a side", "l.nii", bytes(huge), REFUSED),
        (57, "32767 voxels a side, packed", "m.nii.gz", gzip.compress(bytes(huge)), REFUSED),
    ]
    for row, name, file, content, wants in listed:
        (folder / file).write_bytes(content)
        yield BadImage(row=row, name=name, path=folder / file, wants=wants, twin=plain)
    (folder / "n.nii.gz").mkdir()
    for name, file in (("a folder", "n.nii.gz"), ("nothing there", "o.nii.gz")):
        yield BadImage(row=58, name=name, path=folder / file, wants=REFUSED)
