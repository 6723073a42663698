"""NRRD: reads .nrrd and .nhdr, writes .nrrd with the samples behind the header.

Written and read here rather than through a library, so that SimpleITK stays an independent reader
of what medseg writes, and so that a header opens no file outside its own folder.
"""

import gzip
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from medseg.core.errors import ReadError, WriteError
from medseg.core.findings import Finding
from medseg.core.volume import Array, Volume
from medseg.io.contents import (
    damage_named,
    file_inside,
    read_numbers,
    read_to_end,
    require_room,
    truncated,
    unpacked,
)
from medseg.io.nrrd_header import NrrdHeader, parse_header
from medseg.io.nrrd_space import place_axes
from medseg.io.placement import lps_to_ras
from medseg.io.voxels import COLOURS, channel_names, not_finite
from medseg.runtime.files import written_whole

_COLOUR_KINDS = ("rgb-color", "3-color")
_TYPE_NAMES = {
    "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32",
    "u8": "uint64", "i8": "int64", "f4": "float", "f8": "double",
}  # fmt: skip
_WIDENED = {"b1": "u1", "f2": "f4"}
# What `byte skip: -1` may pass over: a foreign header in front of the samples.
_MOST_SKIPPED_BYTES = 2**24
# Higher levels take five times as long for a few per cent.
_FAST = 1
# No decimal number of an ASCII file is longer.
_LONGEST_WORD = 32


def read_nrrd_keys(path: Path, *, channels_axis: bool = False) -> tuple[Volume, dict[str, str]]:
    """Read an NRRD file and its `key:=value` pairs.

    Args:
        path: .nrrd, or .nhdr whose data file lies in the same folder or below it.
        channels_axis: an axis outside space holds channels even if its kind says `list` or nothing.

    Raises:
        ReadError: NRD-001 and NRD-002 (`nrrd_header`), NRD-003 data file, NRD-004 axes that are
            neither space nor declared channels, NRD-006 skips, FIL-007 to FIL-012 (`contents`).
        GeometryError: NRD-005 no orientation or no position (`nrrd_space`).
    """
    with damage_named(path), path.open("rb") as stream:
        header = parse_header(stream, path)
        axes = place_axes(header, path, channels_axis=channels_axis)
        if header.data_file:
            data = file_inside(path.parent, header.data_file, header=path, code="NRD-003")
            with damage_named(data), data.open("rb") as detached:
                samples = _read_samples(detached, header, data)
        else:
            samples = _read_samples(stream, header, path)
    in_file = samples.reshape(header.sizes[::-1]).T
    voxels = in_file[None] if axes.channel is None else np.moveaxis(in_file, axes.channel, 0)
    voxels = voxels.reshape((voxels.shape[0], *axes.geometry.shape))
    coloured = axes.channel is not None and header.kinds[axes.channel] in _COLOUR_KINDS
    channels = COLOURS if coloured and len(voxels) == 3 else channel_names(len(voxels))
    findings: list[Finding] = [*axes.findings, *not_finite(voxels, path.name)]
    return Volume(voxels, axes.geometry, channels, tuple(findings)), header.keys


def write_nrrd(
    volume: Volume, path: Path, *, keys: Mapping[str, str] | None = None, kind: str = "vector"
) -> None:
    """Write voxels, gzip-packed, with the affine of their geometry; nothing else unless in `keys`.

    Args:
        volume: what to write; several channels become the fastest axis.
        path: .nrrd.
        keys: `key:=value` pairs; line breaks become spaces.
        kind: what the channel axis is, when there are several channels.

    Raises:
        WriteError: NRD-030 numbers that NRRD cannot hold.
    """
    code = volume.voxels.dtype.str[1:]
    code = _WIDENED.get(code, code)
    if code not in _TYPE_NAMES:
        raise WriteError(f"{path}: voxels of type {volume.voxels.dtype}", code="NRD-030")
    several = len(volume.channels) > 1
    lps = lps_to_ras(volume.geometry.affine)
    directions = " ".join(_vector(lps[:3, axis]) for axis in range(3))
    sizes = " ".join(map(str, volume.geometry.shape))
    lines = [
        "NRRD0005",
        f"type: {_TYPE_NAMES[code]}",
        f"dimension: {3 + several}",
        "space: left-posterior-superior",
        f"sizes: {len(volume.channels)} {sizes}" if several else f"sizes: {sizes}",
        f"space directions: none {directions}" if several else f"space directions: {directions}",
        f"kinds: {kind} domain domain domain" if several else "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
        *(f"{key}:={' '.join(value.split())}" for key, value in (keys or {}).items()),
    ]
    in_file = volume.voxels.transpose(3, 2, 1, 0) if several else volume.voxels[0].T
    with written_whole(path) as stream:
        stream.write(("\n".join(lines) + "\n\n").encode())
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=_FAST, fileobj=stream, mtime=0
        ) as packed:
            packed.write(np.ascontiguousarray(in_file, dtype=f"<{code}").data)


def _vector(numbers: Array) -> str:
    return "(" + ",".join(repr(float(n)) for n in numbers) + ")"


def _read_samples(stream: BufferedIOBase, header: NrrdHeader, path: Path) -> Array:
    for _ in range(header.line_skip):
        if not stream.readline():
            raise truncated(path, f"found fewer than the {header.line_skip} lines to skip")
    if header.encoding == "text":
        return _read_text(stream, header, path)
    expected_bytes = header.num_numbers * header.numbers.itemsize
    if header.encoding == "bzip2":
        # An empty mask shrinks to next to nothing.
        require_room(path, expected_bytes, best_ratio=None)
    else:
        require_room(path, expected_bytes)
    with unpacked(stream, header.encoding) as plain:
        if header.byte_skip < 0:
            return _read_last(plain, header, path)
        plain.read(min(header.byte_skip, _MOST_SKIPPED_BYTES))
        samples = read_numbers(plain, header.num_numbers, kind=header.numbers, path=path)
        # The definition leaves no room for padding: more bytes mean another header in front.
        read_to_end(plain, path=path, padding_bytes=0)
    return samples


def _read_last(plain: BufferedIOBase, header: NrrdHeader, path: Path) -> Array:
    """Read the last bytes of a stream: `byte skip: -1`."""
    expected_bytes = header.num_numbers * header.numbers.itemsize
    found = plain.read(expected_bytes + _MOST_SKIPPED_BYTES + 1)
    if len(found) < expected_bytes:
        raise truncated(path, f"found {len(found)} bytes of samples, expected {expected_bytes}")
    if len(found) > expected_bytes + _MOST_SKIPPED_BYTES:
        raise ReadError(
            f"{path}: byte skip -1 would pass over more than {_MOST_SKIPPED_BYTES} bytes",
            code="NRD-006",
            hint="the header does not belong to this data file",
        )
    samples = np.frombuffer(bytearray(found[len(found) - expected_bytes :]), header.numbers)
    return samples.astype(header.numbers.newbyteorder("="), copy=False)


def _read_text(stream: BufferedIOBase, header: NrrdHeader, path: Path) -> Array:
    require_room(path, header.num_numbers)
    words = stream.read(header.num_numbers * _LONGEST_WORD).split()
    if len(words) != header.num_numbers:
        raise truncated(path, f"found {len(words)} numbers, expected {header.num_numbers}")
    parse = int if header.numbers.kind in "iu" else float
    try:
        return np.array([parse(word) for word in words], dtype=header.numbers)
    except (ValueError, OverflowError) as fault:
        raise ReadError(
            f"{path}: a sample is not of the declared type {header.numbers}: {fault}",
            code="NRD-002",
            hint="export the scan again",
        ) from fault
