from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dataset_on_paper import paper_case, paper_manifest
from PIL import Image
from scipy.spatial.transform import Rotation

from medseg.core.errors import GeometryError, LabelError, ManifestError
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.data.manifest import Channel, Manifest
from medseg.data.raters import majority, merge_masks, training_targets
from medseg.data.resample import resample_onto
from medseg.data.scans import classes_in, read_raters, read_reference, read_scan
from medseg.data.staple import staple

# Turned about two axes, voxels of 1.8 x 1.7 x 2.9 mm.
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xz", (20, -35), degrees=True).as_matrix() * (1.8, 1.7, 2.9)
OBLIQUE[:3, 3] = (-20, 5, 11)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path.name


def two_channels(root: Path, **images: str) -> Manifest:
    channels = tuple(Channel(name=n, modality=m) for n, m in (("PET", "PT"), ("CT", "CT")))
    case = paper_case("a", images=images, labels=("mask.nii.gz",))
    return paper_manifest([case], data_root=root, channels=channels, reference_channel="PET")


def ramp(geometry: Geometry) -> np.ndarray:
    """A function that linear interpolation reproduces exactly: linear in world coordinates."""
    index = np.stack(np.indices(geometry.shape), axis=-1).reshape(-1, 3).astype(float)
    world = geometry.to_world(index)
    return (world @ (0.5, -0.25, 1.0) + 3).reshape(geometry.shape)


@pytest.mark.parametrize("seed", range(5))
def test_a_linear_ramp_is_resampled_exactly_between_oblique_grids(seed):
    rng = np.random.default_rng(seed)
    source = Geometry((14, 12, 10), OBLIQUE)
    inside = OBLIQUE.copy()
    inside[:3, :3] = OBLIQUE[:3, :3] @ np.diag(rng.uniform(0.4, 0.9, 3))
    inside[:3, 3] = source.to_world(np.array([[1.2, 0.7, 0.4]]))[0]
    target = Geometry((9, 8, 7), inside)
    found = resample_onto(ramp(source), source, target=target)
    np.testing.assert_allclose(found, ramp(target), atol=1e-4)


