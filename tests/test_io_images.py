"""PNG, JPEG and TIFF: pixels as stored, columns first, and nothing guessed about their size."""

import contextlib
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from medseg.core.errors import GeometryError, MedsegError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Volume
from medseg.io.formats import read_label_map, read_volume, write_label_map, write_volume
from medseg.io.placement import image_affine
from medseg.runtime.sandbox import SandboxError

COLOURS = ("red", "green", "blue")


@pytest.fixture
def gray(rng):
    return rng.integers(0, 255, (4, 6)).astype(np.uint8)


@pytest.fixture
def colour(rng):
    return rng.integers(0, 255, (4, 6, 4)).astype(np.uint8)


def refusal(path: Path) -> MedsegError:
    with pytest.raises(MedsegError) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return caught.value


def codes(volume: Volume) -> list[str]:
    return [finding.code for finding in volume.findings]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_gray_of_8_and_16_bits_lies_where_simpleitk_puts_it(tmp_path, gray, suffix, kind):
    pixels = gray.astype(kind) * (200 if kind == np.uint16 else 1)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path)
    scan = read_volume(path)
    assert np.array_equal(scan.voxels, pixels.T[None, ..., None])
    assert scan.geometry.unit == "px"
    image = SimpleITK.ReadImage(path)
    for index in ((0, 0), (5, 3)):
        x, y = image.TransformIndexToPhysicalPoint(index)
        world = scan.geometry.to_world(np.array([[*index, 0]], dtype=float))[0]
        assert np.allclose(world, (-x, -y, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_left_out_and_noted(tmp_path, colour, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(colour).save(path)
    scan = read_volume(path)
    assert np.array_equal(scan.voxels[..., 0], colour[..., :3].T)
    assert (scan.channels, codes(scan)) == (COLOURS, ["IMG-001"])
    Image.fromarray(colour[..., :2], mode=None).save(path)
    scan = read_volume(path)
    assert np.array_equal(scan.only_channel[..., 0], colour[..., 0].T)
    assert codes(scan) == ["IMG-001"]


def test_colours_are_red_green_blue(tmp_path, colour):
    Image.fromarray(colour[..., :3]).save(tmp_path / "image.png")
    scan = read_volume(tmp_path / "image.png")
    assert scan.channels == COLOURS
    assert np.array_equal(scan.voxels[..., 0], colour[..., :3].T)


@pytest.mark.parametrize("samples", [3, 4])
def test_16_bit_colours_keep_16_bits(tmp_path, rng, samples):
    pixels = rng.integers(0, 65535, (4, 6, samples)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2 if samples == 3 else 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    path = tmp_path / "image.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    scan = read_volume(path)
    assert np.array_equal(scan.voxels[..., 0], pixels[..., :3].T)
    assert scan.voxels.dtype == np.uint16


def test_a_palette_is_colours_in_a_scan_and_indices_in_a_mask(tmp_path):
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "mask.png")
    scan = read_volume(tmp_path / "mask.png")
    assert scan.voxels[:, 1, 0, 0].tolist() == [255, 0, 0]
    mask = read_label_map(tmp_path / "mask.png", label_set({"a": 1, "b": 2}))
    assert np.array_equal(mask.only_channel[..., 0], indices.T)


def test_a_black_and_white_picture_is_zeros_and_ones(tmp_path):
    mask = np.array([[True, False, True]])
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert read_volume(tmp_path / "mask.png").only_channel[:, 0, 0].tolist() == [1, 0, 1]


def test_resolution_tags_are_not_trusted_and_a_declared_size_is(tmp_path, gray):
    path = tmp_path / "image.png"
    Image.fromarray(gray).save(path, dpi=(300, 300))
    assert read_volume(path).geometry.spacing_mm == (1, 1, 1)
    scan = read_volume(path, spacing_mm=(0.1, 0.2, 1))
    assert (scan.geometry.unit, scan.geometry.spacing_mm) == ("mm", (0.1, 0.2, 1))


def test_a_declared_size_that_a_scan_contradicts_is_refused(tmp_path):
    path = tmp_path / "scan.nii"
    write_volume(Volume(np.zeros((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4))), path)
    assert read_volume(path, spacing_mm=(1, 1, 1)).geometry.unit == "mm"
    with pytest.raises(GeometryError, match="FIL-013"):
        read_volume(path, spacing_mm=(1, 1, 2))


@pytest.mark.parametrize("kind", ["u1", "u2", "f4", "i2"])
@pytest.mark.parametrize("packed", [None, "zlib"])
def test_pages_are_slices(tmp_path, rng, kind, packed):
    stack = (rng.random((5, 4, 6)) * 100).astype(kind)
    predicted = packed is not None and kind != "f4"
    tifffile.imwrite(tmp_path / "stack.tif", stack, compression=packed, predictor=predicted)
    scan = read_volume(tmp_path / "stack.tif")
    assert np.array_equal(scan.only_channel, stack.T)
    assert scan.voxels.dtype == np.dtype(kind)


def test_an_imagej_hyperstack_gives_slices_and_channels(tmp_path, rng):
    stack = rng.integers(0, 9, (5, 2, 4, 6)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    scan = read_volume(tmp_path / "stack.tif")
    assert np.array_equal(scan.voxels, stack.transpose(1, 3, 2, 0))


@pytest.mark.parametrize(
    ("axes", "settings"),
    [("TYX", {"imagej": True}), ("CYX", {"ome": True}), ("TYX", {"ome": True})],
)
def test_time_points_and_ome_channels_are_refused(tmp_path, axes, settings):
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, np.zeros((5, 4, 6), np.uint8), metadata={"axes": axes}, **settings)
    assert refusal(path).code == "IMG-008"


def test_an_ome_stack_of_slices_is_read(tmp_path, rng):
    stack = rng.integers(0, 9, (5, 4, 6)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, ome=True, metadata={"axes": "ZYX"})
    assert np.array_equal(read_volume(tmp_path / "s.ome.tif").only_channel, stack.T)


def test_thumbnails_are_left_out_and_pages_of_several_sizes_refused(tmp_path, gray):
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(gray)
        file.write(gray[::2, ::2], subfiletype=1)
    assert codes(read_volume(path)) == ["IMG-006"]
    with tifffile.TiffWriter(path) as file:
        file.write(gray)
        file.write(gray[::2, ::2])
    assert refusal(path).code == "IMG-008"


def test_white_stored_as_zero_is_inverted_and_noted(tmp_path, gray):
    tifffile.imwrite(tmp_path / "image.tif", gray, photometric="miniswhite")
    scan = read_volume(tmp_path / "image.tif")
    assert np.array_equal(scan.only_channel[..., 0], 255 - gray.T)
    assert codes(scan) == ["IMG-007"]


def test_lzw_pages_are_read_and_deep_lzw_colours_refused(tmp_path, gray):
    Image.fromarray(gray).save(tmp_path / "image.tif", compression="tiff_lzw")
    assert np.array_equal(read_volume(tmp_path / "image.tif").only_channel[..., 0], gray.T)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("kept", [0.98, 0.6, 0.3])
def test_a_truncated_picture_is_refused(tmp_path, rng, suffix, kept):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert refusal(path).code in ("FIL-007", "IMG-002")


def test_a_tiff_whose_chain_of_pages_is_cut_is_refused(tmp_path, rng):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, rng.integers(0, 9, (5, 4, 6)).astype(np.uint8), metadata=None)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset = file.pages[2].offset
    (entries,) = struct.unpack_from("<H", content, offset)
    struct.pack_into("<I", content, offset + 2 + 12 * entries, 10**6)
    path.write_bytes(bytes(content))
    assert refusal(path).code == "FIL-007"


def test_a_wrong_checksum_in_a_png_is_refused(tmp_path, gray):
    path = tmp_path / "image.png"
    Image.fromarray(gray).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 4
    path.write_bytes(bytes(content))
    assert refusal(path).code == "IMG-002"


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "i.jpg"), ("CMYK", "i.tif"), ("LAB", "i.tif")])
def test_other_colours_are_refused(tmp_path, mode, name):
    Image.new(mode, (8, 8)).save(tmp_path / name)
    assert refusal(tmp_path / name).code == "IMG-003"


