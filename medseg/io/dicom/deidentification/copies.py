"""De-identified copies of DICOM files: everything written anew, nothing carried over by the byte.

Pixels are decoded and stored uncompressed, so that comments inside a compressed stream, overlays
in unused bits and bytes behind the last pixel stay behind with the rest of the file.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from medseg.core.errors import ReadError
from medseg.io.dicom.deidentification.deidentify import (
    Pseudonyms,
    Treatment,
    deidentify,
    refuse_burned_in,
)
from medseg.io.dicom.headers.attributes import unspoken, whole
from medseg.io.dicom.headers.scan import BROKEN
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.pixels.stored import open_pixels
from medseg.runtime.files import written_whole

Treated = Counter[tuple[str, str, Treatment]]


def write_copies(
    files: Sequence[DicomFile], folder: Path, pseudonyms: Pseudonyms, *, burned_in: bool = False
) -> Treated:
    """Write de-identified copies of the files of a series as `00001.dcm` and so on.

    Args:
        files: in the order in which the copies are numbered.
        folder: of the copies.
        pseudonyms: what takes the place of ids, UIDs and dates.
        burned_in: also copy images that may show the patient's name in their pixels.

    Returns:
        How many files each attribute was dropped from, emptied or replaced in.

    Raises:
        ReadError: PRV-003 text may be burned into the pixels; what the reader of pixels refuses.
        WriteError: the folder cannot be written.
    """
    treated: Treated = Counter()
    with unspoken():
        for number, file in enumerate(files, start=1):
            dataset = _header(file)
            if not burned_in:
                refuse_burned_in(dataset, name=file.name)
            done = deidentify(dataset, pseudonyms)
            treated.update(done.treated)
            _add_pixels(done.dataset, file)
            with written_whole(folder / f"{number:05d}.dcm") as stream:
                done.dataset.save_as(stream, enforce_file_format=True)
    return treated


def _header(file: DicomFile) -> Dataset:
    try:
        with file.open() as stream:
            return dcmread(stream, stop_before_pixels=True, force=True)
    except BROKEN as fault:
        raise ReadError(f"{file.name}: its header cannot be parsed", code="DCM-039") from fault


def _add_pixels(dataset: Dataset, file: DicomFile) -> None:
    """Store the pixels of a file as plain words, only the bits that count."""
    source = open_pixels(file)
    num_frames = whole(dataset, "NumberOfFrames", name=file.name) or 1
    signed = "i" if whole(dataset, "PixelRepresentation", name=file.name) else "u"
    kind = np.dtype(f"<{signed}{dataset.BitsAllocated // 8}")
    stored = b"".join(
        np.ascontiguousarray(source.frame(index), dtype=kind).tobytes()
        for index in range(num_frames)
    )
    dataset.PixelData = stored + b"\0" * (len(stored) % 2)
    dataset["PixelData"].VR = "OW" if kind.itemsize > 1 else "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
