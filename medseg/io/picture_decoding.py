"""Decoding of JPEG by Pillow's native codec, called in a sandbox only; `images` asks for it."""

from pathlib import Path

from PIL import Image

from medseg.core.volume import Array
from medseg.io.images import DAMAGED, Palette, damaged, pixels_of


def decode_jpeg(path: str, palette: Palette) -> Array:
    """Decode a JPEG: (rows, columns, samples).

    Raises:
        ReadError: IMG-002 damaged, IMG-003 colours that medseg does not read.
    """
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return pixels_of(image, palette, Path(path))
    except DAMAGED as fault:
        raise damaged(Path(path), fault) from fault
