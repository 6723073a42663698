"""The text header of an NRRD file, checked field by field before any voxel is read.

Fields and rules are those of "Definition of NRRD File Format" (teem.sourceforge.net/nrrd).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.errors import ReadError

_MAGIC = re.compile(rb"NRRD000[1-5]\s*$")
_LONGEST_HEADER = 2**20
_VECTOR = re.compile(r"none|\(([^()]*)\)")
_HINT = "export the scan again; the header contradicts the NRRD definition"

_INTEGERS = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
}
_NUMBERS = {name: kind for kind, names in _INTEGERS.items() for name in names.split(",")}
_NUMBERS |= {"float": "f4", "double": "f8"}
_ENCODINGS = {
    "raw": "raw", "txt": "text", "text": "text", "ascii": "text",
    "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2",
}  # fmt: skip

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NrrdHeader:
    """What an NRRD header says; sizes and vectors agree in number.

    Attributes:
        sizes: samples along each axis, the fastest first.
        numbers: number type and byte order in the file.
        encoding: `raw`, `gzip`, `bzip2` or `text`.
        kinds: what each axis is (`domain`, `vector`, `RGB-color`, ...), lower case; "" unknown.
        space: name of the world coordinates, lower case; "" when there is none.
        directions: step along each axis in space; None for an axis outside space.
        origin: position of the first sample; None when absent.
        spacings: step along each axis without a space; NaN where absent.
        units: unit of each world axis; () when absent.
        data_file: name of the file that holds the samples; "" when they follow the header.
        line_skip: lines to skip before the samples, before unpacking.
        byte_skip: bytes to skip after unpacking; -1: all but the last that the samples need.
        keys: the `key:=value` pairs.
    """

    sizes: tuple[int, ...]
    numbers: np.dtype[Any]
    encoding: str
    kinds: tuple[str, ...]
    space: str = ""
    directions: tuple[Vector | None, ...] = ()
    origin: Vector | None = None
    spacings: Vector = ()
    units: tuple[str, ...] = ()
    data_file: str = ""
    line_skip: int = 0
    byte_skip: int = 0
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def num_numbers(self) -> int:
        """How many numbers the samples take."""
        return prod(self.sizes)


def parse_header(stream: BufferedIOBase, path: Path) -> NrrdHeader:
    """Read and check a header; leave the stream at the first byte after it.

    Raises:
        ReadError: NRD-001 not an NRRD header, NRD-002 a field that is missing or not what the
            definition asks for.
    """
    fields, keys = _read_lines(stream, path)
    read = _Fields(fields, path)
    sizes = tuple(read.whole_numbers("sizes"))
    count = read.whole_numbers("dimension")
    if count != [len(sizes)] or not 1 <= len(sizes) <= 16 or min(sizes) < 1:
        raise _fault(path, "sizes", fields.get("sizes", ""), "one positive number an axis")
    directions = read.vectors("space directions", len(sizes))
    origins = read.vectors("space origin", 1)
    encoding = read.choice("encoding", _ENCODINGS)
    return NrrdHeader(
        sizes=sizes,
        numbers=_number_type(read, encoding),
        encoding=encoding,
        kinds=read.words("kinds", len(sizes)),
        space=fields.get("space", "").strip().lower(),
        directions=directions,
        origin=origins[0] if origins else None,
        spacings=read.numbers("spacings", len(sizes)),
        units=tuple(re.findall(r'"([^"]*)"', fields.get("space units", ""))),
        data_file=(fields.get("data file") or fields.get("datafile") or "").strip(),
        line_skip=read.skip("line skip", least=0),
        byte_skip=read.skip("byte skip", least=-1),
        keys=keys,
    )


def _read_lines(stream: BufferedIOBase, path: Path) -> tuple[dict[str, str], dict[str, str]]:
    if not _MAGIC.match(stream.readline(64)):
        raise ReadError(
            f"{path}: not an NRRD file: its first line is not NRRD0001 to NRRD0005",
            code="NRD-001",
            hint="copy or export the file again",
        )
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    length = 0
    while line := stream.readline(_LONGEST_HEADER):
        length += len(line)
        text = line.decode("utf-8", errors="replace").rstrip("\r\n")
        if not text:
            break
        if length > _LONGEST_HEADER:
            raise ReadError(
                f"{path}: the header does not end within {_LONGEST_HEADER} bytes",
                code="NRD-001",
                hint="copy or export the file again",
            )
        if text.startswith("#"):
            continue
        # "key:=value" holds anything; "field: value" is what the definition speaks of.
        name, mark, value = text.partition(":=") if _is_key(text) else text.partition(":")
        if not mark:
            raise _fault(path, "header line", text[:60], "`field: value` or `key:=value`")
        (keys if mark == ":=" else fields)[name if mark == ":=" else name.lower()] = value
    return fields, keys


def _is_key(text: str) -> bool:
    return text.find(":=") == text.find(":") >= 0


@dataclass(frozen=True, slots=True)
class _Fields:
    """Fields as text, read as what the definition says they hold."""

    text: dict[str, str]
    path: Path

    def choice(self, name: str, choices: dict[str, str]) -> str:
        value = self.text.get(name, "").strip().lower()
        if value not in choices:
            raise _fault(self.path, name, value, f"one of {', '.join(choices)}")
        return choices[value]

    def whole_numbers(self, name: str) -> list[int]:
        return self._parsed(name, lambda text: [int(word) for word in text.split()], "integers")

    def skip(self, name: str, *, least: int) -> int:
        joined = name.replace(" ", "")
        known = name if name in self.text or joined not in self.text else joined
        if known not in self.text:
            return 0
        found = self.whole_numbers(known)
        if len(found) != 1 or found[0] < least:
            raise _fault(self.path, name, self.text[known], f"a number from {least}")
        return found[0]

    def numbers(self, name: str, count: int) -> Vector:
        if name not in self.text:
            return ()
        found = self._parsed(name, lambda text: [float(word) for word in text.split()], "numbers")
        return tuple(self._counted(name, found, count))

    def words(self, name: str, count: int) -> tuple[str, ...]:
        if name not in self.text:
            return ("",) * count
        found = [word.replace("???", "").lower() for word in self.text[name].split()]
        return tuple(self._counted(name, found, count))

    def vectors(self, name: str, count: int) -> tuple[Vector | None, ...]:
        if name not in self.text:
            return ()
        found = self._parsed(name, _vectors, "vectors such as (1,0,0)")
        return tuple(self._counted(name, found, count))

    def _counted(self, name: str, found: list[Any], count: int) -> list[Any]:
        if len(found) != count:
            raise _fault(self.path, name, self.text[name], f"{count} entries")
        return found

    def _parsed(self, name: str, parse: Callable[[str], list[Any]], expected: str) -> list[Any]:
        value = self.text.get(name, "").strip()
        try:
            return parse(value)
        except ValueError as fault:
            raise _fault(self.path, name, value, expected) from fault


def _vectors(text: str) -> list[Vector | None]:
    return [
        None if inside[0] == "none" else tuple(float(n) for n in inside[1].split(","))
        for inside in _VECTOR.finditer(text)
    ]


def _number_type(read: _Fields, encoding: str) -> np.dtype[Any]:
    kind = np.dtype(read.choice("type", _NUMBERS))
    if kind.itemsize == 1 or encoding == "text":
        return kind
    order = read.choice("endian", {"little": "little", "big": "big"})
    return kind.newbyteorder("<" if order == "little" else ">")


def _fault(path: Path, name: str, found: str, expected: str) -> ReadError:
    return ReadError(
        f"{path}: {name}: found {found[:80]!r}, expected {expected}", code="NRD-002", hint=_HINT
    )
