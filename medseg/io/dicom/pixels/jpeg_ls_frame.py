"""Decoding of JPEG-LS as nearly all files have it, by CharLS alone: called in a sandbox only.

A process that loads no more than this is at work in a third of the time that one with pydicom
takes. What is not as most files have it fails here, and is asked of `decoding` again.
"""

from pathlib import Path
from struct import Struct
from typing import Any

import jpeg_ls
import numpy as np
from numpy.typing import NDArray

_ITEM_HEAD = Struct("<LL")
_ITEM, _SEQUENCE_END = 0xE000FFFE, 0xE0DDFFFE


def decode_only_frame(
    path: str,
    *,
    first: int,
    shape: tuple[int, int],
    allocated: int,
    stored: int | None,
    signed: bool,
) -> NDArray[np.integer[Any]]:
    """Decode the only frame of a file.

    Args:
        path: the file.
        first: byte at which the value of the pixel data begins.
        shape: rows and columns of the frame.
        allocated: bits that a pixel takes.
        stored: bits of these that count.
        signed: stored values are two's complement.

    Returns:
        Stored values, (rows, columns), before any rescaling; the same as of `decoding`.

    Raises:
        ValueError: the stream is not what most files have, or not what the header says.
        RuntimeError: CharLS refuses the stream.
    """
    with Path(path).open("rb") as stream:
        stream.seek(first)
        pixels, told = jpeg_ls.decode_pixel_data(_joined(stream.read()))
    bits = told["bits_per_sample"]
    expected = (*shape, 1, stored, allocated)
    if (told["height"], told["width"], told["components"], bits, -(-bits // 8) * 8) != expected:
        raise ValueError("the stream is not that of the header")
    if signed and bits < allocated:
        # JPEG-LS knows no sign, so that it stands within the word.
        raise ValueError("signs to be moved")
    kind = np.dtype(f"<{'i' if signed else 'u'}{allocated // 8}")
    return np.frombuffer(pixels, kind).reshape(shape)


def _joined(value: bytes) -> bytes:
    """Join the fragments of encapsulated pixel data that hold one frame (PS3.5 A.4).

    Raises:
        ValueError: a table of offsets for several frames, or a sequence without its end.
        struct.error: the value ends before that.
    """
    at, fragments = 0, []
    while True:
        tag, length = _ITEM_HEAD.unpack_from(value, at)
        at += _ITEM_HEAD.size
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or at + length > len(value):
            raise ValueError("no fragments")
        fragments.append(value[at : at + length])
        at += length
    table, *frame = fragments
    if table not in (b"", bytes(4)):
        raise ValueError("several frames")
    return b"".join(frame)
