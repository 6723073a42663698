"""Augmentation: reproducible from its generator, consistent between image and label."""

import pytest
import torch

from medseg.core.errors import ConfigError
from medseg.transforms.augment import Augment, IntensityAugment
from medseg.transforms.motion import SpatialAugment

STILL = SpatialAugment(probability=0, mirror_axes=())
QUIET = IntensityAugment(noise=0, blur=0, brightness=0, contrast=0, gamma=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
