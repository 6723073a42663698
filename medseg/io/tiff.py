"""TIFF: pictures, and stacks of pages as volumes; written as stacks.

Array index i is the column (x), j the row (y) and k the page; the unit is `px`. Pages are read one
by one: what a description says about files beside this one is never followed.
"""

import logging
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from medseg.core.errors import ReadError, WriteError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry
from medseg.core.volume import Array, Volume
from medseg.io.contents import LZW_RATIO, damage_named, require_room, truncated
from medseg.io.images import DAMAGED, Palette, damaged, decoded_apart, without_alpha
from medseg.io.placement import image_affine
from medseg.io.voxels import COLOURS, channel_names, not_finite, note
from medseg.runtime.files import write_with

# What the library repairs and logs is refused here by name, in one line.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

BROKEN = (*DAMAGED, ZeroDivisionError, RuntimeError)
# What a sandbox is asked for: packed pages may unpack to anything.
_DECODE = "medseg.io.tiff_decoding:decode_pages"
_COLOURED = ("RGB", "YCBCR")
_TONES = ("MINISBLACK", "MINISWHITE", "PALETTE", *_COLOURED)
_KINDS = "uifb"


def read_tiff(path: Path, *, palette: Palette = "colours") -> Volume:
    """Read a TIFF picture or stack.

    Args:
        path: gray, RGB or RGBA, integers or floats; pages of one size are slices. An ImageJ
            hyperstack may hold channels.
        palette: `indices` keeps the indices of a palette (label maps); `colours` refuses them.

    Returns:
        One channel, or red green blue, or channel_0, channel_1, ... Findings: IMG-001 alpha left
        out, IMG-006 thumbnails left out, IMG-007 white was stored as 0 and is inverted, FIL-014.

    Raises:
        ReadError: IMG-002 damaged, IMG-003 colours or numbers that medseg does not read, IMG-008
            pages of several sizes or time points, IMG-009 a decoder that crashed or hung, FIL-007
            truncated, FIL-009 too large.
    """
    findings: list[Finding] = []
    linked = _count_directories(path)
    try:
        with tifffile.TiffFile(path) as file:
            if len(file.pages) != linked:
                raise truncated(path, f"{len(file.pages)} pages can be read of {linked}")
            pages = _full_pages(file, path, findings)
            _require_readable(pages, path, palette)
            num_channels = _num_channels(file, len(pages), path)
            samples = _samples(pages, path)
            photometric = pages[0].photometric.name
    except BROKEN as fault:
        raise damaged(path, fault) from fault
    if photometric == "MINISWHITE":
        findings.append(note("IMG-007", path.name, "white was stored as 0; gray was inverted"))
        samples = _inverted(samples)
    if samples.shape[-1] == 2 or photometric in _COLOURED:
        samples = without_alpha(samples, path, findings)
    # ImageJ's order of pages: channels fastest, then slices.
    by_slice = samples.reshape((-1, num_channels, *samples.shape[1:]))
    voxels = by_slice.transpose(1, 4, 3, 2, 0).reshape(
        (-1, samples.shape[2], samples.shape[1], len(by_slice))
    )
    findings.extend(not_finite(voxels, path.name))
    coloured = len(voxels) == 3 and photometric in _COLOURED
    return Volume(
        voxels,
        Geometry((voxels.shape[1], voxels.shape[2], voxels.shape[3]), image_affine(), "px"),
        COLOURS if coloured else channel_names(len(voxels)),
        tuple(findings),
    )


def write_tiff(voxels_IJK: Array, path: Path) -> None:
    """Write slices as pages, packed, without description, date or resolution.

    Raises:
        WriteError: IMG-030 numbers that a TIFF cannot hold.
    """
    if voxels_IJK.dtype.kind not in _KINDS:
        raise WriteError(f"{path}: {voxels_IJK.dtype} pixels", code="IMG-030")
    pages = np.ascontiguousarray(voxels_IJK.T)
    write_with(
        lambda part: tifffile.imwrite(
            part,
            pages,
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            software=False,
        ),
        path,
    )


def _count_directories(path: Path) -> int:
    """Follow the chain of page directories to its end (TIFF 6.0, section 2; BigTIFF)."""
    with damage_named(path):
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(16).ljust(16, b"\0")
            order = "<" if head[:2] == b"II" else ">"
            big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
            count_code, next_code, entry_bytes = ("Q", "Q", 20) if big else ("H", "I", 12)
            (offset,) = struct.unpack_from(f"{order}{next_code}", head, 8 if big else 4)
            seen: set[int] = set()
            while offset:
                stream.seek(min(offset, size))
                raw = stream.read(struct.calcsize(count_code))
                if offset in seen or len(raw) < struct.calcsize(count_code):
                    raise truncated(path, f"page {len(seen) + 1} begins at byte {offset} of {size}")
                seen.add(offset)
                (entries,) = struct.unpack(f"{order}{count_code}", raw)
                stream.seek(min(entries * entry_bytes, size), 1)
                raw = stream.read(struct.calcsize(next_code))
                if len(raw) < struct.calcsize(next_code):
                    raise truncated(path, f"the directory of page {len(seen)} ends after the file")
                (offset,) = struct.unpack(f"{order}{next_code}", raw)
    return len(seen)


