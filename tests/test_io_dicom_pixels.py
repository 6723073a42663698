"""Stored values of frames: read from their place, or decoded apart; archives and limits."""

import subprocess
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from medseg.core.errors import ReadError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.headers.sources import DicomFile, find_files
from medseg.io.dicom.pixels import stored as pixels_module
from medseg.io.dicom.pixels.stored import open_pixels
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.series_writer import write_series
from medseg.runtime.sandbox import call

SHAPE = (6, 5, 4)


@pytest.fixture
def voxels():
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 60


@pytest.fixture
def folder(tmp_path, voxels):
    geometry = Geometry(SHAPE, np.diag([-0.8, -1.2, 2.0, 1.0]))
    write_series(
        Volume(voxels[None], geometry), tmp_path / "ct", modality="CT", patient_id="p", seed="x"
    )
    return tmp_path / "ct"


def rewrite(folder, change, **how):
    with warnings.catch_warnings():
        # pydicom announces what later versions of it will do; DICOM itself keeps big endian.
        warnings.simplefilter("ignore")
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path, **how)


def zipped(folder, method):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"study/{file.name}")
    return path


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_syntaxes_give_the_same_voxels(folder, voxels, syntax):
    def change(dataset):
        dataset.file_meta.TransferSyntaxUID = syntax

    rewrite(folder, change, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    assert np.array_equal(read_dicom(folder).only_channel, voxels)


def test_big_endian_gives_the_same_voxels(folder, voxels):
    for path in folder.iterdir():
        little = pydicom.dcmread(path)
        big = pydicom.Dataset()
        for element in little:
            big.add(element)
        big.file_meta = little.file_meta
        big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        big.PixelData = np.frombuffer(little.PixelData, "<i2").astype(">i2").tobytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            big.save_as(path, implicit_vr=False, little_endian=False)
    assert np.array_equal(read_dicom(folder).only_channel, voxels)


@pytest.mark.parametrize("bits", [5, 8, 12, 16, 21, 32])
@pytest.mark.parametrize("signed", [0, 1])
def test_any_number_of_stored_bits_is_read_as_pydicom_reads_it(tmp_path, folder, bits, signed, rng):
    path = next(folder.iterdir())
    dataset = pydicom.dcmread(path)
    allocated = 8 if bits <= 8 else 16 if bits <= 16 else 32
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    stored = rng.integers(low, high, (5, 6))
    words = (stored & ((1 << bits) - 1)).astype(f"<u{allocated // 8}")
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = signed
    dataset.PixelData = words.tobytes()
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    dataset.save_as(path)
    found = open_pixels(DicomFile(path)).frame(0)
    assert np.array_equal(found, stored)
    assert np.array_equal(found, pixel_array(dataset, raw=True))


def test_values_beyond_int32_stay_exact(folder):
    def change(dataset):
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 32, 32, 31
        dataset.PixelRepresentation = 0
        dataset.PixelData = np.full((5, 6), 2**32 - 5, "<u4").tobytes()

    rewrite(folder, change)
    found = read_dicom(folder).only_channel
    assert found.dtype == np.int64
    assert (found == 2**32 - 5).all()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_a_zip_of_any_common_method_reads_like_its_folder(folder, voxels, method, syntax):
    if syntax is not None:
        rewrite(folder, lambda dataset: dataset.compress(syntax, generate_instance_uid=False))
    assert np.array_equal(read_dicom(zipped(folder, method)).only_channel, voxels)


def test_a_header_longer_than_the_usual_is_read_from_a_zip(folder, voxels):
    rewrite(folder, lambda dataset: dataset.add_new(0x00091010, "OB", bytes(200_001 + 1)))
    assert np.array_equal(read_dicom(zipped(folder, zipfile.ZIP_DEFLATED)).only_channel, voxels)


def test_a_damaged_or_encrypted_member_is_refused_by_name(folder):
    path = zipped(folder, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    member = list(find_files(path))[2].member
    content[member.place + member.num_packed - 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ReadError, match=r"DCM-038 slice_0003\.dcm: cannot be unpacked from ct\.zip"
    ):
        read_dicom(path)
    content = path.read_bytes()
    # General purpose flags: byte 6 of a member's header, byte 8 of its entry in the list.
    first = content.index(b"PK\x01\x02")
    path.write_bytes(content[: first + 8] + b"\x01" + content[first + 9 :])
    with pytest.raises(ReadError, match="DCM-038"):
        read_dicom(path)


def test_a_deflated_file_that_would_fill_the_memory_is_refused(folder, monkeypatch):
    monkeypatch.setattr("medseg.io.dicom.headers.sources._MAX_INFLATED_BYTES", 2**20)

    def change(dataset):
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    rewrite(folder, change)
    path = sorted(folder.iterdir())[0]
    content = path.read_bytes()
    plain = zlib.decompress(content[body(content) :], -zlib.MAX_WBITS)
    pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(content[: body(content)] + pack.compress(plain + bytes(2**24)) + pack.flush())
    with pytest.raises(ReadError, match=r"DCM-038 slice_0001\.dcm: inflates to more than"):
        read_dicom(folder)


def body(content):
    return 144 + int.from_bytes(content[140:144], "little")


def test_uncompressed_pixels_need_no_sandbox(folder, voxels, monkeypatch):
    monkeypatch.setattr(pixels_module, "call", None)
    assert np.array_equal(read_dicom(folder).only_channel, voxels)


@pytest.mark.parametrize("end", ["crashed its process (exit code -11)", "took too much memory"])
def test_a_decoder_that_fails_hard_costs_one_series_and_is_named(folder, monkeypatch, end):
    def crash(*_, **__):
        raise pixels_module.SandboxError(end)

    rewrite(folder, lambda dataset: dataset.compress(JPEGLSLossless, generate_instance_uid=False))
    monkeypatch.setattr(pixels_module, "call", crash)
    with pytest.raises(ReadError) as caught:
        read_dicom(folder)
    assert str(caught.value).startswith("DCM-044 slice_0001.dcm frame 1: the decoder of JPEG-LS")
    assert end in str(caught.value)


def test_frames_that_decode_to_another_matrix_are_refused(folder):
    rewrite(folder, lambda dataset: dataset.compress(JPEGLSLossless, generate_instance_uid=False))

    def change(dataset):
        dataset.Rows, dataset.Columns = 4, 10

    rewrite(folder, change)
    with pytest.raises(ReadError, match="DCM-014"):
        read_dicom(folder)


@pytest.mark.parametrize(("keyword", "value"), [("Rows", 4), ("Columns", 5)])
def test_more_pixels_than_the_matrix_holds_are_refused_and_padding_is_not(folder, keyword, value):
    rewrite(folder, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData + bytes(2)))
    read_dicom(folder)
    rewrite(folder, lambda dataset: setattr(dataset, keyword, value))
    with pytest.raises(ReadError, match=r"DCM-015 slice_0001\.dcm: pixel data holds 62 bytes"):
        read_dicom(folder)


def test_compressed_fragments_under_a_plain_syntax_are_refused(folder):
    for path in folder.iterdir():
        content = path.read_bytes()
        # The element of the pixels: tag, representation, two empty bytes, then its length.
        place = content.index(b"\xe0\x7f\x10\x00OW") + 8
        path.write_bytes(content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :])
    with pytest.raises(ReadError, match=r"DCM-015 .* fragments, though the transfer syntax"):
        read_dicom(folder)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("allocated", "stored"), [(8, 7), (8, 8), (16, 7), (16, 12), (16, 16)])