def test_resampling_agrees_with_simpleitk_inside_the_scan(rng):
    source = Geometry((12, 13, 9), np.diag([2.0, 1.5, 3.0, 1.0]))
    target = Geometry((16, 14, 18), np.diag([1.2, 1.1, 1.4, 1.0]))
    voxels = rng.normal(size=source.shape).astype(np.float32)
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.SetSpacing(source.spacing_mm)
    expected = sitk.Resample(
        image,
        target.shape,
        sitk.Transform(),
        sitk.sitkLinear,
        (0.0, 0.0, 0.0),
        target.spacing_mm,
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    reference = sitk.GetArrayFromImage(expected).transpose(2, 1, 0)
    found = resample_onto(voxels, source, target=target)
    index = target.to_world(np.argwhere(np.ones(target.shape)).astype(float)) / source.spacing_mm
    inside = (index <= np.array(source.shape) - 1).all(axis=1).reshape(target.shape)
    np.testing.assert_allclose(found[inside], reference[inside], atol=1e-4)


def test_what_lies_outside_takes_the_lowest_value_and_half_a_voxel_at_the_edge_does_not():
    source = Geometry((4, 4, 4), np.diag([2.0, 2, 2, 1]))
    target = Geometry((12, 4, 4), np.diag([1.0, 2, 2, 1]))
    voxels = np.full(source.shape, 7.0)
    voxels[0, 0, 0] = -1000
    found = resample_onto(voxels, source, target=target)[:, 2, 2]
    # Centres at 0..11 mm; the last source voxel is centred at 6 mm and ends at 7 mm.
    assert found.tolist() == [7.0] * 8 + [-1000.0] * 4


def test_channels_on_two_grids_come_stacked_on_the_reference_grid(tmp_path):
    pet = Geometry((8, 7, 6), OBLIQUE)
    fine = OBLIQUE @ np.diag([0.5, 0.5, 0.5, 1])
    ct = Geometry((16, 14, 12), fine)
    images = {
        "PET": save(tmp_path / "pet.nii.gz", np.ones(pet.shape, np.int16), OBLIQUE),
        "CT": save(tmp_path / "ct.nii.gz", ramp(ct).astype(np.float32), fine),
    }
    manifest = two_channels(tmp_path, **images)
    scan = read_scan(manifest, manifest.cases[0])
    assert scan.channels == ("PET", "CT")
    assert scan.voxels.dtype == np.float32
    assert scan.geometry.matches(pet)
    np.testing.assert_allclose(scan.voxels[1], ramp(pet), atol=1e-3)
    assert [finding.code for finding in scan.findings] == ["SCN-005"]


def test_channels_on_one_grid_are_not_touched(tmp_path, rng):
    voxels = rng.normal(size=(6, 5, 4)).astype(np.float32)
    images = {
        name: save(tmp_path / f"{name}.nii", voxels * scale, OBLIQUE)
        for name, scale in (("PET", 1), ("CT", 2))
    }
    scan = read_scan(manifest := two_channels(tmp_path, **images), manifest.cases[0])
    assert np.array_equal(scan.voxels, [voxels, 2 * voxels])
    assert scan.findings == ()


def test_a_missing_channel_is_refused_or_filled_with_a_finding(tmp_path):
    pet = save(tmp_path / "pet.nii", np.ones((4, 4, 4), np.int16), OBLIQUE)
    manifest = two_channels(tmp_path, PET=pet)
    with pytest.raises(ManifestError, match="SCN-001 case 'a': has no image of channel 'CT'"):
        read_scan(manifest, manifest.cases[0])
    scan = read_scan(manifest, manifest.cases[0], missing="zero")
    assert not scan.voxels[1].any()
    assert [finding.code for finding in scan.findings] == ["SCN-001"]


def test_channels_that_name_one_file_are_its_planes_in_order(tmp_path, rng):
    voxels = rng.normal(size=(5, 4, 3, 2)).astype(np.float32)
    both = save(tmp_path / "both.nii.gz", voxels, OBLIQUE)
    scan = read_scan(manifest := two_channels(tmp_path, PET=both, CT=both), manifest.cases[0])
    assert np.array_equal(scan.voxels, voxels.transpose(3, 0, 1, 2))
    third = save(tmp_path / "third.nii.gz", np.zeros((5, 4, 3, 3), np.float32), OBLIQUE)
    manifest = two_channels(tmp_path, PET=third, CT=third)
    with pytest.raises(ManifestError, match=r"SCN-002 .*holds 3 values a voxel"):
        read_scan(manifest, manifest.cases[0])


@pytest.mark.parametrize(("modality", "num_planes"), [("RGB", 3), ("microscopy", 1)])
def test_gray_is_read_the_same_from_gray_and_colour_files(modality, num_planes, tmp_path):
    gray = np.arange(20, dtype=np.uint8).reshape(4, 5)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(np.dstack([gray] * 3)).save(tmp_path / "colour.png")
    channel = (Channel(name="T1", modality=modality),)
    scans = []
    for name in ("gray.png", "colour.png"):
        case = paper_case(name, images={"T1": name})
        manifest = paper_manifest([case], data_root=tmp_path, channels=channel, spatial_dims=2)
        scans.append(read_scan(manifest, case))
    assert scans[0].channels == manifest.planes
    assert len(scans[0].voxels) == num_planes
    assert np.array_equal(scans[0].voxels, scans[1].voxels)


def test_a_colour_picture_is_no_gray_channel(tmp_path):
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(tmp_path / "c.png")
    case = paper_case("c", images={"T1": "c.png"})
    manifest = paper_manifest([case], data_root=tmp_path, spatial_dims=2)
    with pytest.raises(ManifestError, match=r"SCN-002 .*modality RGB"):
        read_scan(manifest, case)


def test_a_declared_spacing_places_a_picture_and_its_mask(tmp_path):
    for name in ("scan.png", "mask.png"):
        Image.fromarray(np.eye(6, 5, dtype=np.uint8)).save(tmp_path / name)
    case = paper_case(
        "a", images={"T1": "scan.png"}, labels=("mask.png",), spacing_mm=(0.25, 0.25, 1.0)
    )
    manifest = paper_manifest([case], data_root=tmp_path, spatial_dims=2)
    scan = read_scan(manifest, case)
    assert scan.geometry.unit == "mm"
    assert scan.geometry.spacing_mm == pytest.approx((0.25, 0.25, 1.0))
    reference = read_reference(manifest, case, scan.geometry)
    assert reference.geometry.matches(scan.geometry)
    assert reference.only_channel.sum() == 5


def labelled(root: Path, *labels: object, classes: dict | None = None) -> Manifest:
    save(root / "scan.nii", np.zeros((4, 4, 4), np.int16), OBLIQUE)
    case = paper_case("a", images={"T1": "scan.nii"}, labels=labels)
    declared = label_set(classes or {"anterior": 1, "posterior": 2})
    return paper_manifest([case], data_root=root, labels=declared)


def mask_of(root: Path, name: str, *values: int, affine: np.ndarray = OBLIQUE) -> str:
    voxels = np.zeros((4, 4, 4), np.uint8)
    voxels[: len(values), 0, 0] = values
    return save(root / name, voxels, affine)


def reference_of(manifest: Manifest) -> np.ndarray:
    case = manifest.cases[0]
    scan = read_scan(manifest, case)
    return read_reference(manifest, case, scan.geometry).only_channel[:, 0, 0]


def test_stored_values_become_indices(tmp_path):
    name = mask_of(tmp_path, "m.nii", 127, 255, 0)
    found = reference_of(labelled(tmp_path, name, classes={"myelin": 127, "axon": 255}))
    assert found.tolist() == [1, 2, 0, 0]


def test_a_file_a_class_is_merged_in_the_order_of_the_label_set(tmp_path):
    files = {
        "posterior": mask_of(tmp_path, "p.nii", 0, 255, 255),
        "anterior": mask_of(tmp_path, "a.nii", 1, 1, 0),
    }
    manifest = labelled(tmp_path, files)
    assert reference_of(manifest).tolist() == [1, 2, 2, 0]
    scan = read_scan(manifest, manifest.cases[0])
    (finding,) = read_reference(manifest, manifest.cases[0], scan.geometry).findings
    assert finding.code == "SCN-007"
    assert finding.message == "masks overlap: posterior covers 1 voxels of anterior"
    assert classes_in(manifest, manifest.cases[0]) == ("anterior", "posterior")


def test_two_raters_keep_what_both_marked_and_three_what_most_marked(tmp_path):
    names = [
        mask_of(tmp_path, "1.nii", 1, 1, 2, 2),
        mask_of(tmp_path, "2.nii", 1, 0, 2, 1),
        mask_of(tmp_path, "3.nii", 2, 0, 0, 0),
    ]
    assert reference_of(labelled(tmp_path, *names[:2])).tolist() == [1, 0, 2, 1]
    assert reference_of(labelled(tmp_path, *names)).tolist() == [1, 0, 2, 0]


def test_the_vote_agrees_with_counting_by_hand(rng):
    maps = [rng.integers(0, 4, (6, 5, 4), dtype=np.uint8) for _ in range(5)]
    votes = np.stack([sum((one == index).astype(int) for one in maps) for index in range(4)])
    assert np.array_equal(majority(maps), votes.argmax(axis=0))


def test_merging_says_which_class_covered_which():
    masks = {1: np.array([1, 1, 1, 0]), 2: np.array([0, 1, 1, 0]), 3: np.array([0, 0, 9, 0])}
    merged, overlaps = merge_masks(masks)
    assert merged.tolist() == [1, 2, 3, 0]
    assert overlaps == {(2, 1): 2, (3, 2): 1}


@pytest.mark.parametrize(
    ("flip", "code", "said"),
    [
        (np.diag([-1.0, 1, 1, 1]), "GEO-002", "flipped along i"),
        (np.diag([1.0, 1, 2, 1]), "GEO-002", "lies up to"),
    ],
)
def test_a_mask_on_another_grid_is_refused_with_both_names(flip, code, said, tmp_path):
    affine = OBLIQUE @ flip
    if flip[0, 0] < 0:
        affine[:3, 3] = OBLIQUE[:3, 3] + 3 * OBLIQUE[:3, 0]
    name = mask_of(tmp_path, "m.nii", 1, affine=affine)
    with pytest.raises(GeometryError, match=rf"{code}.*m\.nii: .*{said}") as refusal:
        reference_of(labelled(tmp_path, name))
    assert str(tmp_path / "scan.nii") in str(refusal.value)


def test_a_mask_of_another_shape_is_refused_and_round_off_is_not(tmp_path):
    save(tmp_path / "small.nii", np.zeros((4, 4, 3), np.uint8), OBLIQUE)
    with pytest.raises(GeometryError, match=r"GEO-001.*small\.nii: 4 x 4 x 3 .*scan\.nii"):
        reference_of(labelled(tmp_path, "small.nii"))
    nearly = mask_of(tmp_path, "nearly.nii", 1, affine=OBLIQUE + np.eye(4, k=3) * 1e-6)
    assert reference_of(labelled(tmp_path, nearly)).tolist() == [1, 0, 0, 0]


def test_values_outside_the_classes_are_listed_with_their_counts(tmp_path):
    name = mask_of(tmp_path, "m.nii", 1, 7, 7, 255)
    with pytest.raises(LabelError, match=r"LBL-003 .*m\.nii.*7 \(2 voxels\), 255 \(1 voxels\)"):
        reference_of(labelled(tmp_path, name))


def test_an_unlabelled_case_has_no_reference(tmp_path):
    case = paper_case("a", labels=(), split="unlabelled")
    manifest = paper_manifest([case], data_root=tmp_path)
    with pytest.raises(ManifestError, match="SCN-006"):
        read_reference(manifest, case, Geometry((1, 1, 1), np.eye(4)))


def test_pet_and_ct_of_one_patient_are_laid_on_the_grid_of_the_pet(shared_data):
    root = shared_data("sts_tumour") / "nifti" / "STS_001"
    manifest = two_channels(root, PET="PET_image.nii.gz", CT="CT_image.nii.gz")
    scan = read_scan(manifest, manifest.cases[0])
    pet, ct = (sitk.ReadImage(str(root / f"{name}_image.nii.gz")) for name in ("PET", "CT"))
    expected = sitk.GetArrayFromImage(sitk.Resample(ct, pet, sitk.Transform(), sitk.sitkLinear))
    inside = sitk.GetArrayFromImage(
        sitk.Resample(ct * 0 + 1, pet, sitk.Transform(), sitk.sitkNearestNeighbor)
    )
    different = np.abs(scan.voxels[1].transpose(2, 1, 0) - expected)[inside > 0]
    # SimpleITK rounds to the integers of the CT, and treats the outermost half voxel otherwise.
    assert np.percentile(different, 99) <= 1


@pytest.mark.parametrize("how", ["majority", "staple", "soft"])
def test_the_manifest_says_how_raters_become_one(how, tmp_path, rng):
    truth = rng.integers(0, 3, (12, 12, 12)).astype(np.uint8)
    names = []
    for number, share in enumerate((0.02, 0.02, 0.45, 0.45, 0.45)):
        # Those who err call it all background.
        drawn = np.where(rng.random(truth.shape) < share, 0, truth)
        save(tmp_path / f"{number}.nii", drawn, OBLIQUE)
        names.append(f"{number}.nii")
    manifest = replace(labelled(tmp_path, *names), consensus=how)
    case = manifest.cases[0]
    geometry = Geometry(truth.shape, OBLIQUE)
    found = read_reference(manifest, case, geometry).only_channel
    maps = read_raters(manifest, case, geometry)
    assert maps.channels == tuple(f"rater {n}" for n in range(1, 6))
    expected = staple(list(maps.voxels)) if how == "staple" else majority(list(maps.voxels))
    assert np.array_equal(found, expected)
    targets = training_targets([case], how)
    assert [one.labels for one in targets] == (
        [(name,) for name in names] if how == "soft" else [tuple(names)]
    )
    if how == "soft":
        each = [read_reference(manifest, one, geometry).only_channel for one in targets]
        assert np.array_equal(each, maps.voxels)
