"""Augmentation: reproducible from its generator, consistent between image and label."""

import pytest
import torch

from medseg.core.errors import ConfigError
from medseg.transforms.augment import Augment, IntensityAugment, SpatialAugment, mirror, warp

STILL = SpatialAugment(probability=0, mirror_axes=())
QUIET = IntensityAugment(noise=0, blur=0, brightness=0, contrast=0, gamma=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ball(shape=(24, 24, 24), radius=6.0, centre=None):
    axes = [
        torch.arange(n) - (n - 1) / 2 - c for n, c in zip(shape, centre or (0, 0, 0), strict=True)
    ]
    distance = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij")) ** 0.5
    label = (distance < radius).long()
    return (radius - distance).clamp(-2, 2)[None, None].float(), label[None]


def test_the_same_generator_state_gives_the_same_batch():
    image, label = torch.randn(4, 2, 20, 18, 16), torch.randint(3, (4, 20, 18, 16))
    augment = Augment(patch_vox=(16, 16, 16))
    first, second = (augment(image, label, generator=generator(7)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[0].shape == (4, 2, 16, 16, 16)


def test_with_every_probability_at_zero_only_the_crop_is_left():
    image, label = torch.randn(2, 1, 20, 20, 20), torch.randint(3, (2, 20, 20, 20))
    augment = Augment(
        patch_vox=(16, 12, 8),
        spatial=SpatialAugment(probability=0, mirror_axes=()),
        intensity=QUIET,
    )
    out_image, out_label = augment(image, label, generator=generator())
    assert torch.equal(out_image, image[:, :, 2:18, 4:16, 6:14])
    assert torch.equal(out_label, label[:, 2:18, 4:16, 6:14])


def test_image_and_label_are_warped_alike():
    image, label = ball(centre=(3, -2, 1))
    spatial = SpatialAugment(probability=1, rotate_deg=40, scale=(0.8, 1.2))
    for seed in range(5):
        warped, moved = warp(
            image, label[:, None], spatial, patch_vox=(24, 24, 24), generator=generator(seed)
        )
        overlap = ((warped > 0) & (moved > 0)).sum() / ((warped > 0) | (moved > 0)).sum()
        assert overlap > 0.85


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_a_zoom_of_two_doubles_the_diameter(zoom):
    image, label = ball(radius=5)
    spatial = SpatialAugment(probability=1, rotate_deg=0, scale=(zoom, zoom))
    _, moved = warp(image, label[:, None], spatial, patch_vox=(24, 24, 24), generator=generator())
    assert float(moved.sum() / label.sum()) == pytest.approx(zoom**3, rel=0.25)


def test_a_rotation_is_rigid_in_space_on_anisotropic_voxels():
    # 24 x 24 x 8 voxels of 1 x 1 x 3 mm: a ball in mm must stay a ball of the same volume.
    axes = [torch.arange(n) - (n - 1) / 2 for n in (24, 24, 8)]
    i, j, k = torch.meshgrid(*axes, indexing="ij")
    label = ((i**2 + j**2 + (3 * k) ** 2) < 36).long()[None]
    spatial = SpatialAugment(probability=1, rotate_deg=60, scale=(1, 1), spacing=(1, 1, 3))
    for seed in range(5):
        _, moved = warp(
            label[:, None].float(),
            label[:, None],
            spatial,
            patch_vox=(24, 24, 8),
            generator=generator(seed),
        )
        both = (moved[:, 0] > 0) & (label > 0)
        assert both.sum() / ((moved[:, 0] > 0) | (label > 0)).sum() > 0.75


def test_flat_patches_are_turned_in_their_plane_only():
    image, label = ball((24, 24, 1), radius=6, centre=(4, 0, 0))
    spatial = SpatialAugment(probability=1, rotate_deg=90, scale=(1, 1))
    warped, moved = warp(
        image, label[:, None], spatial, patch_vox=(24, 24, 1), generator=generator(3)
    )
    assert warped.shape == (1, 1, 24, 24, 1)
    assert float(moved.sum() / label.sum()) == pytest.approx(1, rel=0.1)


def test_a_flip_turns_left_into_right():
    label = torch.zeros(8, 4, 4, 4, dtype=torch.long)
    label[:, 0], label[:, 3], label[:, 1, 0, 0] = 1, 2, 3
    image = label[:, None].float()
    spatial = SpatialAugment(mirror_axes=(0,), mirror_order=(0, 2, 1))
    flipped, maps, _ = mirror(image, torch.stack([label, label], 1), spatial, generator=generator())
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
    spatial = SpatialAugment(mirror_axes=(0, 1, 2), sided_axis=axis, mirror_order=(0, 2, 1))
    place = torch.arange(8.0).reshape(1, 1, 2, 2, 2).expand(8, -1, -1, -1, -1)
    flipped, maps, turned = mirror(place, label[:, None], spatial, generator=generator())
    mirrored = flipped.flatten(1)[:, 0].long() & (4, 2, 1)[axis] > 0
    assert 0 < int(mirrored.sum()) < 8
    assert torch.equal(maps[:, 0, 0, 0, 0] == 2, mirrored)
    assert torch.equal(turned, mirrored)


def test_where_one_side_was_annotated_a_mirrored_patch_has_the_other_one_annotated():
    label = torch.zeros(8, 4, 4, 4, dtype=torch.long)
    label[:, 0] = 1
    annotated = torch.tensor([[True, True, False]]).expand(8, -1)
    spatial = SpatialAugment(probability=0, mirror_axes=(0,), mirror_order=(0, 2, 1))
    augment = Augment(patch_vox=(4, 4, 4), spatial=spatial, intensity=QUIET)
    _, moved, known = augment(
        torch.zeros(8, 1, 4, 4, 4), label, generator=generator(), annotated_BL=annotated
    )
    # Whatever is labelled in a patch is the side that was annotated.
    assert torch.equal(known[:, 1:].long().argmax(1) + 1, moved.flatten(1).amax(1))
    assert (known.sum(1) == 2).all()
    assert len(moved.unique()) == 3


def test_channel_dropout_leaves_at_least_one_channel():
    image, label = torch.ones(50, 2, 4, 4, 4), torch.zeros(50, 4, 4, 4, dtype=torch.long)
    augment = Augment(
        patch_vox=(4, 4, 4),
        spatial=SpatialAugment(probability=0),
        intensity=QUIET,
        channel_dropout=0.5,
    )
    out, _ = augment(image, label, generator=generator())
    kept = out.amax(dim=(2, 3, 4)).sum(dim=1)
    assert set(kept.tolist()) == {1.0, 2.0}


def test_a_probability_above_one_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"augment\.intensity\.noise=2"):
        Augment(patch_vox=(4, 4, 4), intensity=IntensityAugment(noise=2))


def test_noise_keeps_the_mean_and_gamma_keeps_the_range():
    image, label = torch.rand(8, 1, 16, 16, 16), torch.zeros(8, 16, 16, 16, dtype=torch.long)
    none = dict.fromkeys(("noise", "blur", "brightness", "contrast", "gamma"), 0.0)
    noisy, bent = (
        Augment(
            patch_vox=(16,) * 3, spatial=STILL, intensity=IntensityAugment(**{**none, name: 1})
        )(image, label, generator=generator())[0]
        for name in ("noise", "gamma")
    )
    assert not torch.equal(noisy, image)
    assert not torch.equal(bent, image)
    assert float((noisy - image).mean().abs()) < 5e-3
    torch.testing.assert_close(bent.amax((1, 2, 3, 4)), image.amax((1, 2, 3, 4)))
