"""Decoding of 16-bit colour, which Pillow cuts to 8 bits, by SimpleITK; called in a sandbox."""

from pathlib import Path

import numpy as np
import SimpleITK

from medseg.core.volume import Array
from medseg.io.images import damaged


def decode_deep_colour(path: str) -> Array:
    """Decode a PNG of 16-bit RGB or RGBA: (rows, columns, samples).

    Raises:
        ReadError: IMG-002, damaged.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("PNGImageIO")
    reader.SetFileName(path)
    try:
        return np.asarray(SimpleITK.GetArrayFromImage(reader.Execute()))
    except RuntimeError as fault:
        raise damaged(Path(path), ValueError("SimpleITK cannot decode it")) from fault
