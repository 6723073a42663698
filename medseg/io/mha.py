"""MetaImage: reads .mha and .mhd, writes .mha with the voxels behind the header.

Fields are those of ITK's MetaIO documentation. As with NRRD, no library is used, so that SimpleITK
stays an independent reader.
"""

import re
import zlib
from io import BufferedIOBase
from math import prod
from pathlib import Path

import numpy as np

from medseg.core.errors import GeometryError, ReadError, WriteError
from medseg.core.geometry import Affine
from medseg.core.volume import Array, Volume
from medseg.io.contents import (
    damage_named,
    file_inside,
    inflate,
    read_numbers,
    read_to_end,
    require_room,
    truncated,
)
from medseg.io.placement import affine_of, lps_to_ras, placed
from medseg.io.voxels import COLOURS, channel_names, not_finite
from medseg.runtime.files import written_whole

_LONGEST_HEADER = 2**16
_NUMBERS = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_NAMES = {code: name for name, code in _NUMBERS.items()} | {"b1": "MET_UCHAR", "f2": "MET_FLOAT"}
# Older names of a field come second.
_MATRIX = ("transformmatrix", "rotation", "orientation")
_ORIGIN = ("offset", "position", "origin")
_BIG_ENDIAN = ("binarydatabyteordermsb", "elementbyteordermsb")
_HINT = "export the scan again from a tool that writes all fields of a MetaImage"


def read_mha(path: Path) -> Volume:
    """Read a MetaImage scan or mask.

    Args:
        path: .mha, or .mhd whose data file lies in the same folder or below it.

    Raises:
        ReadError: MHA-001 a field that is missing or not what MetaIO asks for, MHA-002 data file,
            FIL-007 to FIL-012 (`contents`).
        GeometryError: MHA-003 no orientation or no position.
    """
    with damage_named(path), path.open("rb") as stream:
        fields = _Fields(_read_lines(stream, path), path)
        data_file = fields.text["elementdatafile"]
        if data_file.upper() == "LOCAL":
            voxels = _read_voxels(stream, fields, path)
        else:
            data = file_inside(path.parent, data_file, header=path, code="MHA-002")
            with damage_named(data), data.open("rb") as detached:
                voxels = _read_voxels(detached, fields, data)
    geometry = placed(voxels.shape[1:], _affine(fields), name=str(path), code="MHA-003")
    channels = COLOURS if len(voxels) == 3 and voxels.dtype == np.uint8 else None
    return Volume(
        voxels,
        geometry,
        channels or channel_names(len(voxels)),
        tuple(not_finite(voxels, path.name)),
    )


def write_mha(volume: Volume, path: Path) -> None:
    """Write voxels, packed, with the affine of their geometry and no other text.

    Raises:
        WriteError: MHA-030 numbers that MetaImage cannot hold; MHA-031 a sheared grid, which the
            format cannot express.
    """
    code = volume.voxels.dtype.str[1:]
    if code not in _NAMES:
        raise WriteError(f"{path}: voxels of type {volume.voxels.dtype}", code="MHA-030")
    lps = lps_to_ras(volume.geometry.affine)
    spacing_mm = volume.geometry.spacing_mm
    directions = (lps[:3, :3] / spacing_mm).T
    if not np.allclose(directions @ directions.T, np.eye(3), atol=1e-4):
        raise WriteError(
            f"{path}: the grid is sheared, which a MetaImage cannot express",
            code="MHA-031",
            hint="write NIfTI or NRRD instead",
        )
    in_file = volume.voxels.transpose(3, 2, 1, 0)
    kind = _NUMBERS[_NAMES[code]]
    packed = zlib.compress(np.ascontiguousarray(in_file, dtype=f"<{kind}").data, level=1)
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(packed)}",
        f"TransformMatrix = {_listed(directions.ravel())}",
        f"Offset = {_listed(lps[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_listed(np.array(spacing_mm))}",
        f"DimSize = {' '.join(map(str, volume.geometry.shape))}",
        f"ElementNumberOfChannels = {len(volume.channels)}",
        f"ElementType = {_NAMES[code]}",
        "ElementDataFile = LOCAL",
    ]
    with written_whole(path) as stream:
        stream.write(("\n".join(lines) + "\n").encode() + packed)


def _listed(numbers: Array) -> str:
    return " ".join(repr(float(n)) for n in numbers)


