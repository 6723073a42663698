"""A search for markers in everything that commands wrote: names, bytes, and what is packed."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.canary_set import MARKERS, PATHS

# Attributes that a DICOM object shares with the scan it was drawn on (docs/privacy.md).
SHARED = frozenset(
    {
        "PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "SeriesInstanceUID", "SOPInstanceUID",
    }
)  # fmt: skip
# A dataset's own papers, which say where its files lie.
_NAMING_FILES = ("manifest.json", "check.json")
_KINDS = ("seg", "rtstruct", "sr")
# What may be found where, below the work folder: the list of docs/privacy.md. The manifest of
# de-identified copies is not in it, nor is anything that a training or a tracking store holds.
ALLOWED = {
    **{f"{data}/{name}": PATHS for data in ("tree", "listed", "found") for name in _NAMING_FILES},
    **{
        f"{masks}/*.{kind}.dcm": SHARED for masks in ("exported", "listed masks") for kind in _KINDS
    },
    "home/ids/*.csv": frozenset({"PatientID", "SeriesInstanceUID"}),
}
# What `check source=` shows on the screen, so that a series can be chosen.
SHOWN = PATHS | {"SeriesDescription"}


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """A marker that was found: the field it was put into, the file, and whether it may be there."""

    place: str
    field: str
    allowed: bool


def search(folder: Path) -> Iterator[Hit]:
    """Look for every marker in the names and contents of all files below a folder."""
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        contents = [place.encode(), *_contents(_bytes_of(path))]
        for field in _fields_in(contents):
            yield Hit(place, field, _may(place, field))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        # A tracker that still sends removes its locks and journals.
        return b""


def fields_in(text: str) -> list[str]:
    """Name the fields whose markers stand in a text, such as what commands printed."""
    return _fields_in([text.encode()])


def _fields_in(contents: list[bytes]) -> list[str]:
    lowered = [content.lower() for content in contents]
    return [
        field
        for field, marker in MARKERS.items()
        if any(marker.lower().encode() in content for content in lowered)
    ]


def _may(place: str, field: str) -> bool:
    return any(fnmatch(place, name) and field in fields for name, fields in ALLOWED.items())


def _contents(content: bytes) -> Iterator[bytes]:
    """Go through the bytes of a file, and those of what is packed in it."""
    yield content
    if content[:2] == b"\x1f\x8b":
        yield from _contents(gzip.decompress(content))
    elif content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from _contents(archive.read(name))
    elif (start := content.find(b"\n\n")) > 0 and content[:4] == b"NRRD":
        if content[start + 2 : start + 4] == b"\x1f\x8b":
            yield gzip.decompress(content[start + 2 :])
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _png_texts(content)


def _png_texts(content: bytes) -> Iterator[bytes]:
    """Go through the packed texts of a PNG (zTXt, iTXt): a keyword, then a zlib stream."""
    place = 8
    while place + 8 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 :][:4]
        if kind in (b"zTXt", b"iTXt"):
            body = content[place + 8 : place + 8 + length]
            for start in (n for n, byte in enumerate(body) if byte == 0x78):
                try:
                    yield zlib.decompress(body[start:])
                except zlib.error:
                    continue
        place += length + 12
