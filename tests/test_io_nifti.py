"""NIfTI: the right geometry or one coded refusal; nibabel and SimpleITK as oracles."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.core.errors import GeometryError, MedsegError, ReadError, WriteError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.formats import read_volume, write_volume
from medseg.io.nifti_write import write_nifti

AFFINE = np.array([[-0.7, 0.1, 0, 90], [0.1, 0.7, 0.2, -120], [0, -0.1, 2.5, 40], [0, 0, 0, 1.0]])
# Byte offsets in nifti1.h.
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET = 40, 70, 72, 76, 108
SLOPE, INTERCEPT, UNITS, QFORM_CODE, SFORM_CODE, SROW, MAGIC = 112, 116, 123, 252, 254, 280, 344


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def rigid_affine() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation(20) @ np.diag([-0.8, 0.8, 3.0])
    affine[:3, 3] = (10, -20, 30)
    return affine


@pytest.fixture
def voxels(rng):
    return rng.integers(-1000, 2000, (5, 6, 7)).astype(np.int16)


def saved(path: Path, voxels, affine=None, *, kind=nibabel.Nifti1Image, codes=(1, 1)) -> Path:
    affine = rigid_affine() if affine is None else affine
    image = kind(voxels, affine, dtype=voxels.dtype)
    image.set_sform(affine, code=codes[0])
    image.set_qform(affine, code=codes[1])
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def patched(path: Path, offset: int, form: str, *values) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(bytes(content))
    return path


def codes_of(volume: Volume) -> set[str]:
    return {finding.code for finding in volume.findings}


def refusal(path: Path, **settings) -> MedsegError:
    with pytest.raises(MedsegError) as caught:
        read_volume(path, **settings)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name.split(".")[0] in text
    return caught.value


def test_geometry_and_voxels_equal_nibabels_and_simpleitks(tmp_path, voxels):
    path = saved(tmp_path / "scan.nii.gz", voxels)
    scan = read_volume(path)
    image = SimpleITK.ReadImage(path)
    corner = np.array([image.TransformIndexToPhysicalPoint((4, 5, 6))]) * (-1, -1, 1)
    assert np.array_equal(scan.geometry.affine, nibabel.load(path).affine)
    assert np.allclose(scan.geometry.corners[-1], corner, atol=1e-4)
    assert np.array_equal(scan.only_channel, voxels)
    assert scan.findings == ()


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_read_alike(tmp_path, voxels, kind, order):
    image = kind(voxels, rigid_affine(), header=kind.header_class(endianness=order))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "scan.nii")
    scan = read_volume(tmp_path / "scan.nii")
    assert np.array_equal(scan.only_channel, voxels)
    assert np.allclose(scan.geometry.affine, rigid_affine(), atol=1e-5)
    assert scan.voxels.dtype.isnative


def test_an_hdr_img_pair_reads_from_either_half(tmp_path, voxels):
    nibabel.save(nibabel.Nifti1Pair(voxels, rigid_affine()), tmp_path / "scan.img")
    for name in ("scan.hdr", "scan.img"):
        assert np.array_equal(read_volume(tmp_path / name).only_channel, voxels)
    (tmp_path / "alone.img").write_bytes((tmp_path / "scan.img").read_bytes())
    assert refusal(tmp_path / "alone.img").code == "NII-009"
    (tmp_path / "scan.img").unlink()
    assert refusal(tmp_path / "scan.hdr").code == "NII-009"


def test_row_37_neither_sform_nor_qform_is_refused(tmp_path, voxels):
    path = saved(tmp_path / "scan.nii", voxels, codes=(0, 0))
    assert refusal(path).code == "NII-010"


def test_row_38_sform_wins_and_disagreement_is_told(tmp_path, voxels):
    path = saved(tmp_path / "scan.nii", voxels)
    patched(path, SROW + 12, "<f", 10.5)
    scan = read_volume(path)
    assert scan.geometry.affine[0, 3] == 10.5
    assert codes_of(scan) == {"NII-013"}
    assert "0.5 mm" in scan.findings[0].message


def test_row_38_disagreement_below_a_thousandth_of_a_mm_is_the_same_grid(tmp_path, voxels):
    path = patched(saved(tmp_path / "scan.nii", voxels), SROW + 12, "<f", 10.0005)
    assert read_volume(path).findings == ()


def test_a_qform_alone_is_read_as_nibabel_reads_it(tmp_path, voxels):
    path = saved(tmp_path / "scan.nii", voxels, codes=(0, 2))
    scan = read_volume(path)
    assert np.allclose(scan.geometry.affine, nibabel.load(path).get_qform(), atol=1e-6)
    assert np.allclose(scan.geometry.affine, rigid_affine(), atol=1e-5)


def test_row_39_a_sheared_affine_is_kept(tmp_path, voxels):
    path = saved(tmp_path / "scan.nii", voxels, AFFINE, codes=(1, 0))
    assert np.allclose(read_volume(path).geometry.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
def test_row_40_left_handed_and_oblique_corners_lie_within_a_thousandth_of_a_mm(
    tmp_path, voxels, flip
):
    affine = rigid_affine() @ np.diag([*flip, 1])
    scan = read_volume(saved(tmp_path / "scan.nii", voxels, affine))
    assert scan.geometry.corner_error_mm(Geometry((5, 6, 7), affine)) < 1e-3


@pytest.mark.parametrize("srow", [[np.nan] * 4, [0.0] * 4])
def test_row_41_a_broken_sform_falls_back_to_the_qform_and_says_so(tmp_path, voxels, srow):
    path = patched(saved(tmp_path / "scan.nii", voxels), SROW, "<4f", *srow)
    scan = read_volume(path)
    assert np.allclose(scan.geometry.affine, rigid_affine(), atol=1e-5)
    assert codes_of(scan) == {"NII-012"}
    assert str(tmp_path) not in str(scan.findings)


def test_row_41_a_broken_sform_without_a_qform_is_refused(tmp_path, voxels):
    path = patched(saved(tmp_path / "scan.nii", voxels, codes=(1, 0)), SROW, "<4f", *[0.0] * 4)
    assert refusal(path).code == "NII-012"


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan, np.inf])
def test_row_42_a_voxel_size_that_is_not_positive_is_refused(tmp_path, voxels, size):
    path = patched(saved(tmp_path / "scan.nii", voxels), PIXDIM + 8, "<f", size)
    assert refusal(path).code == "NII-011"


@pytest.mark.parametrize(
    ("slope", "intercept"), [(np.nan, 0), (np.inf, 0), (1, np.nan), (0, 5), (np.nan, 5)]
)
def test_rows_43_44_a_slope_that_means_nothing_scales_nothing_and_is_noted(
    tmp_path, voxels, slope, intercept
):
    path = patched(saved(tmp_path / "scan.nii", voxels), SLOPE, "<2f", slope, intercept)
    scan = read_volume(path)
    assert np.array_equal(scan.only_channel, voxels)
    assert codes_of(scan) == {"NII-019"}


def test_row_45_whole_slope_and_intercept_keep_integers_exact(tmp_path, voxels):
    path = patched(saved(tmp_path / "scan.nii", voxels), SLOPE, "<2f", 2, -1024)
    scan = read_volume(path)
    assert np.array_equal(scan.only_channel, voxels.astype(int) * 2 - 1024)
    assert np.issubdtype(scan.voxels.dtype, np.integer)


def test_scaling_that_overflows_its_type_is_widened(tmp_path):
    voxels = np.full((2, 2, 2), 32767, dtype=np.int16)
    path = patched(saved(tmp_path / "scan.nii", voxels), SLOPE, "<2f", 2, 1)
    assert (read_volume(path).only_channel == 65535).all()


def test_a_fractional_slope_gives_float32(tmp_path, voxels):
    path = patched(saved(tmp_path / "scan.nii", voxels), SLOPE, "<2f", 0.25, 0.5)
    scan = read_volume(path)
    assert scan.voxels.dtype == np.float32
    assert np.array_equal(scan.only_channel, voxels * 0.25 + 0.5)


@pytest.mark.parametrize("kind", ["i8", "u8", "i4", "u4", "f8", "u2", "i1", "u1", "f4"])
def test_row_46_every_number_type_keeps_its_largest_values(tmp_path, kind):
    largest = np.iinfo(kind).max if kind[0] in "iu" else 2**24 + 0.5
    voxels = np.full((2, 3, 4), largest, dtype=kind)
    scan = read_volume(saved(tmp_path / "scan.nii", voxels))
    assert np.array_equal(scan.only_channel, voxels)
    assert scan.voxels.dtype == np.dtype(kind)


@pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 1, 1, 1)])
def test_row_47_axes_of_one_voxel_are_removed_and_noted(tmp_path, voxels, extra):
    path = saved(tmp_path / "scan.nii", voxels.reshape(*voxels.shape, *extra))
    scan = read_volume(path)
    assert np.array_equal(scan.only_channel, voxels)
    assert codes_of(scan) == {"NII-018"}


def test_row_48_a_real_fourth_axis_is_channels_only_when_declared(tmp_path, rng):
    voxels = rng.integers(0, 9, (4, 5, 6, 3)).astype(np.uint8)
    path = saved(tmp_path / "scan.nii", voxels)
    assert refusal(path).code == "NII-023"
    scan = read_volume(path, channels_axis=True)
    assert np.array_equal(scan.voxels, np.moveaxis(voxels, -1, 0))
    assert scan.channels == ("channel_0", "channel_1", "channel_2")


def test_row_47_five_real_axes_are_refused(tmp_path):
    path = saved(tmp_path / "scan.nii", np.zeros((2, 3, 4, 2, 2), np.uint8))
    assert refusal(path, channels_axis=True).code == "NII-023"


def test_row_49_a_2d_file_has_one_slice(tmp_path, rng):
    pixels = rng.integers(0, 255, (5, 6)).astype(np.uint8)
    path = saved(tmp_path / "scan.nii", pixels)
    scan = read_volume(path)
    assert np.array_equal(scan.voxels, pixels[None, ..., None])
    assert np.allclose(scan.geometry.affine, rigid_affine(), atol=1e-5)


def test_a_2d_file_without_a_slice_axis_gets_its_normal_and_a_note(tmp_path):
    path = saved(tmp_path / "scan.nii", np.ones((5, 6), np.uint8), codes=(1, 0))
    for row in range(3):
        patched(path, SROW + 16 * row + 8, "<f", 0.0)
    patched(path, PIXDIM + 12, "<f", 0.0)
    scan = read_volume(path)
    assert codes_of(scan) == {"NII-017"}
    assert np.allclose(np.abs(scan.geometry.affine[:3, 2]), (0, 0, 1), atol=1e-6)


def test_row_50_nan_and_infinite_voxels_are_kept_and_counted(tmp_path):
    voxels = np.zeros((3, 3, 3), np.float32)
    voxels[0, 0], voxels[1, 1, 1] = np.nan, np.inf
    scan = read_volume(saved(tmp_path / "scan.nii", voxels))
    assert np.array_equal(scan.only_channel, voxels, equal_nan=True)
    assert [f.message[:8] for f in scan.findings if f.code == "FIL-014"] == ["4 of 27 "]


def test_row_51_complex_voxels_are_refused(tmp_path):
    path = saved(tmp_path / "scan.nii", np.zeros((2, 3, 4), np.complex64))
    assert refusal(path).code == "NII-005"


@pytest.mark.parametrize(("code", "samples"), [(128, 3), (2304, 4)])
def test_row_52_colours_are_three_channels_in_the_order_of_the_standard(
    tmp_path, rng, code, samples
):
    colours = rng.integers(0, 255, (samples, 3, 4, 5)).astype(np.uint8)
    path = saved(tmp_path / "scan.nii", np.zeros((3, 4, 5), np.uint8))
    patched(patched(path, DATATYPE, "<h", code), BITPIX, "<h", 8 * samples)
    path.write_bytes(path.read_bytes()[:352] + colours.tobytes(order="F"))
    scan = read_volume(path)
    assert np.array_equal(scan.voxels, colours[:3])
    assert scan.channels == ("red", "green", "blue")
    assert codes_of(scan) == ({"NII-021"} if samples == 4 else set())


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.2])
def test_row_53_a_truncated_file_is_refused_by_name(tmp_path, rng, name, kept):
    path = saved(tmp_path / name, rng.integers(0, 9999, (20, 20, 20)).astype(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert refusal(path).code == "FIL-007"


def test_row_54_a_bad_checksum_at_the_end_of_a_gzip_stream_is_refused(tmp_path, voxels):
    path = saved(tmp_path / "scan.nii.gz", voxels)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(bytes(content))
    assert refusal(path).code == "FIL-008"


def test_row_55_a_misnamed_file_is_read_by_its_content_and_told_its_name(tmp_path, voxels):
    packed = saved(tmp_path / "good.nii.gz", voxels)
    (tmp_path / "packed.nii").write_bytes(packed.read_bytes())
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(packed.read_bytes()))
    for name, better in (("packed.nii", "packed.nii.gz"), ("plain.nii.gz", "plain.nii")):
        scan = read_volume(tmp_path / name)
        assert np.array_equal(scan.only_channel, voxels)
        assert [f.code for f in scan.findings] == ["FIL-010"]
        assert f"rename it to {better};" in scan.findings[0].hint


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (b"", "FIL-003", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "FIL-004", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "FIL-004", "web page"),
        (gzip.compress(b"", mtime=0), "FIL-006", "not a format"),
        (b"hello", "FIL-006", "not a format"),
    ],
)
def test_row_56_what_is_no_scan_is_named(tmp_path, content, code, word):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    found = refusal(path)
    assert found.code == code
    assert word in str(found)


def test_row_57_a_header_of_70_terabytes_is_refused_before_anything_is_allocated(tmp_path, voxels):
    path = patched(saved(tmp_path / "scan.nii", voxels), DIM, "<4h", 3, 32767, 32767, 32767)
    assert refusal(path).code == "FIL-009"


def test_row_57_a_small_gzip_cannot_promise_a_gigabyte(tmp_path, voxels):
    path = patched(saved(tmp_path / "scan.nii", voxels), DIM, "<4h", 3, 1000, 1000, 500)
    packed = tmp_path / "scan.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert refusal(packed).code == "FIL-007"


def test_row_58_folders_and_missing_files_are_said_plainly(tmp_path):
    (tmp_path / "folder.nii.gz").mkdir()
    assert refusal(tmp_path / "folder.nii.gz").code == "FIL-002"
    assert refusal(tmp_path / "absent.nii.gz").code == "FIL-001"


@pytest.mark.parametrize("stem", ["a b", "Ärzte-スキャン", "x;$()^=,", "-rf", "n" * 248])
def test_row_59_any_file_name_is_read_and_written(tmp_path, voxels, stem):
    path = tmp_path / f"{stem}.nii"
    scan = Volume(voxels[None], Geometry((5, 6, 7), rigid_affine()))
    write_volume(scan, path)
    assert np.array_equal(read_volume(path).voxels, scan.voxels)


@pytest.mark.parametrize(
    ("offset", "form", "value", "code"),
    [
        (0, "<i", 347, "NII-001"),
        (MAGIC, "4s", b"abc\0", "NII-002"),
        (MAGIC, "4s", b"n+9\0", "NII-001"),
        (DIM, "<h", 0, "NII-003"),
        (DIM + 2, "<h", -5, "NII-003"),
        (DATATYPE, "<h", 3, "NII-004"),
        (BITPIX, "<h", 32, "NII-004"),
        (VOX_OFFSET, "<f", 100.0, "NII-006"),
        (VOX_OFFSET, "<f", np.nan, "NII-006"),
        (VOX_OFFSET, "<f", 352.5, "NII-006"),
        (UNITS, "B", 5, "NII-007"),
        (68, "<h", 3001, "NII-008"),
        (DIM + 6, "<h", 3, "FIL-007"),
    ],
)
def test_a_field_that_contradicts_the_standard_is_refused(
    tmp_path, voxels, offset, form, value, code
):
    path = patched(saved(tmp_path / "scan.nii", voxels[..., :2]), offset, form, value)
    assert refusal(path).code == code


def test_a_dimension_too_small_for_the_voxels_is_refused(tmp_path, rng):
    voxels = rng.integers(0, 9, (30, 30, 30)).astype(np.int16)
    path = patched(saved(tmp_path / "scan.nii", voxels), DIM + 2, "<h", 20)
    assert refusal(path).code == "FIL-011"


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (2, 1.0), (3, 0.001)])
def test_metres_and_microns_become_mm(tmp_path, voxels, unit, factor):
    path = patched(saved(tmp_path / "scan.nii", voxels), UNITS, "B", unit)
    expected = np.diag([factor] * 3 + [1]) @ rigid_affine()
    assert np.allclose(read_volume(path).geometry.affine, expected, rtol=1e-5)


def test_written_files_carry_the_affine_bit_by_bit_and_no_text(tmp_path, voxels):
    scan = read_volume(saved(tmp_path / "scan.nii", voxels))
    write_volume(scan, tmp_path / "mask.nii.gz")
    image = nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(image.get_sform(), scan.geometry.affine)
    assert np.allclose(image.get_qform(), scan.geometry.affine, atol=1e-5)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 2)
    assert image.header.get_xyzt_units()[0] == "mm"
    for text in ("descrip", "aux_file", "intent_name", "db_name"):
        assert bytes(image.header[text]).strip(b"\0") == b""
    packed = (tmp_path / "mask.nii.gz").read_bytes()
    assert packed[3] & 0x08 == 0, "the gzip header names the file"
    assert packed[4:8] == b"\0\0\0\0", "the gzip header has a date"


def test_a_sheared_affine_is_written_without_a_qform(tmp_path, voxels):
    write_nifti(Volume(voxels[None], Geometry((5, 6, 7), AFFINE)), tmp_path / "mask.nii")
    header = nibabel.load(tmp_path / "mask.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 0)


@pytest.mark.parametrize("kind", ["u1", "u2", "i8", "f4", "f8"])
def test_every_type_survives_a_round_trip(tmp_path, rng, kind):
    voxels = (rng.random((2, 4, 5, 6)) * 200).astype(kind)
    scan = Volume(voxels, Geometry((4, 5, 6), rigid_affine()), ("a", "b"))
    write_nifti(scan, tmp_path / "scan.nii.gz")
    back = read_volume(tmp_path / "scan.nii.gz", channels_axis=True)
    assert np.array_equal(back.voxels, voxels)
    assert back.voxels.dtype == voxels.dtype


def test_float16_becomes_float32_and_loses_nothing(tmp_path, rng):
    probabilities = rng.random((1, 4, 5, 6)).astype(np.float16)
    write_volume(
        Volume(probabilities, Geometry((4, 5, 6), rigid_affine())), tmp_path / "exact.nii.gz"
    )
    exact = read_volume(tmp_path / "exact.nii.gz").voxels
    assert exact.dtype == np.float32
    assert np.array_equal(exact, probabilities.astype(np.float32))


@pytest.mark.parametrize(("kind", "bound"), [("uint8", 1 / 510), ("uint16", 1 / 131070)])
def test_quantised_probabilities_stay_within_half_a_step_for_every_reader(
    tmp_path, rng, kind, bound
):
    probabilities = rng.random((3, 4, 5, 6)).astype(np.float32)
    # Both ends are exact.
    probabilities[0, 0, 0, :2] = 0, 1
    geometry = Geometry((4, 5, 6), rigid_affine())
    path = tmp_path / "small.nii.gz"
    write_volume(Volume(probabilities, geometry, ("background", "a", "b")), path, quantised=kind)
    image = nibabel.load(path)
    assert image.header.get_data_dtype() == kind
    assert np.array_equal(image.affine.astype(np.float32), geometry.affine.astype(np.float32))
    found = {
        "medseg": read_volume(path, channels_axis=True).voxels,
        "nibabel": np.moveaxis(image.get_fdata(), -1, 0),
        "SimpleITK": SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)).transpose(0, 3, 2, 1),
    }
    for name, voxels in found.items():
        # The slope is stored as float32.
        assert np.abs(voxels - probabilities).max() <= bound + 2e-7, name
        assert voxels[0, 0, 0, :2] == pytest.approx([0, 1], abs=1e-6), name


def test_an_axis_longer_than_the_field_is_refused(tmp_path):
    scan = Volume(np.zeros((1, 32768, 1, 1), np.uint8), Geometry((32768, 1, 1), np.eye(4)))
    with pytest.raises(WriteError, match="NII-031"):
        write_nifti(scan, tmp_path / "long.nii")
    assert not list(tmp_path.iterdir())


def test_refusals_are_of_the_kind_they_claim(tmp_path, voxels):
    assert isinstance(refusal(saved(tmp_path / "a.nii", voxels, codes=(0, 0))), GeometryError)
    path = patched(saved(tmp_path / "b.nii", voxels), DIM, "<h", 9)
    assert isinstance(refusal(path), ReadError)
