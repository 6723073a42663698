"""PNG and JPEG: pixels as they are stored; resolution tags are not trusted, and pixels are pixels.

Array index i is the column (x) and j the row (y); a picture has one slice.
"""

import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from medseg.core.errors import ReadError, WriteError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry
from medseg.core.volume import Array, Volume
from medseg.io.contents import damage_named, require_room, truncated
from medseg.io.placement import image_affine
from medseg.io.voxels import COLOURS, channel_names, note
from medseg.runtime.files import write_with
from medseg.runtime.sandbox import SandboxError, call

# What Pillow raises on bytes that are not what they claim to be.
DAMAGED = (
    UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError,
    TypeError, AttributeError, OverflowError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
Palette = Literal["colours", "indices"]
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION = 274
# PNG colour types (PNG specification, section 11.2.1) with 16 bits that Pillow would cut to 8.
_DEEP_COLOUR = {2: 3, 6: 4}
_GRAY_ALPHA = 4
_NUM_SAMPLES = {2: 3, 4: 2, 6: 4}
# What sandboxes are asked for.
_JPEG = "medseg.io.picture_decoding:decode_jpeg"
_DEEP = "medseg.io.deep_colour:decode_deep_colour"
# SimpleITK takes threads, and address space for each, whatever the picture.
_CODEC_BYTES = 2 * 2**30
# Far below what any codec decodes in a second of processor time.
_BYTES_A_SECOND = 4e6


def read_picture(path: Path, *, palette: Palette = "colours") -> Volume:
    """Read a PNG or JPEG.

    Args:
        path: the file; gray, gray with alpha, RGB, RGBA or palette, of 1 to 16 bits.
        palette: expand a palette into colours (images) or keep its indices (label maps).

    Returns:
        One channel, or the channels red, green, blue; unit `px`, spacing 1. Findings: IMG-001 alpha
        left out, IMG-005 a camera orientation that was not applied.

    Raises:
        ReadError: IMG-002 damaged, IMG-003 colours that medseg does not read, IMG-004 an animation,
            IMG-009 a decoder that crashed or hung, FIL-007 truncated, FIL-009 too large.
    """
    findings: list[Finding] = []
    depth, colour, num_bytes = _check_png(path) if path_is_png(path) else (8, 0, 0)
    if depth == 16 and colour in _DEEP_COLOUR:
        pixels = decoded_apart(path, _DEEP, {}, num_bytes=num_bytes)
    elif depth == 16 and colour == _GRAY_ALPHA:
        raise ReadError(
            f"{path}: 16-bit gray with alpha; expected gray, RGB or RGBA at this depth",
            code="IMG-003",
            hint="save it without the alpha channel",
        )
    else:
        pixels = _read_pixels(path, palette, findings)
    pixels = without_alpha(pixels, path, findings)
    voxels = pixels.transpose(2, 1, 0)[..., None]
    geometry = Geometry((voxels.shape[1], voxels.shape[2], 1), image_affine(), "px")
    channels = COLOURS if len(voxels) == 3 else channel_names(len(voxels))
    return Volume(voxels, geometry, channels, tuple(findings))


def write_picture(pixels_IJ: Array, path: Path) -> None:
    """Write one slice of uint8 or uint16 as a gray PNG.

    Raises:
        WriteError: IMG-030 other numbers.
    """
    if pixels_IJ.dtype not in (np.uint8, np.uint16):
        raise WriteError(
            f"{path}: {pixels_IJ.dtype} pixels; a PNG holds uint8 or uint16",
            code="IMG-030",
            hint="write TIFF or NIfTI instead",
        )
    image = Image.fromarray(np.ascontiguousarray(pixels_IJ.T))
    write_with(lambda part: image.save(part, format="PNG"), path)


def without_alpha(pixels: Array, path: Path, findings: list[Finding]) -> Array:
    """Drop the second of two or the last of four samples: (rows, columns, samples)."""
    if pixels.shape[-1] in (2, 4):
        findings.append(note("IMG-001", path.name, "the alpha channel was left out"))
        return pixels[..., :-1]
    return pixels


def path_is_png(path: Path) -> bool:
    """Tell a PNG by its first bytes."""
    with damage_named(path), path.open("rb") as stream:
        return stream.read(len(_PNG_MAGIC)) == _PNG_MAGIC


def damaged(path: Path, fault: Exception) -> ReadError:
    """Return the refusal of a picture that a decoder gave up on."""
    return ReadError(
        f"{path}: cannot be decoded: {str(fault) or type(fault).__name__}",
        code="IMG-002",
        hint="copy or export the image again",
    )


def decoded_apart(
    path: Path, work: str, arguments: Mapping[str, object], *, num_bytes: int
) -> Array:
    """Let a native codec decode a picture, in a process that it cannot take with it.

    Args:
        path: the file.
        work: the function to ask for.
        arguments: its own, beside the path.
        num_bytes: the most that the pixels may take.

    Raises:
        ReadError: IMG-002, IMG-003, and IMG-009 a codec that crashed, or took too much time or
            memory.
    """
    try:
        return call(
            work,
            {"path": str(path.absolute()), **arguments},
            result_bytes=num_bytes,
            memory_bytes=_CODEC_BYTES + 4 * num_bytes,
            cpu_s=num_bytes / _BYTES_A_SECOND,
        )
    except SandboxError as fault:
        raise ReadError(
            f"{path}: its decoder {fault}",
            code="IMG-009",
            hint="export the image again; it is damaged, or made to do this",
        ) from fault


def _check_png(path: Path) -> tuple[int, int, int]:
    """Walk the chunks of a PNG and compare their checksums.

    Returns:
        Bit depth, colour type, and the bytes that its pixels take.
    """
    with damage_named(path):
        content = path.read_bytes()
    start, kind, first = len(_PNG_MAGIC), b"", b""
    while kind != b"IEND":
        if start + 12 > len(content):
            raise truncated(path, f"{len(content)} bytes and no end mark")
        (length,) = struct.unpack_from(">I", content, start)
        kind, end = content[start + 4 : start + 8], start + 8 + length
        first = first or content[start + 4 : end]
        if end + 4 > len(content):
            raise truncated(path, f"a chunk of {length} bytes ends after the file")
        if zlib.crc32(content[start + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise ReadError(
                f"{path}: the checksum of chunk {kind!r} is wrong",
                code="IMG-002",
                hint="copy or export the image again",
            )
        start = end + 4
    if len(first) != 17 or not first.startswith(b"IHDR"):
        raise ReadError(f"{path}: a PNG without a header", code="IMG-002")
    width, height, depth, colour = struct.unpack_from(">IIBB", first, 4)
    num_bytes = width * height * _NUM_SAMPLES.get(colour, 1) * max(depth // 8, 1)
    # Of a depth below 8, a byte holds several pixels.
    require_room(path, num_bytes * min(depth, 8) // 8)
    return depth, colour, num_bytes


def _read_pixels(path: Path, palette: Palette, findings: list[Finding]) -> Array:
    """Decode with Pillow: (rows, columns, samples)."""
    with warnings.catch_warnings():
        # Our own limit is the memory of the machine; whole-slide images pass Pillow's.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                require_room(path, image.width * image.height * len(image.getbands()))
                _require_still(image, path)
                if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
                    findings.append(_turned(path))
                if image.format == "JPEG":
                    num_bytes = image.width * image.height * 4
                    return decoded_apart(path, _JPEG, {"palette": palette}, num_bytes=num_bytes)
                return pixels_of(image, palette, path)
        except (Image.DecompressionBombError, *DAMAGED) as fault:
            raise damaged(path, fault) from fault


def pixels_of(image: Image.Image, palette: Palette, path: Path) -> Array:
    """Return the pixels of an opened image, (rows, columns, samples).

    Raises:
        ReadError: IMG-003 colours that medseg does not read.
    """
    if image.mode == "P" and palette == "colours":
        image = image.convert("RGB")
    if image.mode == "1":
        return np.asarray(image, dtype=np.uint8)[..., None]
    if image.mode not in ("L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "I", "F"):
        raise ReadError(
            f"{path}: colours {image.mode}; expected gray, RGB or a palette",
            code="IMG-003",
            hint="convert the image to RGB or gray",
        )
    pixels = np.array(image)
    pixels = pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _require_still(image: Image.Image, path: Path) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise ReadError(
            f"{path}: an animation of {frames} pictures; expected one",
            code="IMG-004",
            hint="export the pictures one by one, or as a TIFF stack",
        )


def _turned(path: Path) -> Finding:
    return Finding(
        code="IMG-005",
        severity="warning",
        subject=path.name,
        message="the camera's orientation tag asks viewers to turn the picture; it was not turned",
        hint="make sure that masks were drawn on the unturned picture",
    )
