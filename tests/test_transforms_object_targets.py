"""Targets of objects against brute force, and what augmentation does to them."""

import numpy as np
import pytest
import torch
from drawn_objects import rows_of, whole_centre_targets
from scipy import ndimage

from medseg.core.objects import Centres
from medseg.postprocess.centres import group_by_centres
from medseg.transforms.augment import Augment
from medseg.transforms.motion import SpatialAugment
from medseg.transforms.object_targets import (
    centre_targets,
    depth_targets,
    number_objects,
    surface_distance,
)

CASES = [((12, 15), (1.0, 1.0)), ((12, 15), (0.5, 1.2)), ((9, 11, 7), (1.0, 1.0, 3.0))]


def blobs(shape, rng, num=7):
    """A random mosaic with holes: objects that touch, with ids far apart."""
    seeds = rng.integers(0, shape, (num, len(shape)))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid[..., None, :] - seeds, axis=-1)
    return np.where(distance.min(-1) < 4, 5 * distance.argmin(-1) + 3, 0)


def batch(shape, rng):
    return torch.from_numpy(np.stack([blobs(shape, rng), blobs(shape, rng)]))


def each_object(ids):
    for patch, own in enumerate(ids.numpy()):
        for number in np.unique(own[own > 0]):
            yield patch, own == number


@pytest.mark.parametrize(("shape", "edges"), CASES)
def test_distances_are_those_to_the_nearest_voxel_of_anything_else(shape, edges, rng):
    ids = batch(shape, rng)
    found = surface_distance(ids, edges=edges).numpy()
    for patch, mask in each_object(ids):
        exact = ndimage.distance_transform_edt(mask, sampling=edges)
        np.testing.assert_allclose(found[patch][mask], exact[mask], rtol=1e-5)
    assert not found[ids.numpy() == 0].any()


@pytest.mark.parametrize(("shape", "edges"), CASES)
def test_depth_is_one_at_the_deepest_voxel_of_every_object(shape, edges, rng):
    ids = batch(shape, rng)
    depth = depth_targets(ids, edges=edges).numpy()
    for patch, mask in each_object(ids):
        exact = ndimage.distance_transform_edt(mask, sampling=edges)
        np.testing.assert_allclose(depth[patch][mask], exact[mask] / exact.max(), rtol=1e-5)


def test_an_object_that_fills_a_patch_has_a_finite_depth():
    depth = depth_targets(torch.ones((1, 6, 6)), edges=(1, 1))
    assert torch.isfinite(depth).all()


@pytest.mark.parametrize(("shape", "edges"), CASES)
def test_offsets_lead_to_the_voxel_nearest_to_the_centroid(shape, edges, rng):
    ids = batch(shape, rng)
    heat, offset = whole_centre_targets(ids, edges=edges, sigma_share=0.5)
    size = np.array(edges) / min(edges)
    for patch, mask in each_object(ids):
        voxels = np.argwhere(mask) * size
        away = np.linalg.norm(voxels - voxels.mean(0), axis=1)
        centre = voxels + offset[patch].numpy()[:, mask].T
        assert np.ptp(centre, axis=0).max() < 1e-4
        nearest = np.linalg.norm(centre[0] - voxels.mean(0))
        assert nearest == pytest.approx(away.min(), abs=1e-4)
        volume = len(voxels) * size.prod()
        radius = (volume / np.pi) ** 0.5 if len(edges) == 2 else (0.75 * volume / np.pi) ** (1 / 3)
        squared = ((voxels - centre) ** 2).sum(1)
        expected = np.exp(-squared / (2 * (0.5 * radius) ** 2))
        np.testing.assert_allclose(heat[patch].numpy()[mask], expected, atol=1e-5)
    outside = ids.numpy() == 0
    assert not heat.numpy()[outside].any()
    assert not offset.numpy().transpose(0, *range(2, offset.ndim), 1)[outside].any()


def test_objects_of_two_patches_with_one_id_are_two():
    ids = torch.tensor([[[0, 4], [4, 9]], [[4, 4], [4, 4]]])
    number = number_objects(ids)
    assert number[0].flatten().tolist() == [0, 1, 1, 2]
    assert set(number[1].flatten().tolist()) == {3}


def test_no_objects_give_no_heat():
    nothing = torch.zeros((2, 5, 5), dtype=torch.int64)
    heat, offset = whole_centre_targets(nothing, edges=(1, 1), sigma_share=0.5)
    assert not heat.any()
    assert not offset.any()
    assert not depth_targets(nothing, edges=(1, 1)).any()


def test_ids_and_centres_turn_with_the_image_and_still_make_the_objects():
    """A rotated batch: its targets give its objects, and lead to where these lie by now."""
    ids = torch.zeros((1, 40, 40, 1), dtype=torch.int64)
    for number, (i, j) in enumerate([(12, 12), (12, 22), (24, 14), (26, 28)], start=300):
        ids[0, i - 4 : i + 4, j - 5 : j + 5] = number
    label = (ids > 0).long()
    spatial = SpatialAugment(probability=1, rotate_deg=90, scale=(1.0, 1.0), mirror_axes=(0, 1))
    augment = Augment(patch_vox=(40, 40, 1), spatial=spatial)
    rows = rows_of(ids, (1.0, 1.0))
    _, turned_label, turned, moved = augment(
        (ids[:, None] % 7).float(),
        label,
        ids,
        generator=torch.Generator().manual_seed(3),
        objects_BM5=rows,
    )
    assert torch.equal(turned > 0, turned_label > 0)
    assert set(turned.unique().tolist()) <= {0, 300, 301, 302, 303}
    assert not torch.equal(turned, ids)
    way, mask = Centres(), turned[0] > 0
    heat, offset = centre_targets(turned[..., 0], moved, edges=(1, 1), sigma_share=0.5)
    found, _ = group_by_centres(
        heat[0, ..., None], offset[0, ..., None] / way.unit_vox, mask, way=way, edges=(1, 1, 1)
    )
    pairs = torch.stack([found[mask].long(), turned[0][mask]]).unique(dim=1)
    assert pairs.shape[1] == len(found[mask].unique()) == len(turned.unique()) - 1
    for number, *centre, _, _ in moved[0].tolist():
        voxels = (turned[0, ..., 0] == number).nonzero().float()
        assert (voxels.mean(0) - torch.tensor(centre)).abs().max() < 1.5
    assert (moved - rows)[0, :, 1:3].abs().max() > 3
