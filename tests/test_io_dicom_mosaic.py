"""Siemens mosaics made in code: tiles become slices where the closed form puts them."""

import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from medseg.core.errors import MedsegError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Volume
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.seg.segmentation import write_seg
from medseg.io.dicom.series_writer import write_series

SHAPE = (6, 5, 7)  # 7 slices lie on 3 x 3 tiles
SIDE = 3
SPACING_MM = (2.0, 3.0, 4.0)


def csa_header(**fields):
    """A CSA header of the second kind, as scanners write it: named fields of padded text."""
    content = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, values in fields.items():
        content += struct.pack("<64si4siii", name.encode(), len(values), b"FD", 4, len(values), 77)
        for value in values:
            text = str(value).encode() + b"\0"
            content += struct.pack("<4i", len(text), len(text), 77, len(text))
            content += text + bytes(-len(text) % 4)
    return content


def write_mosaic(folder, voxels, *, normal=1.0, **changes):
    """One mosaic of a volume whose first voxel lies at (10, 20, 30) mm, LPS, axes along L, P, S."""
    columns, rows, num_slices = voxels.shape
    picture = np.zeros((SIDE * rows, SIDE * columns), np.int16)
    for k in range(num_slices):
        row, column = divmod(k, SIDE)
        top, left = row * rows, column * columns
        picture[top : top + rows, left : left + columns] = voxels[:, :, k].T
    scan = Volume(picture.T[None, :, :, None], Geometry((*picture.T.shape, 1), np.eye(4)))
    (path,) = write_series(scan, folder, modality="MR", patient_id="p", seed="x")
    dataset = pydicom.dcmread(path)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    dataset.Manufacturer = "SIEMENS"
    dataset.PixelSpacing, dataset.SpacingBetweenSlices = [3, 2], 4
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    beside_mm = ((SIDE - 1) * columns / 2 * 2, (SIDE - 1) * rows / 2 * 3)
    dataset.ImagePositionPatient = [10 - beside_mm[0], 20 - beside_mm[1], 30]
    fields = {"NumberOfImagesInMosaic": [num_slices], "SliceNormalVector": [0.0, 0.0, normal]}
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa_header(**{**fields, **changes}))
    dataset.save_as(path)
    return path


@pytest.fixture
def voxels(rng):
    return rng.integers(0, 4000, SHAPE).astype(np.int16)


@pytest.mark.parametrize("normal", [1.0, -1.0])
def test_tiles_become_slices_along_the_normal(voxels, tmp_path, normal):
    volume = read_dicom(write_mosaic(tmp_path, voxels, normal=normal))
    # Slices are read in the order of i x j; against it they come last to first.
    ordered = voxels if normal > 0 else voxels[:, :, ::-1]
    assert np.array_equal(volume.only_channel, ordered)
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])
    affine[:3, 3] = -10, -20, 30 if normal > 0 else 30 - 4 * (SHAPE[2] - 1)
    assert volume.geometry.matches(Geometry(SHAPE, affine), 1e-6)


def test_a_compressed_mosaic_is_decoded_once_and_reads_alike(voxels, tmp_path):
    path = write_mosaic(tmp_path, voxels)
    dataset = pydicom.dcmread(path)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(path)
    assert np.array_equal(read_dicom(path).only_channel, voxels)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"SliceNormalVector": []}, "does not say along which normal"),
        ({"SliceNormalVector": [0.0, 0.6, 0.8]}, "do not lie across its rows"),
        ({"NumberOfImagesInMosaic": []}, "does not say its NumberOfImagesInMosaic"),
        ({"NumberOfImagesInMosaic": [17]}, "cannot hold 17 tiles"),
    ],
)
def test_a_mosaic_that_does_not_say_how_it_is_made_is_refused_by_name(
    voxels, tmp_path, changes, why
):
    path = write_mosaic(tmp_path, voxels, **changes)
    with pytest.raises(ReadError, match=f"DCM-041 .* is a Siemens mosaic, .*{why}.* dcm2niix"):
        read_dicom(path)


def test_a_mosaic_without_its_private_header_is_refused_by_name(voxels, tmp_path):
    path = write_mosaic(tmp_path, voxels)
    dataset = pydicom.dcmread(path)
    dataset.remove_private_tags()
    dataset.save_as(path)
    with pytest.raises(ReadError, match=r"DCM-041 .* no CSA header"):
        read_dicom(path)


def test_a_seg_must_refer_to_slices_and_is_not_written_for_a_mosaic(voxels, tmp_path):
    path = write_mosaic(tmp_path / "scan", voxels)
    geometry = read_dicom(path).geometry
    mask = np.ones(SHAPE, np.uint8)
    with pytest.raises(WriteError, match=r"DCM-051 .* mosaic"):
        write_seg(
            mask, tmp_path / "m.dcm", geometry=geometry, labels=label_set({"a": 1}), source=path
        )


def test_damaged_private_headers_are_read_or_refused_and_nothing_else(voxels, tmp_path, rng):
    path = write_mosaic(tmp_path, voxels)
    whole = path.read_bytes()
    first, last = whole.index(b"SV10"), whole.index(b"SliceNormalVector") + 200
    codes = set()
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(first, last, 3):
            damaged[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))])
        path.write_bytes(damaged)
        try:
            read_dicom(path)
        except MedsegError as refusal:
            codes.add(refusal.code)
    assert "DCM-041" in codes


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_the_normal_means_what_it_means_to_dcm2niix(sign, shared_data, tmp_path):
    dataset = pydicom.dcmread(shared_data("dicom_transfer_syntax_dcmqa") / "In" / "1.dcm")
    header = dataset.private_block(0x0029, "SIEMENS CSA HEADER")[0x10]
    header.value = turned(bytearray(header.value), sign)
    (tmp_path / "in").mkdir()
    dataset.save_as(tmp_path / "in" / "a.dcm")
    program = Path(sys.executable).with_name("dcm2niix")
    line = [program, "-b", "n", "-z", "n", "-f", "a", "-o", tmp_path, tmp_path / "in"]
    subprocess.run(line, check=True, capture_output=True)
    image = nibabel.load(tmp_path / "a.nii")
    volume = read_dicom(tmp_path / "in")
    index = np.indices(volume.geometry.shape).reshape(3, -1).T
    inverse = np.linalg.inv(image.affine)
    found = volume.geometry.to_world(index.astype(float)) @ inverse[:3, :3].T + inverse[:3, 3]
    assert np.abs(found - np.rint(found)).max() < 1e-4
    expected = np.asarray(image.dataobj)[tuple(np.rint(found).astype(int).T)]
    assert np.array_equal(volume.only_channel.ravel(), expected)


def turned(content, sign):
    """Multiply the three numbers of the slice normal by a sign."""
    place = content.index(b"SliceNormalVector") + 84
    for _ in range(3):
        _, length, _, _ = struct.unpack_from("<4i", content, place)
        place += 16
        value = float(content[place : place + length].split(b"\0")[0])
        content[place : place + length] = f"{sign * value:.8f}".encode().ljust(length, b"\0")[
            :length
        ]
        place += -(-length // 4) * 4
    return bytes(content)
