"""Back on the scan's grid: exact for flips and orders of axes, linear for everything else."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from medseg.core.geometry import Geometry
from medseg.core.plan import IntensityPlan, NetworkPlan, Plan, TrainingPlan
from medseg.core.volume import Volume
from medseg.inference.restore import restore, restore_label_map
from medseg.transforms.chains import PrepareChain

OBLIQUE = Rotation.from_euler("xyz", [10, -15, 20], degrees=True).as_matrix()


def most_probable(scores_LIJK):
    return scores_LIJK.argmax(dim=0).numpy()


def plan_with(spacing_mm):
    return Plan(
        dataset="test",
        spatial_dims=3,
        orientation="RAS",
        spacing_mm=spacing_mm,
        patch_vox=(8, 8, 8),
        intensity=(IntensityPlan(channel="image", scheme="none"),),
        network=NetworkPlan(widths=(8,), strides=(), kernels=((3, 3, 3),)),
        training=TrainingPlan(batch_size=1, num_steps=1),
        device="cpu",
    )


def placed(shape, order=(0, 1, 2), signs=(1, 1, 1), spacing_mm=(0.8, 1.0, 3.0), shear=0.0):
    affine = np.eye(4)
    affine[:3, :3] = (OBLIQUE @ np.diag(np.multiply(spacing_mm, signs)))[:, order]
    affine[:3, 0] += shear * affine[:3, 1]
    affine[:3, 3] = (5, -7, 9)
    return Geometry(shape, affine)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_flips_and_orders_of_axes_come_back_voxel_for_voxel(order, rng):
    for signs in product((1, -1), repeat=3):
        geometry = placed((4, 5, 6), order, signs)
        labels = rng.integers(0, 3, geometry.shape)
        scan = Volume(labels[None].astype(np.float32), geometry)
        prepared = PrepareChain(plan_with((None, None, None)))(scan)
        scores = torch.nn.functional.one_hot(prepared.image_CIJK[0].long(), 3).permute(3, 0, 1, 2)
        back = restore_label_map(
            scores.float(), prepared.geometry, onto=geometry, decide=most_probable
        )
        assert np.array_equal(back, labels)


@pytest.mark.parametrize("shear", [0, 0.2])
def test_a_linear_field_survives_resampling_and_the_way_back(shear):
    geometry = placed((30, 26, 14), (2, 0, 1), (1, -1, 1), shear=shear)
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    field = (geometry.to_world(index.reshape(-1, 3)) @ (1.0, 2.0, 3.0)).reshape(geometry.shape)
    scan = Volume(field[None].astype(np.float32), geometry)
    prepared = PrepareChain(plan_with((1.3, 1.3, 2.0)))(scan)
    back = restore(prepared.image_CIJK, prepared.geometry, onto=geometry)[0].numpy()
    inner = (slice(4, -4),) * 3
    assert np.abs(back - field)[inner].max() < 1e-2


def test_prepared_voxels_lie_where_their_geometry_says():
    geometry = placed((30, 26, 14))
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    field = (geometry.to_world(index.reshape(-1, 3)) @ (1.0, 2.0, 3.0)).reshape(geometry.shape)
    prepared = PrepareChain(plan_with((1.3, 1.3, 2.0)))(
        Volume(field[None].astype(np.float32), geometry)
    )
    shape = prepared.geometry.shape
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    world = prepared.geometry.to_world(grid.astype(float))
    inside = (
        (lambda n: (n >= 0) & (n <= np.array(geometry.shape) - 1))(geometry.to_index(world))
    ).all(1)
    error = np.abs(prepared.image_CIJK[0].numpy().ravel() - world @ (1.0, 2.0, 3.0))
    assert inside.mean() > 0.8
    assert error[inside].max() < 1e-3


def test_slabs_join_without_a_seam(monkeypatch, rng):
    geometry = placed((20, 20, 10))
    scores = torch.from_numpy(rng.normal(size=(3, 12, 13, 14)).astype(np.float32))
    source = placed((12, 13, 14), spacing_mm=(1.2, 1.4, 2.0))
    whole = restore_label_map(scores, source, onto=geometry, decide=most_probable)
    monkeypatch.setattr("medseg.inference.restore._SLAB_VOX", 900)
    assert np.array_equal(
        restore_label_map(scores, source, onto=geometry, decide=most_probable), whole
    )
