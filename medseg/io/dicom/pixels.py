"""Stored values of frames: decoded, cut to the bits that count, refused by name when damaged."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, ImplicitVRLittleEndian

from medseg.core.errors import ReadError
from medseg.io.dicom.attributes import number, text, whole
from medseg.io.dicom.headers import BROKEN
from medseg.io.dicom.sources import DicomFile

Pixels = NDArray[np.integer[Any]]

_TAGS = [
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "NumberOfFrames",
    "PhotometricInterpretation", "PixelData", "PixelPaddingRangeLimit", "PixelPaddingValue",
    "PixelRepresentation", "PlanarConfiguration", "Rows", "SamplesPerPixel",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
]  # fmt: skip
# What a decoder, ours or a plug-in's, may raise on a damaged stream.
_UNDECODABLE = (*BROKEN, RuntimeError, ArithmeticError)
# The packages that decode what the installed plug-ins cannot, by transfer syntax.
_PACKAGES = {
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
}
_DEFAULT_PACKAGE = "pylibjpeg-openjpeg"
# Of this syntax, Pillow and GDCM decode only the 8-bit kind.
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_EXTENDED_PLUGIN, _EXTENDED_PACKAGE = "pylibjpeg", "pylibjpeg-libjpeg (licensed under the GPL)"


@dataclass(frozen=True, slots=True, eq=False)
class PixelFile:
    """The stored values of one file, decoded a frame at a time.

    Attributes:
        name: of the file, for messages.
        decoder: pydicom's, for the transfer syntax of the file.
        dataset: the attributes that decoding needs.
        packed: eight pixels share a byte, as in a binary SEG.
        inverted: the file is MONOCHROME1: the lowest value is the brightest.
        limits: lowest and highest value that the stored bits can express.
        padding: lowest and highest stored value that mark "no measurement"; None when undeclared.
    """

    name: str
    decoder: Decoder
    dataset: Dataset
    packed: bool
    inverted: bool
    limits: tuple[int, int]
    padding: tuple[int, int] | None

    def frame(self, index: int) -> Pixels:
        """Decode one frame, counted from 0: (rows, columns), before any rescaling.

        Raises:
            ReadError: DCM-014, a stream that cannot be decoded.
        """
        if self.packed:
            return _unpacked(self.dataset, index)
        try:
            pixels, _ = self.decoder.as_array(self.dataset, index=index, raw=True)
        except _UNDECODABLE as fault:
            syntax = self.decoder.UID.name
            raise ReadError(
                f"{self.name} frame {index + 1}: the {syntax} pixel stream cannot be decoded",
                code="DCM-014",
                hint="copy the file again; the stream is damaged",
            ) from fault
        return np.asarray(pixels)


def open_pixels(file: DicomFile) -> PixelFile:
    """Read the pixels of a file, ready to be decoded.

    Raises:
        ReadError: DCM-010 bits that do not lie at the low end, DCM-013 a transfer syntax that
            cannot be decoded here, DCM-015 no or too few bytes of pixels.
    """
    try:
        with file.open() as stream:
            dataset = dcmread(stream, specific_tags=_TAGS, force=True)
            # Elements are parsed when first asked for: have it out here.
            dataset.get("PixelData")
    except BROKEN as fault:
        raise ReadError(
            f"{file.name}: breaks off before the end of its pixels",
            code="DCM-015",
            hint="copy the file again",
        ) from fault
    syntax = _syntax_of(dataset)
    signed = bool(whole(dataset, "PixelRepresentation", name=file.name))
    bits = _bits_of(dataset, file.name)
    decoder = _decoder_of(syntax, file.name, bits=bits)
    _require_whole(dataset, syntax, file.name)
    return PixelFile(
        name=file.name,
        decoder=decoder,
        dataset=dataset,
        packed=dataset.BitsAllocated == 1 and not syntax.is_encapsulated,
        inverted=text(dataset, "PhotometricInterpretation") == "MONOCHROME1",
        limits=(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1),
        padding=_padding_of(dataset, file.name, bits=bits, signed=signed),
    )


def _unpacked(dataset: Dataset, index: int) -> Pixels:
    """Return a frame of bits; frames follow each other without a gap (PS3.5 8.1.1 and D)."""
    shape = int(dataset.Rows), int(dataset.Columns)
    first, last = index * shape[0] * shape[1], (index + 1) * shape[0] * shape[1]
    # pydicom 3.0.2 loses bits of single frames that do not begin at a byte.
    data = np.frombuffer(dataset.PixelData, np.uint8)[first // 8 : -(-last // 8)]
    bits = np.unpackbits(data, bitorder="little")[first % 8 :][: last - first]
    return np.asarray(bits.reshape(shape))


def _syntax_of(dataset: Dataset) -> UID:
    found = text(dataset.file_meta, "TransferSyntaxUID")
    return UID(found) if found else ImplicitVRLittleEndian


def _decoder_of(syntax: UID, name: str, *, bits: int) -> Decoder:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as fault:
        raise ReadError(
            f"{name}: transfer syntax {syntax.name} ({syntax}) cannot be decoded by any package",
            code="DCM-013",
            hint="it is retired or not for images; convert the series with its own software",
        ) from fault
    package = "" if decoder.is_available else _PACKAGES.get(syntax, _DEFAULT_PACKAGE)
    if syntax == _JPEG_EXTENDED and bits > 8 and _EXTENDED_PLUGIN not in decoder.available_plugins:
        package = _EXTENDED_PACKAGE
    if package:
        raise ReadError(
            f"{name}: transfer syntax {syntax.name} ({syntax}) of {bits} bits needs a "
            "decoder that is not here",
            code="DCM-013",
            hint=f"pip install {package}",
        )
    return decoder


def _require_whole(dataset: Dataset, syntax: UID, name: str) -> None:
    """Refuse missing and truncated pixel data; compressed streams are found out by decoding."""
    if "PixelData" not in dataset or not dataset.PixelData:
        raise ReadError(f"{name}: holds no pixel data", code="DCM-015", hint="copy the file again")
    if syntax.is_compressed and not syntax.is_deflated:
        return
    shape = [whole(dataset, key, name=name) or 1 for key in ("Rows", "Columns", "NumberOfFrames")]
    bits = whole(dataset, "BitsAllocated", name=name) or 8
    expected = -(-int(np.prod(shape, dtype=np.int64)) * bits // 8)
    found = len(dataset.PixelData)
    if found < expected:
        raise ReadError(
            f"{name}: pixel data is cut short: {found} bytes, expected {expected}",
            code="DCM-015",
            hint="copy the file again",
        )


def _bits_of(dataset: Dataset, name: str) -> int:
    allocated = whole(dataset, "BitsAllocated", name=name) or 0
    stored = whole(dataset, "BitsStored", name=name) or allocated
    high = whole(dataset, "HighBit", name=name)
    if not 1 <= stored <= allocated <= 32 or (high is not None and high != stored - 1):
        raise ReadError(
            f"{name}: {stored} bits stored in {allocated} with high bit {high}, expected at most "
            "32 bits at the low end of each word",
            code="DCM-010",
        )
    return stored


def _padding_of(dataset: Dataset, name: str, *, bits: int, signed: bool) -> tuple[int, int] | None:
    """Return the range of stored values that stand for "no measurement" (PS3.3 C.7.5.1.1.2)."""
    first = number(dataset, "PixelPaddingValue", name=name)
    if first is None:
        return None
    last = number(dataset, "PixelPaddingRangeLimit", name=name)
    ends = [_as_stored(int(end), bits=bits, signed=signed) for end in (first, last or first)]
    return min(ends), max(ends)


def _as_stored(value: int, *, bits: int, signed: bool) -> int:
    """Read a value as the pixels are read, whatever sign its own representation claims."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value
