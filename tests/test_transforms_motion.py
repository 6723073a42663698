"""How patches move: rigid in space, images and maps and positions by the same draws."""

import pytest
import torch

from medseg.transforms.motion import Motion, SpatialAugment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ball(shape=(24, 24, 24), radius=6.0, centre=None):
    axes = [
        torch.arange(n) - (n - 1) / 2 - c for n, c in zip(shape, centre or (0, 0, 0), strict=True)
    ]
    distance = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij")) ** 0.5
    label = (distance < radius).long()
    return (radius - distance).clamp(-2, 2)[None, None].float(), label[None]


def moved_by(spatial, image, *maps, patch_vox=None, seed=0):
    """Return image, maps stacked, and the motion."""
    patch_vox = patch_vox or tuple(image.shape[2:])
    motion = Motion.draw(len(image), spatial, patch_vox=patch_vox, generator=generator(seed))
    return *motion.move(image, torch.stack(maps, 1)), motion


def test_image_and_label_are_warped_alike():
    image, label = ball(centre=(3, -2, 1))
    spatial = SpatialAugment(mirror_axes=(), probability=1, rotate_deg=40, scale=(0.8, 1.2))
    for seed in range(5):
        warped, moved, _ = moved_by(spatial, image, label, seed=seed)
        overlap = ((warped > 0) & (moved > 0)).sum() / ((warped > 0) | (moved > 0)).sum()
        assert overlap > 0.85


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_a_zoom_of_two_doubles_the_diameter(zoom):
    image, label = ball(radius=5)
    spatial = SpatialAugment(mirror_axes=(), probability=1, rotate_deg=0, scale=(zoom, zoom))
    _, moved, _ = moved_by(spatial, image, label)
    assert float(moved.sum() / label.sum()) == pytest.approx(zoom**3, rel=0.25)


def test_a_rotation_is_rigid_in_space_on_anisotropic_voxels():
    # 24 x 24 x 8 voxels of 1 x 1 x 3 mm: a ball in mm must stay a ball of the same volume.
    axes = [torch.arange(n) - (n - 1) / 2 for n in (24, 24, 8)]
    i, j, k = torch.meshgrid(*axes, indexing="ij")
    label = ((i**2 + j**2 + (3 * k) ** 2) < 36).long()[None]
    spatial = SpatialAugment(
        mirror_axes=(), probability=1, rotate_deg=60, scale=(1, 1), spacing=(1, 1, 3)
    )
    for seed in range(5):
        _, moved, _ = moved_by(spatial, label[:, None].float(), label, seed=seed)
        both = (moved[:, 0] > 0) & (label > 0)
        assert both.sum() / ((moved[:, 0] > 0) | (label > 0)).sum() > 0.75


def test_flat_patches_are_turned_in_their_plane_only():
    image, label = ball((24, 24, 1), radius=6, centre=(4, 0, 0))
    spatial = SpatialAugment(mirror_axes=(), probability=1, rotate_deg=90, scale=(1, 1))
    warped, moved, _ = moved_by(spatial, image, label, seed=3)
    assert warped.shape == (1, 1, 24, 24, 1)
    assert float(moved.sum() / label.sum()) == pytest.approx(1, rel=0.1)


def test_a_flip_turns_left_into_right():
    label = torch.zeros(8, 4, 4, 4, dtype=torch.long)
    label[:, 0], label[:, 3], label[:, 1, 0, 0] = 1, 2, 3
    image = label[:, None].float()
    spatial = SpatialAugment(probability=0, mirror_axes=(0,), mirror_order=(0, 2, 1))
    flipped, maps, _ = moved_by(spatial, image, label, label)
    swapped, moved = maps.unbind(1)
    turned = flipped[:, 0, 0, 1, 1] == 2
    assert 0 < int(turned.sum()) < 8
    # Left stays the low side whatever happened to the picture; the ignore index (3) has no side.
    assert (swapped[:, 0, 1, 1] == 1).all()
    assert (swapped[turned][:, 2, 0, 0] == 3).all()
    # Ids of objects only move along.
    assert torch.equal(moved, flipped[:, 0].long())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sides_change_with_flips_of_the_axis_between_left_and_right_alone(axis):
    label = torch.ones(8, 2, 2, 2, dtype=torch.long)
    spatial = SpatialAugment(probability=0, sided_axis=axis, mirror_order=(0, 2, 1))
    place = torch.arange(8.0).reshape(1, 1, 2, 2, 2).expand(8, -1, -1, -1, -1)
    flipped, maps, motion = moved_by(spatial, place, label)
    mirrored = flipped.flatten(1)[:, 0].long() & (4, 2, 1)[axis] > 0
    assert 0 < int(mirrored.sum()) < 8
    assert torch.equal(maps[:, 0, 0, 0, 0] == 2, mirrored)
    assert torch.equal(motion.swapped_B, mirrored)


@pytest.mark.parametrize(
    ("context", "patch"),
    [((30, 26, 22), (24, 20, 16)), ((31, 26, 22), (24, 21, 16)), ((30, 26, 1), (24, 20, 1))],
)
@pytest.mark.parametrize("probability", [0, 1])
def test_positions_and_sizes_of_objects_move_as_their_voxels_do(context, patch, probability):
    middle = [(n - 1) // 2 for n in context]
    centre = [c + d if n > 1 else 0 for c, d, n in zip(middle, (3, -2, 1), context, strict=True)]
    axes = [torch.arange(n) - c for n, c in zip(context, centre, strict=True)]
    reach = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij")) ** 0.5
    ids = 7 * (reach < 4.2).long()[None].repeat(12, 1, 1, 1)
    spatial = SpatialAugment(
        probability=probability, rotate_deg=40, scale=(0.7, 1.4), spacing=(1.0, 1.0, 1.5)
    )
    _, moved, motion = moved_by(spatial, ids[:, None].float(), ids, patch_vox=patch)
    rows = torch.tensor([[7.0, *centre, float((ids[0] == 7).sum())]]).repeat(12, 1, 1)
    there = motion.move_objects(rows, within=ids.shape[1:])
    exact = 1.0 if probability else 1e-5
    for own, (number, *at, size) in zip(moved[:, 0], there[:, 0].tolist(), strict=True):
        voxels = (own == 7).nonzero().float()
        assert number == 7
        assert (voxels.mean(0) - torch.tensor(at)).abs().max() < exact
        assert len(voxels) == pytest.approx(size, rel=0.2 if probability else 1e-5)
