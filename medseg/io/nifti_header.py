"""The header of a NIfTI-1 or NIfTI-2 file, checked field by field before any voxel is read.

Field names, sizes and rules are those of the standard: nifti1.h (Cox et al., NIfTI-1 Data Format,
2004) and nifti2.h (2011).
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import ReadError

ByteOrder = Literal["<", ">"]

_NIFTI1 = np.dtype(
    {
        "names": [
            "dim", "intent_code", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope",
            "scl_inter", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow",
            "magic",
        ],
        "formats": [
            "(8,)i2", "i2", "i2", "i2", "(8,)f4", "f4", "f4", "f4", "u1", "i2", "i2", "(3,)f4",
            "(3,)f4", "(3,4)f4", "S4",
        ],
        "offsets": [40, 68, 70, 72, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280, 344],
        "itemsize": 348,
    }
)  # fmt: skip
_NIFTI2 = np.dtype(
    {
        "names": [
            "magic", "datatype", "bitpix", "dim", "pixdim", "vox_offset", "scl_slope",
            "scl_inter", "qform_code", "sform_code", "quatern", "qoffset", "srow", "xyzt_units",
            "intent_code",
        ],
        "formats": [
            "S8", "i2", "i2", "(8,)i8", "(8,)f8", "i8", "f8", "f8", "i4", "i4", "(3,)f8",
            "(3,)f8", "(3,4)f8", "i4", "i4",
        ],
        "offsets": [4, 12, 14, 16, 104, 168, 176, 184, 344, 348, 352, 376, 400, 500, 504],
        "itemsize": 540,
    }
)  # fmt: skip
_MAGIC = {348: {b"n+1": False, b"ni1": True}, 540: {b"n+2": False, b"ni2": True}}
# Least offset of the voxels in a single file: after the header and its four bytes of flags.
_FIRST_VOXEL = {348: 352, 540: 544}
_COLOUR = {128: 3, 2304: 4}
_NUMBERS = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "u1", 256: "i1", 512: "u2", 768: "u4",
    1024: "i8", 1280: "u8", 2304: "u1",
}  # fmt: skip
_REFUSED_NUMBERS = {
    1: "single bits",
    32: "complex numbers",
    1536: "128-bit floats",
    1792: "complex numbers",
    2048: "complex numbers",
}
# Intent codes 3000 to 3099 mark CIFTI-2, matrices over brain regions in a NIfTI-2 coat.
_CIFTI = range(3000, 3100)
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True, slots=True, kw_only=True)
class NiftiHeader:
    """What the header of a NIfTI file says, free of contradictions.

    Attributes:
        paired: the voxels lie in an .img file of their own.
        dim: sizes of the axes, one to seven of them.
        numbers: number type and byte order in the file.
        samples: numbers a voxel: 1, or 3 and 4 for RGB24 and RGBA32.
        voxel_start: offset of the first voxel in its file, in bytes.
        slope: scale factor as stored (0 or NaN: none).
        intercept: what is added after scaling, as stored.
        pixdim: as stored, 8 numbers; the first is the handedness of the qform.
        qform_code: 0 when there is no qform.
        quatern: the quaternion's b, c, d.
        qoffset: position of the first voxel.
        sform_code: 0 when there is no sform.
        srow: first three rows of the sform.
        unit_mm: millimetres in the header's unit of length.
        unit_declared: False where the header names no unit.
    """

    paired: bool
    dim: tuple[int, ...]
    numbers: np.dtype[Any]
    samples: int
    voxel_start: int
    slope: float
    intercept: float
    pixdim: NDArray[np.float64]
    qform_code: int
    quatern: NDArray[np.float64]
    qoffset: NDArray[np.float64]
    sform_code: int
    srow: NDArray[np.float64]
    unit_mm: float
    unit_declared: bool

    @property
    def num_numbers(self) -> int:
        """How many numbers the voxels take."""
        return prod(self.dim) * self.samples


# A damaged float may be a signalling NaN, which NumPy remarks upon when it is widened.
@np.errstate(invalid="ignore")
def parse_header(raw: bytes, path: Path) -> NiftiHeader:
    """Read and check a header.

    Args:
        raw: the first bytes of the file, unpacked; at least 540 if there are as many.
        path: the file, for the refusals.

    Raises:
        ReadError: NII-001 not a NIfTI header, NII-002 Analyze 7.5, NII-003 sizes of the axes,
            NII-004 number type, NII-005 complex numbers and other types that are not intensities,
            NII-006 start of the voxels, NII-007 unit of length, NII-008 CIFTI.
    """
    size, order = _size_and_order(raw, path)
    if len(raw) < size:
        raise ReadError(
            f"{path}: truncated: the header has {len(raw)} bytes, expected {size}",
            code="FIL-007",
            hint="copy or download the file again",
        )
    layout = _NIFTI1 if size == 348 else _NIFTI2
    fields = np.frombuffer(raw, layout.newbyteorder(order), count=1)[0]
    paired = _paired(fields, size, path)
    if int(fields["intent_code"]) in _CIFTI:
        raise ReadError(
            f"{path}: intent code {fields['intent_code']}: a CIFTI matrix, expected a scan",
            code="NII-008",
            hint="medseg segments volumes on voxels only",
        )
    numbers, samples = _number_type(fields, order, path)
    unit = int(fields["xyzt_units"]) & 7
    if unit not in _MM_PER_UNIT:
        raise ReadError(
            f"{path}: xyzt_units: unit of length {unit}; expected 0 to 3 (metre, mm, micron)",
            code="NII-007",
            hint="the header is damaged; export the scan again",
        )
    return NiftiHeader(
        paired=paired,
        dim=_dimensions(fields, path),
        numbers=numbers,
        samples=samples,
        voxel_start=_voxel_start(fields, size, paired=paired, path=path),
        slope=float(fields["scl_slope"]),
        intercept=float(fields["scl_inter"]),
        pixdim=fields["pixdim"].astype(np.float64),
        qform_code=int(fields["qform_code"]),
        quatern=fields["quatern"].astype(np.float64),
        qoffset=fields["qoffset"].astype(np.float64),
        sform_code=int(fields["sform_code"]),
        srow=fields["srow"].astype(np.float64),
        unit_mm=_MM_PER_UNIT[unit],
        unit_declared=unit != 0,
    )


def _size_and_order(raw: bytes, path: Path) -> tuple[int, ByteOrder]:
    if (size := int.from_bytes(raw[:4], "little")) in _MAGIC:
        return size, "<"
    if (size := int.from_bytes(raw[:4], "big")) in _MAGIC:
        return size, ">"
    raise ReadError(
        f"{path}: not a NIfTI file: its header size is {int.from_bytes(raw[:4], 'little')}; "
        "expected 348 or 540",
        code="NII-001",
        hint="copy or export the file again",
    )


def _paired(fields: Any, size: int, path: Path) -> bool:
    magic = bytes(fields["magic"])[:3]
    if magic in _MAGIC[size]:
        return _MAGIC[size][magic]
    if size == 348 and not magic.startswith(b"n"):
        raise ReadError(
            f"{path}: an Analyze 7.5 header, which does not say where left and right are",
            code="NII-002",
            hint="convert the original scan to NIfTI instead",
        )
    raise ReadError(
        f"{path}: magic {magic!r}; expected n+1, ni1, n+2 or ni2",
        code="NII-001",
        hint="copy or export the file again",
    )


def _dimensions(fields: Any, path: Path) -> tuple[int, ...]:
    stored = [int(n) for n in fields["dim"]]
    count = stored[0]
    if not 1 <= count <= 7 or min(stored[1 : count + 1]) < 1:
        raise ReadError(
            f"{path}: dim {stored}: expected 1 to 7 axes, each of at least one voxel",
            code="NII-003",
            hint="the header is damaged; copy or export the file again",
        )
    return tuple(stored[1 : count + 1])


def _number_type(fields: Any, order: ByteOrder, path: Path) -> tuple[np.dtype[Any], int]:
    code, bits = int(fields["datatype"]), int(fields["bitpix"])
    if code in _REFUSED_NUMBERS:
        raise ReadError(
            f"{path}: datatype {code}: {_REFUSED_NUMBERS[code]}, expected integers or real numbers",
            code="NII-005",
            hint="export the magnitude (or another real image) instead",
        )
    if code not in _NUMBERS:
        raise ReadError(
            f"{path}: datatype {code} is not one of NIfTI's",
            code="NII-004",
            hint="the header is damaged; copy or export the file again",
        )
    numbers, samples = np.dtype(order + _NUMBERS[code]), _COLOUR.get(code, 1)
    expected = 8 * numbers.itemsize * samples
    if bits not in (0, expected):
        raise ReadError(
            f"{path}: bitpix {bits} contradicts datatype {code}, which takes {expected} bits",
            code="NII-004",
            hint="the header is damaged; copy or export the file again",
        )
    return numbers, samples


def _voxel_start(fields: Any, size: int, *, paired: bool, path: Path) -> int:
    start = float(fields["vox_offset"])
    least = 0 if paired else _FIRST_VOXEL[size]
    # No header needs more than this, and a larger float32 could not be trusted to the byte.
    most = 2**24
    if not least <= start <= most or start != int(start):
        raise ReadError(
            f"{path}: vox_offset {start:g}: expected a whole number from {least} to {most}",
            code="NII-006",
            hint="the header is damaged; copy or export the file again",
        )
    return int(start)