class _Fields:
    """Fields as text, read as what MetaIO says they hold."""

    def __init__(self, text: dict[str, str], path: Path) -> None:
        self.text = text
        self.path = path

    def numbers(self, names: tuple[str, ...], count: int, expected: str) -> list[float]:
        name = next((name for name in names if name in self.text), names[0])
        value = self.text.get(name, "")
        try:
            found = [float(word) for word in value.split()]
        except ValueError:
            found = []
        if len(found) != count:
            raise self.fault(name, value, expected)
        return found

    def whole(self, name: str, count: int, default: str) -> list[int]:
        value = self.text.get(name, default)
        if not re.fullmatch(r"[+-]?\d{1,15}( +[+-]?\d{1,15})*", value):
            raise self.fault(name, value, f"{count} whole numbers")
        found = [int(word) for word in value.split()]
        if len(found) != count:
            raise self.fault(name, value, f"{count} whole numbers")
        return found

    def true(self, name: str) -> bool:
        return self.text.get(name, "False").lower() in ("true", "1", "t")

    def fault(self, name: str, found: str, expected: str) -> ReadError:
        return ReadError(
            f"{self.path}: {name}: found {found[:80]!r}, expected {expected}",
            code="MHA-001",
            hint=_HINT,
        )


def _read_lines(stream: BufferedIOBase, path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    length = 0
    while line := stream.readline(_LONGEST_HEADER):
        length += len(line)
        name, mark, value = line.decode("utf-8", errors="replace").partition("=")
        if not mark or length > _LONGEST_HEADER:
            break
        fields[name.strip().lower()] = value.strip()
        # By definition the last field of a header.
        if name.strip().lower() == "elementdatafile":
            return fields
    raise ReadError(
        f"{path}: the header ends without ElementDataFile",
        code="MHA-001",
        hint="copy or export the file again",
    )


def _dim_size(fields: _Fields) -> list[int]:
    (count,) = fields.whole("ndims", 1, "")
    if count not in (2, 3):
        raise fields.fault("ndims", str(count), "2 or 3")
    sizes = fields.whole("dimsize", count, "")
    if min(sizes) < 1:
        raise fields.fault("dimsize", fields.text["dimsize"], "positive numbers")
    return sizes


def _read_voxels(stream: BufferedIOBase, fields: _Fields, path: Path) -> Array:
    """Read the voxels, (C, I, J, K)."""
    sizes = _dim_size(fields)
    (num_channels,) = fields.whole("elementnumberofchannels", 1, "1")
    (skipped,) = fields.whole("headersize", 1, "0")
    name = fields.text.get("elementtype", "").upper()
    if name not in _NUMBERS:
        raise fields.fault("elementtype", name, f"one of {', '.join(_NUMBERS)}")
    if num_channels < 1 or not 0 <= skipped <= _LONGEST_HEADER:
        raise fields.fault(
            "elementnumberofchannels, headersize",
            f"{num_channels}, {skipped}",
            f"one or more, 0 to {_LONGEST_HEADER}",
        )
    big = any(fields.true(order) for order in _BIG_ENDIAN)
    kind = np.dtype(_NUMBERS[name]).newbyteorder(">" if big else "<")
    count = prod(sizes) * num_channels
    require_room(path, count * kind.itemsize)
    if len(stream.read(skipped)) < skipped:
        raise truncated(path, f"found fewer than the {skipped} bytes to skip")
    if fields.true("compresseddata"):
        plain = inflate(stream.read(), count * kind.itemsize, path=path)
        numbers = np.frombuffer(bytearray(plain), kind).astype(kind.newbyteorder("="), copy=False)
    else:
        numbers = read_numbers(stream, count, kind=kind, path=path)
        read_to_end(stream, path=path, padding_bytes=0)
    i, j, k = (*sizes, 1)[:3]
    return numbers.reshape((k, j, i, num_channels)).transpose(3, 2, 1, 0)


def _affine(fields: _Fields) -> Affine:
    """Turn matrix, offset and spacing into RAS; each row of the matrix is the way of one axis."""
    count = len(_dim_size(fields))
    for names in (_MATRIX, _ORIGIN):
        if not any(name in fields.text for name in names):
            raise GeometryError(
                f"{fields.path}: no {names[0]}: orientation and position are unknown",
                code="MHA-003",
                hint=_HINT,
            )
    ways = np.eye(3)
    matrix = fields.numbers(_MATRIX, count * count, f"{count * count} numbers")
    ways[:count, :count] = np.array(matrix).reshape(count, count)
    origin = [*fields.numbers(_ORIGIN, count, f"{count} numbers"), 0.0][:3]
    spacing = fields.numbers(("elementspacing", "elementsize"), count, f"{count} numbers")
    if not all(0 < size < np.inf for size in spacing):
        raise fields.fault("elementspacing", str(spacing), "positive numbers")
    sizes_mm = [*spacing, 1.0][:3]
    return lps_to_ras(affine_of(ways * np.array(sizes_mm)[:, None], origin))
