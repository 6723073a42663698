"""DICOM series that are odd, incomplete or broken: rows 1 to 36 of the table of bad inputs.

A healthy series is written and bent file by file; what the good ones among them should read as is
known from how they were made, and read back by nibabel.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid

from benchmarks.bad_images import NOTED, REFUSED, RIGHT, BadImage
from benchmarks.ct_series import (
    AFFINE,
    Edit,
    edit_file,
    only,
    setting,
    truth,
    voxels_of,
    write_ct,
)
from benchmarks.trial import Want

_MPEG = UID("1.2.840.10008.1.2.4.102")
_JPEG_12_BIT = UID("1.2.840.10008.1.2.4.51")
# Writes a series into a folder; returns what it should read as, where that is not the healthy one.
Make = Callable[[Path], Path | None]
Listed = tuple[int, str, Make, tuple[Want, ...]]


def bad_dicom(folder: Path) -> Iterator[BadImage]:
    """Write the series, one after the other, and yield what they are."""
    scan = voxels_of(1)
    good = truth(folder / "truth" / "good.nii", scan)
    listed = (*_stacks(), *_values(), *_attributes(), *_files())
    for number, (row, name, make, wants) in enumerate(listed):
        place = folder / f"ct_{number}"
        made = make(place)
        yield BadImage(
            row=row,
            name=name,
            path=place,
            wants=wants,
            twin=made or good,
        )


def _stacks() -> Iterator[Listed]:
    """Positions, orientations and matrices of slices."""
    scan = voxels_of(1)
    tilted = AFFINE.copy()
    tilted[1, 2] = -0.5

    def without(number: int) -> Make:
        return lambda folder: write_ct(folder, scan)[number].unlink()

    def copied(**changes: object) -> Make:
        def make(folder: Path) -> None:
            first = write_ct(folder, scan)[4]
            copy = folder / "copy.dcm"
            copy.write_bytes(first.read_bytes())
            changed = {"SOPInstanceUID": generate_uid(), **changes}
            edit_file(copy, lambda dataset: setting(**changed)(0, dataset))

        return make

    def moved(k: int, dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [-20, -30 + 0.5 * k, -40 + 2 * k]

    def tilt(folder: Path) -> Path:
        write_ct(folder, scan, edit=moved)
        return truth(folder.with_name("truth") / "tilted.nii", scan, tilted)

    def lone(folder: Path) -> Path:
        for path in write_ct(folder, scan)[1:]:
            path.unlink()
        return truth(folder.with_name("truth") / "lone.nii", scan[:, :, :1])

    scout = {
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
    }
    slightly, clearly = [1, 4e-5, 0, -4e-5, 1, 0], [1, 1e-3, 0, -1e-3, 1, 0]
    last = only(17, setting(ImagePositionPatient=[-20, -30, -5.2]))
    yield 1, "a slice missing", without(5), REFUSED
    yield 1, "the last slice 0.8 mm off", _edited(last), REFUSED
    yield 2, "a slice twice", copied(), NOTED
    yield 2, "two slices at one place", copied(PixelData=bytes(20 * 22 * 2)), REFUSED
    yield 4, "a localizer inside the series", copied(**scout), NOTED
    yield 5, "gantry tilt", tilt, NOTED
    for name, cosines, wants in (("4e-5", slightly, NOTED), ("1e-3", clearly, REFUSED)):
        turned = only(3, setting(ImageOrientationPatient=cosines))
        yield 20, f"orientation off by {name}", _edited(turned), wants
    yield 21, "a slice of another matrix", _edited(only(3, _smaller)), REFUSED
    yield 22, "instance numbers against positions", _edited(_backwards), RIGHT
    yield 23, "thickness is not the distance", _edited(setting(SliceThickness="5")), RIGHT
    yield 24, "rows and columns of another distance", _edited(setting()), RIGHT
    yield 35, "a single slice", lone, ("refused", "noted")


def _values() -> Iterator[Listed]:
    """Stored values: rescaled, cut, turned or padded."""
    scan = voxels_of(1)

    def long(_k: int, dataset: pydicom.Dataset) -> None:
        # As an unknown value it is written unchecked; readers know its representation.
        position = b"\\".join(b"%+.17f" % float(mm) for mm in dataset.ImagePositionPatient)
        dataset.add_new((0x0020, 0x0032), "UN", position + b" " * (len(position) % 2))

    def varying(folder: Path) -> Path:
        def edit(k: int, dataset: pydicom.Dataset) -> None:
            dataset.RescaleSlope, dataset.RescaleIntercept = str(1 + 0.5 * k), str(k)

        write_ct(folder, scan, edit=edit)
        k = np.arange(scan.shape[2])
        values = (scan * (1 + 0.5 * k) + k).astype(np.float32)
        return truth(folder.with_name("truth") / "varying.nii", values)

    def shifted(folder: Path) -> Path:
        write_ct(folder, scan, edit=setting(RescaleIntercept="1024"))
        return truth(folder.with_name("truth") / "shifted.nii", scan + np.int16(1024))

    def inverted(folder: Path) -> Path:
        attributes = {"PhotometricInterpretation": "MONOCHROME1", "Modality": "MR"}
        write_ct(folder, scan, edit=setting(**attributes))
        return truth(folder.with_name("truth") / "inverted.nii", (-1 - scan).astype(np.int16))

    def padded(folder: Path) -> Path:
        def edit(_k: int, dataset: pydicom.Dataset) -> None:
            pixels = np.frombuffer(dataset.PixelData, "<i2").copy()
            pixels[:5] = -2000
            dataset.PixelData = pixels.tobytes()
            dataset.add_new("PixelPaddingValue", "SS", -2000)

        write_ct(folder, scan, edit=edit)
        expected = scan.copy()
        expected[:5, 0] = -1024
        return truth(folder.with_name("truth") / "padded.nii", expected)

    unscaled = _without("RescaleSlope", "RescaleIntercept")
    dark = setting(PhotometricInterpretation="MONOCHROME1")
    yield 6, "decimals of more than 16 characters", _edited(long), RIGHT
    yield 7, "slope and intercept of each slice", varying, RIGHT
    yield 8, "slope 0", _edited(setting(RescaleSlope="0")), REFUSED
    yield 8, "no slope and no intercept", _edited(unscaled), RIGHT
    yield 8, "a CT that is not in HU", shifted, NOTED
    yield 9, "12 bits with a sign", _edited(_twelve_bits(junk=0)), RIGHT
    yield 10, "junk above the stored bits", _edited(_twelve_bits(junk=0xF000)), RIGHT
    yield 11, "MONOCHROME1, measured", _edited(dark), NOTED
    yield 11, "MONOCHROME1, not measured", inverted, NOTED
    yield 32, "padding below air", padded, NOTED


def _attributes() -> Iterator[Listed]:
    """Attributes that are missing, foreign, or of another kind of object."""

    def foreign(_k: int, dataset: pydicom.Dataset) -> None:
        dataset.add_new(0x00100010, "PN", "Müller^Jörg=影像")
        dataset.add_new(0x00080005, "CS", "ISO_IR 999")

    colours = {
        "SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage, "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": bytes(20 * 22 * 3),
    }  # fmt: skip
    odd_frame = only(3, setting(FrameOfReferenceUID="1.2.3"))
    yield 18, "no position", _edited(_without("ImagePositionPatient")), REFUSED
    yield 18, "no orientation", _edited(_without("ImageOrientationPatient")), REFUSED
    yield 19, "no pixel spacing", _edited(_without("PixelSpacing")), REFUSED
    yield 26, "a colour capture", _edited(setting(**colours)), REFUSED
    yield 31, "names in another character set", _edited(foreign), RIGHT
    yield 33, "two frames of reference", _edited(odd_frame), REFUSED
    for modality in ("SEG", "RTSTRUCT", "PR"):
        yield 34, f"{modality} as a scan", _edited(setting(Modality=modality)), REFUSED


def _files() -> Iterator[Listed]:
    """Bytes: encodings, and files that are broken or none."""
    scan = voxels_of(1)

    def beside(name: str, content: bytes) -> Make:
        def make(folder: Path) -> None:
            write_ct(folder, scan)
            (folder / name).write_bytes(content)

        return make

    def cut(folder: Path) -> None:
        path = write_ct(folder, scan)[5]
        path.write_bytes(path.read_bytes()[:-301])

    def nothing(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "readme.txt").write_text("scans will follow")

    def enormous(folder: Path) -> None:
        path, *others = write_ct(folder, scan)
        for other in others:
            other.unlink()
        edit_file(path, lambda dataset: setting(Rows=65535, Columns=65535)(0, dataset))
        with path.open("r+b") as stream:
            # A hole: of the 8 GiB that the header asks for, the disk holds none.
            stream.truncate(2 * 65535**2 + 2000)

    yield 12, "RLE", _edited(_packed(RLELossless)), RIGHT
    yield 13, "JPEG 2000", _edited(_packed_by_wavelets), RIGHT
    yield 13, "JPEG-LS", _edited(_packed(JPEGLSLossless)), RIGHT
    yield 13, "a film", _edited(_garbage(_MPEG)), REFUSED
    yield 13, "JPEG of 12 bits", _edited(_garbage(_JPEG_12_BIT)), REFUSED
    yield 14, "a stream of garbage", _edited(only(4, _garbage(JPEGLSLossless))), REFUSED
    yield 15, "pixels cut short", cut, REFUSED
    yield 15, "no pixels", _edited(only(4, _without("PixelData"))), REFUSED
    yield 27, "Thumbs.db beside it", beside("Thumbs.db", b"\xd0\xcf\x11\xe0" * 200), NOTED
    yield 27, "a PDF beside it", beside("report.pdf", b"%PDF-1.4" + bytes(300)), NOTED
    yield 28, "an empty .dcm beside it", beside("slice_0099.dcm", b""), REFUSED
    yield 29, "no preamble", _bare, NOTED
    yield 30, "a folder without DICOM", nothing, REFUSED
    yield 36, "8 GiB a slice", enormous, REFUSED


def _edited(edit: Edit) -> Make:
    """Make the healthy series, each slice of it edited."""

    def make(folder: Path) -> None:
        write_ct(folder, voxels_of(1), edit=edit)

    return make


def _without(*keywords: str) -> Edit:
    def edit(_k: int, dataset: pydicom.Dataset) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return edit


def _smaller(_k: int, dataset: pydicom.Dataset) -> None:
    dataset.Rows, dataset.PixelData = 10, bytes(20 * 10 * 2)


def _backwards(k: int, dataset: pydicom.Dataset) -> None:
    dataset.InstanceNumber = 100 - 3 * k


def _twelve_bits(*, junk: int) -> Edit:
    def edit(_k: int, dataset: pydicom.Dataset) -> None:
        stored = np.frombuffer(dataset.PixelData, "<i2").astype(np.int64)
        words = (stored & 0xFFF) | junk
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 1
        dataset.PixelData = words.astype("<u2").tobytes()

    return edit


def _packed(syntax: UID) -> Edit:
    return lambda _k, dataset: dataset.compress(syntax, generate_instance_uid=False)


def _packed_by_wavelets(_k: int, dataset: pydicom.Dataset) -> None:
    pixels = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
    dataset.PixelRepresentation, dataset.RescaleIntercept = 0, "-2000"
    stream = io.BytesIO()
    unsigned = Image.fromarray((pixels.astype(np.int32) + 2000).astype(np.uint16))
    unsigned.save(stream, format="JPEG2000", no_jp2=True, num_resolutions=1)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless


def _garbage(syntax: UID) -> Edit:
    def edit(_k: int, dataset: pydicom.Dataset) -> None:
        dataset.PixelData = encapsulate([bytes(range(200))])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax

    return edit


def _bare(folder: Path) -> None:
    for path in write_ct(folder, voxels_of(1)):
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
