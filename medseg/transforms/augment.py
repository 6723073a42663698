"""Augmentation of whole batches as tensor operations, on the device that trains.

Axes: B patch, C channel, M map of whole numbers, IJK voxel. Every draw comes from the generator
given, so the same generator state gives the same batch.
"""

from dataclasses import dataclass, field

import torch

from medseg.core.errors import ConfigError
from medseg.transforms.blur import blurred
from medseg.transforms.motion import Motion, SpatialAugment

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityAugment:
    """Noise, blur, brightness, contrast and gamma; each the probability of one patch.

    Magnitudes are in units of the normalised image, whose deviation is about 1.
    """

    noise: float = 0.1
    noise_std: float = 0.15
    blur: float = 0.1
    blur_sigma_vox: tuple[float, float] = (0.5, 1.0)
    brightness: float = 0.15
    brightness_range: float = 0.25
    contrast: float = 0.15
    contrast_range: tuple[float, float] = (0.75, 1.25)
    gamma: float = 0.15
    gamma_range: tuple[float, float] = (0.7, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Everything done to a training batch, the crop to the patch included.

    Attributes:
        patch_vox: size of the patches that leave; those that come may be larger, so that rotated
            corners hold tissue and not padding.
        spatial, intensity: see there.
        channel_dropout: probability that a patch loses one of its channels (set to zero), so that
            a network learns to do without; never all of them.
    """

    patch_vox: Triple
    spatial: SpatialAugment = field(default_factory=SpatialAugment)
    intensity: IntensityAugment = field(default_factory=IntensityAugment)
    channel_dropout: float = 0.0

    def __post_init__(self) -> None:
        shares = {
            "spatial.probability": self.spatial.probability,
            "channel_dropout": self.channel_dropout,
            **{
                f"intensity.{name}": getattr(self.intensity, name)
                for name in ("noise", "blur", "brightness", "contrast", "gamma")
            },
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"augment.{name}={share}: expected a probability, 0 to 1")

    def __call__(
        self,
        image_BCIJK: torch.Tensor,
        *maps_BIJK: torch.Tensor,
        generator: torch.Generator,
        objects_BM5: torch.Tensor | None = None,
        annotated_BL: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Augment a batch.

        Args:
            image_BCIJK: float, at least `patch_vox` large.
            maps_BIJK: integers on the same grid: the label map, then what only moves along with
                it, such as ids of objects.
            generator: on the CPU.
            objects_BM5: where whole objects have their centres, see `object_targets`.
            annotated_BL: which classes were annotated; None: all.

        Returns:
            Image and maps of `patch_vox`; then, where they were given, `objects_BM5` as the patches
            have moved, and `annotated_BL`, in which the classes of a mirrored patch have changed
            sides as they have in the label map.
        """
        within = image_BCIJK.shape[2:]
        motion = Motion.draw(
            len(image_BCIJK), self.spatial, patch_vox=self.patch_vox, generator=generator
        )
        image_BCIJK, maps_BMIJK = motion.move(
            image_BCIJK, torch.stack([one.long() for one in maps_BIJK], dim=1)
        )
        image_BCIJK = vary_intensity(image_BCIJK, self.intensity, generator=generator)
        if self.channel_dropout and image_BCIJK.shape[1] > 1:
            image_BCIJK = drop_channels(image_BCIJK, self.channel_dropout, generator=generator)
        moved = [image_BCIJK, *maps_BMIJK.unbind(1)]
        if objects_BM5 is not None:
            moved.append(motion.move_objects(objects_BM5, within=within))
        if annotated_BL is not None:
            moved.append(motion.move_annotated(annotated_BL))
        return tuple(moved)


def vary_intensity(
    image_BCIJK: torch.Tensor, settings: IntensityAugment, *, generator: torch.Generator
) -> torch.Tensor:
    """Add noise, blur, brightness, contrast and gamma, each to some patches of a batch."""
    image = list(image_BCIJK)
    for patch, draws in enumerate(torch.rand((len(image), 5, 2), generator=generator).tolist()):
        image[patch] = _vary_patch(image[patch], settings, draws=draws, generator=generator)
    return torch.stack(image)


def drop_channels(
    image_BCIJK: torch.Tensor, probability: float, *, generator: torch.Generator
) -> torch.Tensor:
    """Set one channel of some patches to zero."""
    num, channels = image_BCIJK.shape[:2]
    dropped = torch.rand(num, generator=generator) < probability
    which = torch.randint(channels, (num,), generator=generator)
    keep = torch.ones((num, channels))
    keep[dropped, which[dropped]] = 0
    return image_BCIJK * keep.to(image_BCIJK)[..., None, None, None]


def _vary_patch(
    image_CIJK: torch.Tensor,
    settings: IntensityAugment,
    *,
    draws: list[list[float]],
    generator: torch.Generator,
) -> torch.Tensor:
    """Vary one patch; a draw is a pair of uniform numbers: whether, and how much."""
    noise, blur, brightness, contrast, gamma = draws
    if blur[0] < settings.blur:
        image_CIJK = blurred(image_CIJK, _between(settings.blur_sigma_vox, blur[1]))
    if noise[0] < settings.noise:
        field_CIJK = torch.randn(image_CIJK.shape, generator=generator).to(image_CIJK)
        image_CIJK = image_CIJK + field_CIJK * (settings.noise_std * noise[1])
    if contrast[0] < settings.contrast:
        image_CIJK = image_CIJK * _between(settings.contrast_range, contrast[1])
    if brightness[0] < settings.brightness:
        image_CIJK = image_CIJK + settings.brightness_range * (2 * brightness[1] - 1)
    if gamma[0] < settings.gamma:
        image_CIJK = _gamma(image_CIJK, _between(settings.gamma_range, gamma[1]))
    return image_CIJK


def _gamma(image_CIJK: torch.Tensor, power: float) -> torch.Tensor:
    """Bend intensities between each channel's own extremes."""
    low = image_CIJK.amin(dim=(1, 2, 3), keepdim=True)
    reach = (image_CIJK.amax(dim=(1, 2, 3), keepdim=True) - low).clamp_min(1e-6)
    return ((image_CIJK - low) / reach).pow(power) * reach + low


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * share
