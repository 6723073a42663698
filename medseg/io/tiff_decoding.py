"""Decoding of packed TIFF pages, called in a sandbox only; `tiff` asks for it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from medseg.core.errors import ReadError
from medseg.core.volume import Array
from medseg.io.images import damaged, pixels_of
from medseg.io.tiff import BROKEN, samples_last

# Pillow has these codecs, which tifffile has only with an extra.
_PILLOW_CODECS = ("LZW", "JPEG", "CCITTFAX3", "CCITTFAX4", "CCITTRLE")


def decode_pages(path: str, pages: Sequence[int]) -> Array:
    """Decode pages by their numbers from 0: (pages, rows, columns, samples).

    Raises:
        ReadError: IMG-002 damaged, IMG-003 pixels that no decoder here unpacks.
    """
    try:
        with tifffile.TiffFile(path) as file:
            return np.stack([_decoded(file.pages[page].aspage(), Path(path)) for page in pages])
    except BROKEN as fault:
        raise damaged(Path(path), fault) from fault


def _decoded(page: tifffile.TiffPage, path: Path) -> Array:
    if page.compression.name not in _PILLOW_CODECS:
        return samples_last(page, np.asarray(page.asarray()))
    if page.bitspersample > 8 and (page.bitspersample != 16 or page.samplesperpixel > 1):
        raise ReadError(
            f"{path}: {page.bitspersample}-bit pixels packed as {page.compression.name}",
            code="IMG-003",
            hint="save it uncompressed or with deflate",
        )
    with Image.open(path, formats=("TIFF",)) as image:
        image.seek(page.index)
        return pixels_of(image, "indices", path)
