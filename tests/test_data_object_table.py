"""What patches bring along of whole objects, against brute force and against whole cases."""

import numpy as np
import pytest
import torch

from medseg.data import object_table
from medseg.data.object_table import ObjectTable, stack_rows
from medseg.transforms.object_targets import centre_targets, has_unknown_extent

EDGES = (0.5, 1.0, 2.0)


def mosaic(rng, shape=(40, 36, 6), num=9):
    """Objects that touch, many of them larger than a patch, with ids far apart."""
    seeds = rng.integers(0, shape, (num, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid[..., None, :] - seeds, axis=-1)
    return np.where(distance.min(-1) < 14, 5 * distance.argmin(-1) + 3, 0).astype(np.int32)


@pytest.mark.parametrize("flat", [False, True])
def test_centres_are_the_voxels_nearest_to_the_centroids(flat, rng):
    ids = mosaic(rng)
    table = ObjectTable.of(ids, edges=EDGES, flat=flat)
    slices = range(ids.shape[2]) if flat else [slice(None)]
    seen = 0
    for place, own in enumerate(slices):
        part = np.atleast_3d(ids[:, :, own])
        rows = table.within(part, (0, 0, place if flat else 0))
        assert rows[:, 0].tolist() == np.unique(part[part > 0]).tolist()
        for number, *centre, size in rows.tolist():
            voxels = np.argwhere(part == number)
            away = np.linalg.norm((voxels - voxels.mean(0)) * EDGES, axis=1)
            (at,) = np.flatnonzero((voxels == centre).all(1))
            assert away[at] == pytest.approx(away.min())
            assert size == len(voxels)
            seen += 1
    assert seen == len(table.rows_M5)


@pytest.mark.parametrize("flat", [False, True])
def test_a_patch_that_cuts_objects_has_the_targets_of_the_whole_case(flat, rng):
    ids = mosaic(rng)
    table = ObjectTable.of(ids, edges=EDGES, flat=flat)
    dims, size = (2, (12, 10, 1)) if flat else (3, (12, 10, 4))
    num_cut = 0
    for _ in range(20):
        first = [int(rng.integers(0, n - p + 1)) for n, p in zip(ids.shape, size, strict=True)]
        box = tuple(slice(f, f + p) for f, p in zip(first, size, strict=True))
        if flat:
            whole, box = ids[:, :, first[2]], box[:2]
            at = (0, 0, first[2])
        else:
            whole, at = ids, (0, 0, 0)
        part = whole[box]

        def targets(own, start):
            volume = np.atleast_3d(own)
            return centre_targets(
                torch.from_numpy(own)[None],
                torch.from_numpy(stack_rows([table.within(volume, start)])),
                edges=EDGES[:dims],
                sigma_share=0.5,
            )

        heat, offset = targets(part, first)
        whole_heat, whole_offset = targets(whole, at)
        assert torch.allclose(heat[0], whole_heat[0][box], atol=1e-5)
        assert torch.allclose(offset[0], whole_offset[(0, slice(None), *box)], atol=1e-4)
        own = ObjectTable.of(np.atleast_3d(part), edges=EDGES, flat=flat)
        seen = own.within(np.atleast_3d(part), (0, 0, 0))[:, 1:4]
        num_cut += not np.array_equal(seen, table.within(np.atleast_3d(part), first)[:, 1:4])
    # Where what the patch holds has its middle elsewhere.
    assert num_cut > 10


@pytest.mark.parametrize("flat", [False, True])
def test_an_object_that_touches_ignored_voxels_has_no_extent_in_any_patch(flat):
    ids = np.zeros((40, 8, 3), np.int32)
    ids[4:20, 2:6], ids[26:36, 2:6] = 4, 9
    ignored = np.zeros(ids.shape, bool)
    ignored[20:22, 2:6] = True
    table = ObjectTable.of(ids, edges=EDGES, flat=flat, ignored_IJK=ignored)
    # Neither patch shows an ignored voxel.
    for number, box in ((4, np.s_[4:12]), (9, np.s_[24:38])):
        patch = ids[box][:, :, 1:2] if flat else ids[box]
        rows = torch.from_numpy(table.within(patch, (box.start, 0, int(flat)))[None])
        unknown = has_unknown_extent(torch.from_numpy(patch)[None], rows)[0].numpy()
        assert np.array_equal(unknown, (patch == 4) if number == 4 else np.zeros(patch.shape, bool))


def test_slabs_change_nothing(rng, monkeypatch):
    ids = mosaic(rng)
    whole = ObjectTable.of(ids, edges=EDGES, flat=False)
    monkeypatch.setattr(object_table, "_SLAB_VOX", 3 * ids[0].size)
    assert np.array_equal(ObjectTable.of(ids, edges=EDGES, flat=False).rows_M5, whole.rows_M5)


def test_patches_without_objects_and_cases_without_objects_have_rows_of_no_object(rng):
    empty = np.zeros((6, 5, 4), np.int32)
    none = ObjectTable.of(empty, edges=EDGES, flat=False).within(empty, (0, 0, 0))
    assert none.shape == (0, 5)
    ids = mosaic(rng)
    some = ObjectTable.of(ids, edges=EDGES, flat=False).within(ids, (0, 0, 0))
    rows = torch.from_numpy(stack_rows([none, some]))
    assert rows.shape == (2, len(some), 5)
    heat, offset = centre_targets(
        torch.from_numpy(np.stack([np.zeros_like(ids), ids])), rows, edges=EDGES, sigma_share=0.5
    )
    assert not heat[0].any()
    assert not offset[0].any()
    assert heat[1].max() == 1
    assert torch.isfinite(heat).all()
    assert torch.isfinite(offset).all()