def _full_pages(
    file: tifffile.TiffFile, path: Path, findings: list[Finding]
) -> list[tifffile.TiffPage]:
    """Return the pages without thumbnails, all of one size and type."""
    # `aspage` gives full pages where the library would keep light frames.
    every = [page.aspage() for page in file.pages]
    pages = [page for page in every if not page.is_reduced]
    if len(pages) < len(every):
        found = f"{len(every) - len(pages)} of {len(every)} pages are thumbnails and were left out"
        findings.append(note("IMG-006", path.name, found))
    kinds = {(page.shape, str(page.dtype), page.axes, page.photometric) for page in pages}
    if len(kinds) != 1:
        sizes = ", ".join(sorted({"x".join(map(str, kind[0])) for kind in kinds})) or "none"
        raise ReadError(
            f"{path}: pages of several sizes or types ({sizes}); expected one kind",
            code="IMG-008",
            hint="save each picture, or one resolution of the pyramid, as a file of its own",
        )
    return pages


def _require_readable(pages: Sequence[tifffile.TiffPage], path: Path, palette: Palette) -> None:
    page = pages[0]
    tone = page.photometric.name
    kind = page.dtype.kind if page.dtype is not None else "?"
    wrong_palette = tone == "PALETTE" and palette == "colours"
    if tone not in _TONES or wrong_palette or kind not in _KINDS:
        raise ReadError(
            f"{path}: pixels {tone} of type {page.dtype}; expected gray or RGB numbers",
            code="IMG-003",
            hint="convert the image to gray or RGB",
        )
    if page.axes not in ("YX", "YXS", "SYX"):
        raise ReadError(
            f"{path}: pages with axes {page.axes}; expected rows, columns and samples",
            code="IMG-008",
            hint="save it as a stack of pages",
        )
    num_bytes = len(pages) * int(np.prod(page.shape, dtype=object)) * page.dtype.itemsize
    require_room(path, num_bytes, best_ratio=LZW_RATIO)
    size = path.stat().st_size
    for number, each in enumerate(pages, start=1):
        parts = list(zip(each.dataoffsets, each.databytecounts, strict=True))
        expected = int(np.prod(each.chunked, dtype=object))
        whole = [length > 0 and start + length <= size for start, length in parts]
        if len(parts) != expected or not all(whole):
            raise truncated(path, f"page {number}: {sum(whole)} of {expected} parts are there")


def _num_channels(file: tifffile.TiffFile, num_pages: int, path: Path) -> int:
    """Tell how many pages make a slice, from what ImageJ or OME wrote."""
    about = file.imagej_metadata or {}
    channels, frames = int(about.get("channels", 1)), int(about.get("frames", 1))
    slices = int(about.get("slices", num_pages // max(channels, 1)))
    if file.is_ome:
        ome = str(file.ome_metadata)
        found = [int(n) for n in re.findall(r'Size[CT]="(\d{1,9})"', ome)]
        samples = [int(n) for n in re.findall(r'SamplesPerPixel="(\d{1,9})"', ome)]
        frames = max([n for n in found if n not in samples], default=1)
    if frames != 1 or channels < 1 or channels * slices != num_pages:
        raise ReadError(
            f"{path}: {num_pages} pages for {channels} channels, {slices} slices and {frames} "
            "time points or OME channels; expected one time point",
            code="IMG-008",
            hint="save each time point (or OME channel) as a file of its own",
        )
    return channels


def _samples(pages: Sequence[tifffile.TiffPage], path: Path) -> Array:
    """Return the pixels of all pages, (pages, rows, columns, samples)."""
    if all(page.compression.name == "NONE" for page in pages):
        return np.stack([samples_last(page, page.asarray()) for page in pages])
    # Four samples of eight bytes are the most that any codec makes of a pixel.
    num_bytes = sum(32 * int(page.imagewidth) * int(page.imagelength) for page in pages)
    numbers = {"pages": [int(page.index) for page in pages]}
    return decoded_apart(path, _DECODE, numbers, num_bytes=num_bytes)


def samples_last(page: tifffile.TiffPage, pixels: Array) -> Array:
    """Return the pixels of a page as (rows, columns, samples)."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    if page.axes == "YX":
        return pixels[..., None]
    return pixels if page.axes == "YXS" else np.moveaxis(pixels, 0, -1)


def _inverted(samples: Array) -> Array:
    if samples.dtype.kind == "u":
        return np.asarray(np.iinfo(samples.dtype).max - samples)
    return np.asarray(samples.max() - samples)
