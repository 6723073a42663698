"""Real series of many makers, against references that others made: places, values, segments."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.core.errors import MedsegError, ReadError
from medseg.core.geometry import Geometry
from medseg.io.dicom.reader import find_series, is_dicom, read_dicom
from medseg.io.dicom.seg.segmentation import read_seg

# The reference affines are stored as float32, whose rounding over 256 voxels is below this.
CORNER_TOLERANCE_MM = 1e-3
LOSSLESS = (
    "LittleEndian", "BigEndian", "Deflated", "LosslessOnly", "JPEGLSLossless", "JPEGProcess14",
    "RLE",
)  # fmt: skip

CASES = [
    "anatomical/001", "anatomical/001_implicit", "ge/anatomical/001",
    "ge/anatomical/001_implicit", "ge/anatomical/001_single_slice", "generic/anatomical/001",
    "generic/anatomical/001_implicit", "generic/anatomical/002_non_isotropic",
    "generic/compressed/001", "generic/compressed_j2k/001", "generic/compressed_jpeg/001",
    "generic/compressed_jpegls/001", "generic/compressed_rle/001", "hitachi/anatomical/001",
    "hitachi/anatomical/001_implicit",
    "hyperfine/anatomical/001", "philips_enhanced/anatomical/001",
    "philips_enhanced/anatomical/001_implicit", "siemens/anatomical/001",
    "siemens/anatomical/001_implicit", "siemens_multiframe/anatomical/001",
]  # fmt: skip


def on_grid_of(volume, affine):
    """Voxel indices of the volume's voxels on a grid, and how far they lie from its voxels."""
    index = np.indices(volume.geometry.shape).reshape(3, -1).T.astype(float)
    inverse = np.linalg.inv(affine)
    found = volume.geometry.to_world(index) @ inverse[:3, :3].T + inverse[:3, 3]
    off_mm = np.linalg.norm((found - np.rint(found)) @ affine[:3, :3].T, axis=1).max()
    return np.rint(found).astype(int), off_mm


