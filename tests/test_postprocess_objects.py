"""Objects told apart by each way, against drawn objects and brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_objects import whole_centre_targets
from scipy import ndimage

from medseg.core.errors import PlanError
from medseg.core.geometry import Geometry
from medseg.core.objects import Centres, Components, Distances, ObjectPlan, way_of
from medseg.postprocess.centres import find_peaks, group_by_centres, highest_within
from medseg.postprocess.components import (
    drop_small,
    largest_pieces,
    number_components,
    number_consecutively,
)
from medseg.postprocess.fusion import fuse
from medseg.postprocess.objects import Objects, find_objects
from medseg.postprocess.smoothing import smooth
from medseg.postprocess.watershed import grow, split_by_distance
from medseg.transforms.object_targets import depth_targets

EDGES = {2: (1.0, 1.0, 1.0), 3: (1.0, 1.0, 2.5)}


def touching_balls(dims, radius=6.0):
    """Two balls that overlap, each voxel given to the nearer centre; the centres as well."""
    shape = (20, 32, 1) if dims == 2 else (20, 32, 9)
    edges = np.array(EDGES[dims])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * edges
    depth = 0 if dims == 2 else 4
    centres = np.array([(10, 10, depth), (10, 20, depth)])
    distance = np.linalg.norm(grid[..., None, :] - centres * edges, axis=-1)
    ids = np.where(distance.min(-1) <= radius, distance.argmin(-1) + 1, 0).astype(np.int32)
    return ids, centres, grid


def centre_maps(ids, centres, grid, way, edges, dims):
    to_own = np.array(centres) * edges
    offset = np.where(ids[..., None] > 0, to_own[np.maximum(ids, 1) - 1] - grid, 0)
    heat = np.where(ids > 0, np.exp(-(offset**2).sum(-1) / 18), 0)
    offset = offset.transpose(3, 0, 1, 2)[:dims] / (way.unit_vox * min(edges))
    return torch.from_numpy(heat).float(), torch.from_numpy(offset).float()


def same_objects(found, drawn):
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), drawn.ravel(), strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("dims", [2, 3])
def test_true_centre_maps_give_back_the_objects_on_any_spacing(dims):
    ids, centres, grid = touching_balls(dims)
    way = Centres()
    heat, offset = centre_maps(ids, centres, grid, way, EDGES[dims], dims)
    found, heat_M = group_by_centres(
        heat, offset, torch.from_numpy(ids > 0), way=way, edges=EDGES[dims]
    )
    assert same_objects(found.numpy(), ids)
    assert heat_M.tolist() == [1, 1]


def test_grouping_is_the_nearest_centre_of_brute_force(rng):
    shape, edges = (7, 9, 4), (1.0, 1.0, 3.0)
    heat = torch.from_numpy(rng.random(shape)).float()
    offset = torch.from_numpy(rng.normal(size=(3, *shape)) / 8).float()
    mask = torch.from_numpy(rng.random(shape) < 0.5)
    way = Centres(least_heat=0.9, apart_vox=1, smooth_vox=0)
    found, _ = group_by_centres(heat, offset, mask, way=way, edges=edges)
    peaks = find_peaks(heat, way=way, edges=edges).numpy()
    for voxel in np.argwhere(mask.numpy()):
        at = voxel * edges + offset[(slice(None), *voxel)].numpy() * way.unit_vox
        distance = np.linalg.norm(peaks * edges - at, axis=1)
        assert distance[int(found[tuple(voxel)]) - 1] == pytest.approx(distance.min(), abs=1e-4)


def test_of_equally_hot_neighbours_one_is_a_centre():
    heat = torch.zeros((9, 9, 1))
    heat[3:5, 3:6] = 0.9
    assert len(find_peaks(heat, way=Centres(), edges=(1, 1, 1))) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_watershed_of_the_depth_parts_touching_balls(dims):
    ids, _, _ = touching_balls(dims)
    depth = np.zeros(ids.shape, np.float32)
    for number in (1, 2):
        own = ndimage.distance_transform_edt(ids == number, sampling=EDGES[dims])
        depth += (own / own.max()).astype(np.float32)
    found = split_by_distance([depth], ids > 0, seed_level=0.5)
    assert same_objects(found, ids)


@pytest.mark.parametrize("dims", [2, 3])
def test_small_objects_that_touch_each_other_and_a_large_one_survive_the_blur(dims):
    shape = (44, 30, 1 if dims == 2 else 24)
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    middle = 0 if dims == 2 else 12
    ids = np.zeros(shape, np.int32)
    for number, (i, j, radius) in enumerate([(12, 14, 10), (25, 12, 3), (25, 18, 3)], start=1):
        ids[np.linalg.norm(place - (i, j, middle), axis=-1) <= radius] = number
    flat = torch.from_numpy(ids[..., 0] if dims == 2 else ids)
    depth = depth_targets(flat[None], edges=(1.0,) * dims).reshape(1, *shape)
    found = find_objects(
        torch.from_numpy(np.stack([ids == 0, ids > 0]).astype(np.float32)),
        depth,
        plan=ObjectPlan(task="instance", way=Distances()),
        things=(1,),
        edges=(1.0, 1.0, 1.0),
        least_vox=0,
    )
    assert len(found) == 3
    assert np.array_equal(found.ids_IJK > 0, ids > 0)
    for number in (1, 2, 3):
        own = found.ids_IJK == np.bincount(found.ids_IJK[ids == number]).argmax()
        assert (own & (ids == number)).sum() / (own | (ids == number)).sum() > 0.8


def test_a_rough_map_does_not_cut_an_object(rng):
    shape = (40, 40, 1)
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    ids = (np.linalg.norm(place - (20, 20, 0), axis=-1) <= 14).astype(np.int32)
    true = depth_targets(torch.from_numpy(ids[None, ..., 0]), edges=(1.0, 1.0))[..., None]
    for _ in range(6):
        rough = true + 0.15 * torch.from_numpy(rng.normal(size=true.shape)).float()
        found = find_objects(
            torch.from_numpy(np.stack([1 - ids, ids]).astype(np.float32)),
            rough,
            plan=ObjectPlan(task="instance", way=Distances()),
            things=(1,),
            edges=(1.0, 1.0, 1.0),
            least_vox=0,
        )
        assert len(found) == 1


def test_a_piece_without_a_seed_is_one_object_and_nothing_floods_between_pieces():
    mask = np.zeros((12, 5, 1), bool)
    mask[1:4, 1:4], mask[6:8, 1:4] = True, True
    depth = np.zeros(mask.shape, np.float32)
    depth[2, 2] = 1
    found = split_by_distance([depth], mask, seed_level=0.5)
    assert same_objects(found, number_components(mask))
    assert not split_by_distance([depth], mask & False, seed_level=0.5).any()


def test_corners_join_pieces_or_not():
    mask = np.eye(3, dtype=bool)[..., None]
    assert number_components(mask).max() == 1
    assert number_components(mask, corners=False).max() == 3


def test_of_an_object_in_pieces_the_largest_is_kept():
    ids = np.zeros((10, 1, 1), np.int32)
    ids[0:2], ids[3:7], ids[8:9] = 1, 1, 2
    assert largest_pieces(ids).ravel().tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 2, 0]


def test_seeds_fill_their_piece_of_the_mask_each_voxel_to_the_nearest():
    mask = np.array([1, 1, 1, 1, 1, 1, 0, 1, 1], bool).reshape(-1, 1, 1)
    seeds = np.array([1, 0, 0, 0, 2, 2, 0, 0, 0], np.int32).reshape(-1, 1, 1)
    assert grow(seeds, mask).ravel().tolist() == [1, 1, 1, 2, 2, 2, 0, 3, 3]


def test_voxels_that_point_elsewhere_stay_with_the_object_around_them():
    ids, centres, grid = touching_balls(2)
    way = Centres()
    heat, offset = centre_maps(ids, centres, grid, way, EDGES[2], 2)
    # Two voxels deep inside the first object claim the centre of the second.
    astray = (slice(None), slice(8, 10), 8, 0)
    offset[astray] = torch.tensor([[0.0, 0.0], [12.0, 12.0]]) / way.unit_vox
    found = find_objects(
        scores_of((ids > 0).astype(np.int64), 2),
        torch.cat([heat[None], offset]),
        plan=ObjectPlan(task="instance", way=way),
        things=(1,),
        edges=EDGES[2],
        least_vox=0,
    )
    assert same_objects(found.ids_IJK, ids)


@pytest.mark.parametrize("way", [Components(), Centres(), Distances()])
def test_a_thin_slanting_object_is_one(way):
    ids = np.eye(20, dtype=np.int32)[..., None]
    targets = torch.from_numpy(ids[None, ..., 0])
    heads = torch.zeros(0, 20, 20, 1)
    if isinstance(way, Centres):
        heat, offset = whole_centre_targets(targets, edges=(1.0, 1.0), sigma_share=way.sigma_share)
        heads = torch.cat([heat[:, None], offset / way.unit_vox], dim=1)[0][..., None]
    if isinstance(way, Distances):
        heads = depth_targets(targets, edges=(1.0, 1.0))[0][None, ..., None]
        way = replace(way, smooth_vox=0.0)
    found = find_objects(
        torch.from_numpy(np.stack([1 - ids, ids]).astype(np.float32)),
        heads,
        plan=ObjectPlan(task="instance", way=way),
        things=(1,),
        edges=(1.0, 1.0, 1.0),
        least_vox=3,
    )
    assert same_objects(found.ids_IJK, ids)


@pytest.mark.parametrize("reach", [(4, 4, 0), (1, 3, 2)])
def test_the_highest_within_a_box_is_that_of_one_pooling(reach):
    values = torch.randn(17, 12, 9, generator=torch.Generator().manual_seed(0))
    window = [2 * n + 1 for n in reach]
    expected = torch.nn.functional.max_pool3d(values[None, None], window, 1, list(reach))
    assert torch.equal(highest_within(values, reach), expected[0, 0])


def test_small_objects_are_dropped_by_volume_and_the_rest_numbered():
    ids = np.array([1, 1, 0, 4, 4, 4, 9, 0], np.int32).reshape(-1, 1, 1)
    kept, old = number_consecutively(drop_small(ids, 2))
    assert kept.ravel().tolist() == [1, 1, 0, 2, 2, 2, 0, 0]
    assert old.tolist() == [1, 4]
    plan = ObjectPlan(task="instance", least_ml=0.003, least_px=7)
    assert plan.least_vox(Geometry((2, 2, 2), np.diag([1, 1, 1.5, 1]))) == pytest.approx(2)
    assert plan.least_vox(Geometry((2, 2, 1), np.eye(4), "px")) == pytest.approx(7)


def test_a_size_left_open_is_none_until_it_is_measured():
    fine, picture = (
        Geometry((2, 2, 2), np.diag([1, 1, 0.5, 1])),
        Geometry((2, 2, 1), np.eye(4), "px"),
    )
    plan = ObjectPlan(task="instance", least_px=7)
    assert plan.least_vox(fine) == 0
    assert plan.or_least(4, fine).least_vox(fine) == pytest.approx(4)
    assert plan.or_least(4, fine).least_ml == pytest.approx(0.002)
    assert plan.or_least(4, picture) == plan


def scores_of(classes, num):
    return (
        torch.nn.functional.one_hot(torch.from_numpy(classes).long(), num)
        .permute(3, 0, 1, 2)
        .float()
        * 0.8
        + 0.2 / num
    )


def test_components_of_two_classes_that_touch_are_two_objects_with_their_confidence():
    classes = np.zeros((6, 6, 1), np.int64)
    classes[1:3, 1:5], classes[3:5, 1:5] = 1, 3
    found = find_objects(
        scores_of(classes, 4),
        torch.zeros((0, 6, 6, 1)),
        plan=ObjectPlan(task="panoptic", way=Components()),
        things=(1, 3),
        edges=(1, 1, 1),
        least_vox=0,
    )
    assert found.class_M.tolist() == [1, 3]
    assert same_objects(found.ids_IJK, classes)
    assert found.confidence_M.tolist() == pytest.approx([0.85, 0.85])


@pytest.mark.parametrize("edges", [(1.0, 1.0, 2.5), (2.0, 0.5, 1.0)])
def test_smoothing_is_a_gaussian_of_the_same_width_on_any_spacing(edges, rng):
    values = rng.normal(size=(14, 17, 9)).astype(np.float32)
    sigma = [1.5 * min(edges) / edge for edge in edges]
    expected = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=4)
    found = smooth(torch.from_numpy(values), sigma_vox=1.5, edges=edges).numpy()
    assert np.abs(found - expected).max() < 2e-3
    assert np.array_equal(smooth(torch.from_numpy(values), sigma_vox=0, edges=edges), values)
    picture = torch.from_numpy(values[..., :1]).bfloat16()
    assert smooth(picture, sigma_vox=0, edges=edges).dtype == torch.float32
    assert smooth(picture, sigma_vox=1.5, edges=edges).shape == picture.shape


@pytest.mark.parametrize("way", [Centres(), Distances()])
def test_rough_maps_still_give_the_objects(way, rng):
    ids, centres, grid = touching_balls(2)
    heat, offset = centre_maps(ids, centres, grid, Centres(), EDGES[2], 2)
    if isinstance(way, Distances):
        depth = sum(ndimage.distance_transform_edt(ids == n) / 6 for n in (1, 2))
        heads = torch.from_numpy(depth).float()[None]
    else:
        heads = torch.cat([heat[None], offset])
    heads[0] += torch.from_numpy(rng.normal(0, 0.15, ids.shape)).float()
    found = find_objects(
        scores_of((ids > 0).astype(np.int64), 2),
        heads,
        plan=ObjectPlan(task="instance", way=way),
        things=(1,),
        edges=EDGES[2],
        least_vox=0,
    )
    assert len(found) == 2
    assert (found.ids_IJK[ids == 1] == found.ids_IJK[10, 8, 0]).mean() > 0.95


@pytest.mark.parametrize("dims", [2, 3])
def test_an_object_takes_the_class_most_of_it_has_and_the_heat_of_its_centre(dims):
    ids, centres, grid = touching_balls(dims)
    way = Centres()
    heat, offset = centre_maps(ids, centres, grid, way, EDGES[dims], dims)
    classes = np.where(ids == 2, 2, ids).astype(np.int64)
    classes[10, 8:10] = np.where(ids[10, 8:10] == 1, 2, classes[10, 8:10])
    found = find_objects(
        scores_of(classes, 3),
        torch.cat([0.5 * heat[None], offset]),
        plan=ObjectPlan(task="instance", way=way),
        things=(1, 2),
        edges=EDGES[dims],
        least_vox=0,
    )
    assert found.class_M.tolist() == [1, 2]
    assert same_objects(found.ids_IJK, ids)
    assert found.confidence_M[1] == pytest.approx((0.8 + 0.2 / 3) / 2, abs=1e-5)


def test_things_without_any_centre_are_pieces_without_confidence():
    classes = np.zeros((8, 4, 1), np.int64)
    classes[1:3], classes[5:7] = 1, 1
    plan = ObjectPlan(task="instance", way=Centres())
    found = find_objects(
        scores_of(classes, 2), torch.zeros((3, 8, 4, 1)), plan=plan, things=(1,), edges=(1, 1, 1),
        least_vox=0,
    )  # fmt: skip
    assert len(found) == 2
    assert found.confidence_M.tolist() == [0, 0]


@pytest.mark.parametrize("way", [Components(), Centres(), Distances()])
def test_nothing_gives_no_objects(way):
    found = find_objects(
        scores_of(np.zeros((5, 5, 1), np.int64), 2),
        torch.zeros((way.num_channels(2), 5, 5, 1)),
        plan=ObjectPlan(task="instance", way=way),
        things=(1,),
        edges=(1, 1, 1),
        least_vox=0,
    )
    assert len(found) == 0
    assert not found.ids_IJK.any()


def test_fusion_makes_classes_and_objects_agree():
    label_map = np.array([1, 2, 2, 2, 2, 3, 1, 2], np.uint8).reshape(-1, 1, 1)
    ids = np.array([1, 1, 1, 0, 0, 2, 2, 0], np.int32).reshape(-1, 1, 1)
    objects = Objects(
        ids_IJK=ids, class_M=np.array([3, 2]), confidence_M=np.array([0.5, 0.25], np.float32)
    )
    fused, kept = fuse(label_map, objects, things=(2, 3), reach=1.0)
    # The first voxel is stuff; the fourth joins object 1, the fifth object 2, the last is alone.
    assert kept.ids_IJK.ravel().tolist() == [0, 1, 1, 1, 2, 2, 0, 0]
    assert fused.ravel().tolist() == [1, 3, 3, 3, 2, 2, 1, 0]
    fused, kept = fuse(label_map, objects, things=(3,))
    assert kept.class_M.tolist() == [2]
    assert kept.confidence_M.tolist() == [0.25]
    assert fused.ravel().tolist() == [1, 2, 2, 2, 2, 2, 1, 2]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("center", {}, "expected one of components, centre, distance"),
        ("centre", {"sigma": 3}, "sigma"),
        ("centre", {"least_heat": 1.5}, "below 1"),
        ("distance", {"seed_level": 0}, "above 0"),
        ("distance", {"seed_level": "half"}, "not supported"),
        ("components", {"corners": "some"}, "expected true or false"),
    ],
)
def test_ways_refuse_what_they_do_not_know(name, settings, said):
    with pytest.raises(PlanError, match=said):
        way_of(name, settings)


def test_an_object_plan_survives_json():
    plan = ObjectPlan(task="panoptic", way=Distances(seed_level=0.4), least_ml=0.1)
    assert ObjectPlan.from_json(plan.to_json()) == plan
    with pytest.raises(PlanError, match="expected semantic"):
        ObjectPlan(task="objects")
    with pytest.raises(PlanError, match="a size of 0 or more"):
        ObjectPlan(task="instance", least_ml="small")