def test_an_animation_is_refused(tmp_path, gray):
    first, second = Image.fromarray(gray), Image.fromarray(255 - gray)
    first.save(tmp_path / "i.png", save_all=True, append_images=[second])
    assert refusal(tmp_path / "i.png").code == "IMG-004"


def test_a_camera_orientation_is_told_and_not_applied(tmp_path, colour):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(colour[..., :3]).save(tmp_path / "photo.jpg", exif=exif)
    scan = read_volume(tmp_path / "photo.jpg")
    assert scan.geometry.shape == (6, 4, 1)
    assert codes(scan) == ["IMG-005"]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("value", [2, 300])
def test_masks_of_pictures_come_back_as_they_were(tmp_path, rng, suffix, value):
    labels = label_set({"a": 1, "b": value})
    label_map_IJK = rng.integers(0, 3, (6, 4, 1)).astype(np.uint8)
    path = tmp_path / f"mask.{suffix}"
    geometry = Geometry((6, 4, 1), image_affine(), "px")
    write_label_map(label_map_IJK, path, geometry=geometry, labels=labels)
    assert np.array_equal(read_label_map(path, labels).only_channel, label_map_IJK)
    stored = np.array([0, 1, value])[label_map_IJK[..., 0].T]
    assert np.array_equal(np.asarray(Image.open(path)), stored)