def itk_volume(image):
    """Voxels (I, J, K) and RAS affine of a SimpleITK image."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("case", CASES)
def test_scanners_series_lie_where_dicom2nifti_puts_them(case, shared_data):
    folder = shared_data("dicom2nifti_cases") / case
    reference = nibabel.load(folder.with_name(folder.name + "_ground_truth.nii.gz"))
    expected = np.asarray(reference.dataobj).reshape(reference.shape[:3])
    volume = read_dicom(folder)
    index, off_mm = on_grid_of(volume, reference.affine)
    assert off_mm < CORNER_TOLERANCE_MM
    assert sorted(volume.geometry.shape) == sorted(expected.shape)
    if "philips_enhanced" not in case:  # two conventions of Philips intensity scaling exist
        found = volume.only_channel.ravel().astype(float)
        assert np.allclose(found, expected[tuple(index.T)], rtol=1e-6, atol=1e-6)


def test_dcm2niix_agrees_about_shape_place_and_sum(shared_data):
    root = shared_data("dicom2nifti_cases")
    text = shared_data("reference_geometry_dcm2niix.json").read_text()
    references = json.loads(text)["cases"]
    compared = 0
    for case in CASES:
        key = f"dicom2nifti_cases_{case.replace('/', '_')}/"
        found = [reference for name, reference in references.items() if name.startswith(key)]
        if len(found) != 1 or "philips" in case:
            continue
        volume = read_dicom(root / case)
        shape = tuple(found[0]["shape"][:3])
        theirs = Geometry(shape, np.array(found[0]["affine_RAS"]))
        apart = np.linalg.norm(volume.geometry.corners[:, None] - theirs.corners[None], axis=2)
        assert apart.min(axis=1).max() < CORNER_TOLERANCE_MM, case
        assert np.isclose(volume.voxels.sum(dtype=float), found[0]["sum"], rtol=1e-6), case
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize("modality", ["CT", "PET", "MR_T1"])
def test_sarcoma_series_equal_the_nifti_made_from_them(modality, shared_data):
    folder = shared_data("sts_dicom_rtstruct") / "dicom" / "STS_008" / modality / "image"
    nifti = shared_data("sts_tumour") / "nifti" / "STS_008" / f"{modality}_image.nii.gz"
    reference = nibabel.load(nifti)
    volume = read_dicom(folder)
    index, off_mm = on_grid_of(volume, reference.affine)
    expected = np.asarray(reference.dataobj)[tuple(index.T)]
    assert off_mm < CORNER_TOLERANCE_MM
    assert np.allclose(volume.only_channel.ravel(), expected, rtol=1e-5, atol=1e-5)


def test_the_orientation_phantom_lies_as_simpleitk_reads_it(shared_data):
    folder = shared_data("ibsi_orientation") / "dicom" / "orientation"
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    expected, affine = itk_volume(SimpleITK.ReadImage(names))
    volume = read_dicom(folder)
    index, off_mm = on_grid_of(volume, affine)
    assert off_mm < CORNER_TOLERANCE_MM
    assert np.array_equal(volume.only_channel.ravel(), expected[tuple(index.T)])


def test_an_oblique_ct_lies_as_simpleitk_reads_it(shared_data):
    folder = shared_data("dicom_rtstruct_misc") / "tests" / "oriented_data"
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    expected, affine = itk_volume(SimpleITK.ReadImage(names))
    volume = read_dicom(folder)
    index, off_mm = on_grid_of(volume, affine)
    assert off_mm < CORNER_TOLERANCE_MM
    assert np.allclose(volume.only_channel.ravel(), expected[tuple(index.T)], atol=1e-6)


def test_every_lossless_transfer_syntax_gives_the_same_pixels(shared_data):
    folder = shared_data("dicom_transfer_syntax_ct")
    expected = read_dicom(folder / "CTImage.dcm").voxels
    files = [path for path in folder.glob("CTImage.dcm_*") if any(w in path.name for w in LOSSLESS)]
    assert len(files) == 9
    for path in files:
        assert np.array_equal(read_dicom(path).voxels, expected), path.name


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*1.2.840.10008.1.2.4.53.dcm", r"\(1\.2\.840\.10008\.1\.2\.4\.53\) cannot be decoded by"),
        ("*1.2.840.10008.1.2.4.55.dcm", r"\(1\.2\.840\.10008\.1\.2\.4\.55\) cannot be decoded by"),
        ("*1.2.840.10008.1.2.4.51.dcm", "of 12 bits needs .* pip install pylibjpeg-libjpeg"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_syntax_and_package(pattern, message, shared_data):
    path = next(shared_data("dicom_transfer_syntax_ct").glob("CTImage" + pattern))
    with pytest.raises(ReadError, match="DCM-013 .*" + message):
        read_dicom(path)


MOSAICS = [
    ("dicom_12bit_dcmqa", "12bitUnsigned.dcm", "2.nii"),
    ("dicom_12bit_dcmqa", "12bitUnsigned_0x0F0F.dcm", "3.nii"),
    ("dicom_12bit_dcmqa", "12bitSigned_0x0F0F.dcm", "4.nii"),
    *(("dicom_transfer_syntax_dcmqa", f"{n}.dcm", f"{n}.nii") for n in (1, 2, 3, 4, 7, 8, 9)),
]


@pytest.mark.parametrize(("folder", "file", "reference"), MOSAICS)
def test_siemens_mosaics_lie_where_dcm2niix_puts_them(folder, file, reference, shared_data):
    image = nibabel.load(shared_data(folder) / "Ref" / reference)
    volume = read_dicom(shared_data(folder) / "In" / file)
    index, off_mm = on_grid_of(volume, image.affine)
    assert off_mm < CORNER_TOLERANCE_MM
    assert np.array_equal(volume.only_channel.ravel(), np.asarray(image.dataobj)[tuple(index.T)])


def test_colour_captures_reports_and_contours_are_called_what_they_are(shared_data):
    colours = shared_data("dicom2nifti_cases") / "generic" / "rgb" / "001"
    contours = shared_data("sts_dicom_rtstruct") / "dicom" / "STS_008" / "CT" / "mask"
    report = shared_data("dicom_transfer_syntax_ct") / "no-pixel-data.dcm"
    for path, words in [(colours, "colours"), (contours, "contours"), (report, "report")]:
        with pytest.raises(ReadError, match=words):
            read_dicom(path)
        assert is_dicom(path)
        assert {series.verdict for series in find_series(path)} == {"other"}


SEGMENTATIONS = [
    ("liver.dcm", "ct-3slice", {"label map": ("liver_seg.nrrd", 1)}),
    (
        "partial_overlaps.dcm",
        "ct-3slice",
        {
            "GREEN": ("partial_overlaps-1.nrrd", 1),
            "ORANGE": ("partial_overlaps-2.nrrd", 2),
            "PURPLE": ("partial_overlaps-3.nrrd", 3),
            "LIGHT_BLUE": ("partial_overlaps-1.nrrd", 4),
            "DARK_BLUE": ("partial_overlaps-1.nrrd", 5),
        },
    ),
    (
        "sparse-labelmap-ppv5.dcm",
        "24x38x3/image",
        {"label map": ("sparse_labelmap_ppv5_seg.nrrd", 1)},
    ),
    (
        "sparse-labelmap-noppv.dcm",
        "24x38x3/multiframe",
        {"label map": ("sparse_labelmap_noppv_seg.nrrd", 1)},
    ),
    ("24x38x3/seg", "24x38x3/multiframe", {"label map": ("24x38x3/nrrd/label.nrrd", 1)}),
    ("23x38x3/seg", "23x38x3/image", {"label map": ("23x38x3/nrrd/label.nrrd", 1)}),
]


@pytest.mark.parametrize("with_source", [True, False], ids=["on-its-scan", "alone"])
@pytest.mark.parametrize(("name", "source", "channels"), SEGMENTATIONS)
def test_dcmqi_segmentations_equal_their_nrrd(name, source, channels, with_source, shared_data):
    folder = shared_data("dicom_seg_dcmqi") / "segmentations"
    volume = read_seg(folder / name, source=folder / source if with_source else None)
    assert volume.channels == tuple(channels)
    references = {nrrd: SimpleITK.ReadImage(str(folder / nrrd)) for nrrd, _ in channels.values()}
    # All references of one file lie on one grid, that of the scan.
    index, off_mm = on_grid_of(volume, itk_volume(references[next(iter(references))])[1])
    assert off_mm < CORNER_TOLERANCE_MM
    for voxels, (nrrd, value) in zip(volume.voxels, channels.values(), strict=True):
        expected = itk_volume(references[nrrd])[0]
        assert np.array_equal(voxels.ravel() > 0, expected[tuple(index.T)] == value)


def test_fractional_segments_are_cut_at_the_threshold(shared_data):
    path = shared_data("dicom_seg_highdicom") / "seg_image_ct_true_fractional.dcm"
    counts = [int(read_seg(path, threshold=share).voxels.sum()) for share in (0.01, 0.5, 1.0)]
    assert counts[0] >= counts[1] >= counts[2]
    binary = read_seg(path.with_name("seg_image_ct_binary_fractional.dcm"))
    assert np.array_equal(binary.voxels, read_seg(path, threshold=0.5).voxels)


def test_a_segmentation_without_positions_is_refused(shared_data):
    path: Path = shared_data("dicom_seg_highdicom") / "seg_image_cr_binary.dcm"
    with pytest.raises(MedsegError, match="DCM-018"):
        read_seg(path)
