"""Decoding of compressed frames, which runs native code on foreign bytes: called in a sandbox only.

`stored` asks for it; here the file is opened again, since it is read faster than it is sent.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian

from medseg.io.dicom.headers.attributes import text, unspoken
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.headers.zip_members import Member

_KEYWORDS = [
    "BitsAllocated", "BitsStored", "Columns", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "HighBit", "NumberOfFrames", "PhotometricInterpretation", "PixelData", "PixelRepresentation",
    "PlanarConfiguration", "Rows", "SamplesPerPixel",
]  # fmt: skip
_TAGS = [Tag(keyword) for keyword in _KEYWORDS]


def decode_frame(path: str, member: dict[str, Any] | None, index: int, ticket: int) -> NDArray[Any]:
    """Decode one frame by pydicom and the decoders that it finds.

    Args:
        path: the file, or the archive.
        member: the fields of the archive's member; None for a plain file.
        index: of the frame, from 0.
        ticket: of whoever asks; a file is read again for another one.

    Returns:
        Stored values, (rows, columns), before any rescaling.

    Raises:
        ReadError: DCM-038, the file cannot be read.
    """
    with unspoken():
        return decode(
            _kept(DicomFile(Path(path), Member(**member) if member else None), ticket), index
        )


def decode(dataset: Dataset, index: int) -> NDArray[Any]:
    """Decode one frame of a data set."""
    found = text(dataset.file_meta, "TransferSyntaxUID")
    decoder = get_decoder(UID(found) if found else ImplicitVRLittleEndian)
    # pydicom would ask GDCM first, which ends its process over streams that others refuse.
    plugins = sorted(decoder.available_plugins, key=lambda name: name == "gdcm")
    pixels, _ = decoder.as_array(
        dataset, index=index, raw=True, decoding_plugin=plugins[0] if plugins else ""
    )
    return np.asarray(pixels)


def dataset_with_pixels(file: DicomFile) -> Dataset:
    """Read what decoding needs.

    Raises:
        ReadError: DCM-038, the file cannot be read.
    """
    with file.open() as stream:
        dataset = dcmread(stream, specific_tags=_TAGS, force=True)
        # Elements are parsed when first asked for: have it out here.
        dataset.get("PixelData")
    return dataset


@lru_cache(maxsize=1)
def _kept(file: DicomFile, _ticket: int) -> Dataset:
    # Frames of one file are asked for in a row.
    return dataset_with_pixels(file)