@pytest.mark.parametrize("fragments", [1, 3])
def test_jpeg_ls_is_decoded_as_by_pydicom(folder, signed, allocated, stored, fragments):
    kind = f"{'i' if signed else 'u'}{allocated // 8}"
    low = -(1 << stored - 1) if signed else 0
    pixels = np.linspace(low, low + (1 << stored) - 1, 41 * 37).reshape(41, 37).astype(kind)
    path = next(folder.iterdir())
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
    dataset.PixelRepresentation = int(signed)
    dataset.set_pixel_data(pixels, "MONOCHROME2", stored, generate_instance_uid=False)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    frame = get_frame(dataset.PixelData, 0)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments, has_bot=fragments == 1)
    dataset.save_as(path)
    found = open_pixels(DicomFile(path)).frame(0)
    assert np.array_equal(found, pixels)
    assert np.array_equal(found, pixel_array(path, raw=True))


def test_common_jpeg_ls_takes_no_pydicom_in_its_sandbox(folder, voxels, monkeypatch):
    rewrite(folder, lambda dataset: dataset.compress(JPEGLSLossless, generate_instance_uid=False))
    asked = []

    def noted(work, arguments, **limits):
        asked.append(work)
        return call(work, arguments, **limits)

    monkeypatch.setattr(pixels_module, "call", noted)
    assert np.array_equal(read_dicom(folder).only_channel, voxels)
    assert set(asked) == {"medseg.io.dicom.pixels.jpeg_ls_frame:decode_only_frame"}
    code = "import sys, medseg.io.dicom.pixels.jpeg_ls_frame; sys.exit('pydicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
