"""Ids of objects: read from files, numbered, kept through preparation, cache and patches."""

import nibabel
import numpy as np
import pytest
import torch
from dataset_on_paper import paper_case, paper_manifest
from PIL import Image

from medseg.core.errors import LabelError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet, label_set
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.core.volume import Volume
from medseg.data.cache import prepare_cases
from medseg.data.object_ids import ids_in, read_ids, read_ids_of_file
from medseg.data.patches import PatchSampler
from medseg.data.scans import read_reference
from medseg.transforms.chains import PrepareChain, Prepared

FINE = Plan(
    dataset="paper",
    spatial_dims=3,
    orientation="RAS",
    spacing_mm=(1.0, 1.0, 1.0),
    patch_vox=(8, 8, 8),
    intensity=(IntensityPlan(channel="T1", scheme="none"),),
    network=NetworkPlan(widths=(4,), strides=(), kernels=((3, 3, 3),)),
    training=TrainingPlan(batch_size=2, num_steps=1),
    device="cpu",
)
NUCLEI = label_set({"nucleus": ">0"}).with_things(["nucleus"])


def save(voxels, path, affine=None):
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def two_touching():
    ids = np.zeros((8, 6, 3), np.int16)
    ids[1:4, 1:4], ids[4:6, 1:4] = 700, 12
    return ids


def same_objects(found, drawn):
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), drawn.ravel(), strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def read(tmp_path, annotation, labels):
    case = paper_case("a", labels=annotation)
    manifest = paper_manifest([case], data_root=tmp_path, labels=labels)
    shape = (8, 6, 3)
    save(np.zeros(shape, np.uint8), tmp_path / "images" / "a.nii.gz")
    reference = read_reference(manifest, case, Geometry(shape, np.eye(4)))
    return read_ids(manifest, case, reference)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_file_with_several_values_stores_ids(tmp_path, kind):
    save(two_touching().astype(kind), tmp_path / "labels" / "a.nii.gz")
    found = read(tmp_path, ("labels/a.nii.gz",), NUCLEI)
    assert same_objects(found, two_touching())
    assert found.max() == 2


def test_a_file_with_one_value_stores_pieces(tmp_path):
    mask = (two_touching() > 0).astype(np.int16) * 255
    mask[7, 5, 2] = 255
    save(mask, tmp_path / "labels" / "a.nii.gz")
    found = read(tmp_path, ("labels/a.nii.gz",), NUCLEI)
    assert found.max() == 2
    assert len(np.unique(found[two_touching() > 0])) == 1


def test_one_file_a_class_may_store_ids_and_stuff_has_none(tmp_path):
    labels = label_set({"tissue": 1, "cell": 2}).with_things(["cell"])
    save(two_touching(), tmp_path / "labels" / "cell.nii.gz")
    save(np.ones((8, 6, 3), np.uint8), tmp_path / "labels" / "tissue.nii.gz")
    found = read(
        tmp_path, ({"tissue": "labels/tissue.nii.gz", "cell": "labels/cell.nii.gz"},), labels
    )
    assert same_objects(found, two_touching())


def test_of_several_raters_pieces_of_what_they_agree_on_are_objects(tmp_path):
    save(two_touching(), tmp_path / "labels" / "a.nii.gz")
    found = read(tmp_path, ("labels/a.nii.gz", "labels/a.nii.gz"), NUCLEI)
    assert found.max() == 1


def test_a_picture_of_16_bits_keeps_its_ids(tmp_path):
    ids = np.zeros((5, 9), np.uint16)
    ids[1:3, 2:4], ids[3:5, 2:8] = 40_000, 300
    Image.fromarray(ids).save(tmp_path / "ids.png")
    found = read_ids_of_file(tmp_path / "ids.png", (ids.T > 0).astype(np.uint8)[..., None], NUCLEI)
    assert same_objects(found[..., 0], ids.T)


def test_classes_of_things_are_numbered_apart():
    label_map = np.array([1, 1, 2, 2, 3], np.uint8).reshape(-1, 1, 1)
    labels = label_set({"a": 1, "b": 2, "c": 3}).with_things(["a", "b"])
    stored = np.array([7, 9, 7, 7, 0]).reshape(-1, 1, 1)
    assert ids_in(label_map, labels, {"a": stored}).ravel().tolist() == [1, 2, 3, 3, 0]


def test_values_that_were_declared_to_mean_one_class_are_no_ids():
    """Two kinds of lesion, taken for one class: three pieces, one of them of both kinds."""
    stored = np.array([1, 0, 1, 2, 0, 2]).reshape(-1, 1, 1)
    labels = label_set({"lesion": [1, 2]}).with_things(["lesion"])
    ids = ids_in((stored > 0).astype(np.uint8), labels, {"lesion": stored})
    assert ids.ravel().tolist() == [1, 0, 2, 2, 0, 3]


def test_things_are_declared_by_name_and_survive_json():
    labels = label_set({"a": 1, "b": 2}).with_things(["b"])
    assert labels.things == (2,)
    assert LabelSet.from_json(labels.to_json()) == labels
    assert LabelSet.from_json({"labels": [{"name": "a", "values": 1}]}).things == ()
    with pytest.raises(LabelError, match="LBL-013"):
        labels.with_things(["c"])


def test_ids_are_prepared_like_labels_and_cut_with_them(tmp_path, rng):
    drawn = np.kron(rng.integers(0, 30, (4, 5, 3)), np.ones((4, 4, 4))).astype(np.int32)
    # Axes of the file run to other sides than the plan's, and its voxels are of another size.
    affine = np.array([[0, -1.0, 0, 5], [1.5, 0, 0, 2], [0, 0, 2.0, 1], [0, 0, 0, 1]])
    geometry = Geometry(drawn.shape, affine)
    image = Volume(drawn[None].astype(np.float32), geometry, ("T1",))
    manifest = paper_manifest([paper_case("a")], labels=NUCLEI)
    label = Volume((drawn > 0).astype(np.uint8)[None], geometry, ("label",))
    ids = Volume(drawn[None], geometry, ("ids",))

    def prepare(case) -> Prepared:
        return PrepareChain(FINE)(image, label, ids)

    (cached,) = prepare_cases(manifest.cases, prepare, folder=tmp_path, recipe={})
    kept = cached.open_ids()
    assert kept.shape == cached.geometry.shape != drawn.shape
    assert np.array_equal(kept > 0, cached.open_label() > 0)
    # Resampled linearly, an image of the ids is the id wherever its neighbourhood is uniform.
    smooth = np.array(cached.open_image()[0])
    assert (np.abs(smooth - kept) < 0.01).mean() > 0.4

    sampler = PatchSampler(
        cases=(cached,), classes=("nucleus",), patch_vox=(8, 8, 8), context_vox=(10, 10, 10),
        batch_size=3, foreground_share=0.5, seed=0,
    )  # fmt: skip
    batch = sampler.draw(0)
    assert batch.ids_BIJK.shape == (3, 10, 10, 10)
    assert torch.equal(batch.ids_BIJK > 0, batch.label_BIJK > 0)
    assert len(batch.maps) == 2