def test_a_picture_does_not_take_what_has_a_place_in_space(tmp_path):
    placed = Geometry((6, 4, 1), np.diag([1.0, 1, 2, 1]))
    for volume, name in (
        (Volume(np.zeros((1, 6, 4, 1), np.uint8), placed), "a.png"),
        (Volume(np.zeros((1, 6, 4, 1), np.uint8), placed), "a.tif"),
        (Volume(np.zeros((1, 6, 4, 2), np.uint8), Geometry((6, 4, 2), image_affine())), "b.png"),
    ):
        with pytest.raises(WriteError, match="FIL-022"):
            write_volume(volume, tmp_path / name)
    floats = Volume(np.zeros((1, 6, 4, 1)), Geometry((6, 4, 1), image_affine()))
    with pytest.raises(WriteError, match="IMG-030"):
        write_volume(floats, tmp_path / "c.png")


def test_a_mask_in_colours_is_refused_unless_they_are_gray(tmp_path, rng):
    labels = label_set({"a": 1})
    mask = rng.integers(0, 2, (4, 6)).astype(np.uint8)
    Image.fromarray(np.stack([mask] * 3, axis=-1)).save(tmp_path / "gray.png")
    assert np.array_equal(
        read_label_map(tmp_path / "gray.png", labels).only_channel[..., 0], mask.T
    )
    Image.fromarray(np.stack([mask, mask, 1 - mask], axis=-1)).save(tmp_path / "colour.png")
    with pytest.raises(MedsegError, match="LBL-004"):
        read_label_map(tmp_path / "colour.png", labels)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_a_codec_that_fails_hard_costs_one_picture(tmp_path, monkeypatch, rng, suffix):
    pixels = rng.integers(0, 2**16, (9, 8, 3), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), path)
    else:
        options = {"compression": "jpeg"} if suffix == "tif" else {}
        Image.fromarray(pixels.astype(np.uint8)).save(path, **options)
    read_volume(path)

    def crash(*_, **__):
        raise SandboxError("crashed its process (exit code -11)")

    monkeypatch.setattr("medseg.io.images.call", crash)
    with pytest.raises(ReadError, match=r"IMG-009 .*its decoder crashed its process"):
        read_volume(path)


def test_a_tiff_that_unpacks_to_more_than_it_says_takes_no_memory_of_ours(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64)
    bomb = zlib.compress(bytes(2**28), 1)
    with tifffile.TiffFile(path) as file:
        places = {tag.name: tag.valueoffset for tag in file.pages[0].tags}
    content = bytearray(path.read_bytes())
    start, count = places["StripOffsets"], places["StripByteCounts"]
    content[start : start + 4] = struct.pack("<I", len(content))
    content[count : count + 4] = struct.pack("<I", len(bomb))
    path.write_bytes(bytes(content) + bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(MedsegError):
        read_volume(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
