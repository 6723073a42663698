"""Augmentation of whole batches as tensor operations, on the device that trains.

Axes: B patch, C channel, M map of whole numbers, IJK voxel. Every draw comes from the generator
given, so the same generator state gives the same batch.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from medseg.core.errors import ConfigError
from medseg.transforms.blur import blurred

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialAugment:
    """Rotation, scaling and mirroring.

    Attributes:
        spacing: lengths of a voxel's edges, in any unit; a rotation is rigid in space, whatever
            the shape of the voxels.
        probability: of rotating and scaling a patch.
        rotate_deg: largest rotation about each axis; only about k for 2D patches.
        scale: smallest and largest zoom.
        mirror_axes: axes (0, 1, 2) flipped with probability 1/2 each.
        sided_axis: the axis that runs between left and right.
        mirror_order: for each class index, the index that a flip of that axis turns it into.
    """

    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    probability: float = 0.3
    rotate_deg: float = 15.0
    scale: tuple[float, float] = (0.8, 1.25)
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    sided_axis: int = 0
    mirror_order: tuple[int, ...] | None = None


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
        annotated_BL: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Augment a batch.

        Args:
            image_BCIJK: float, at least `patch_vox` large.
            maps_BIJK: integers on the same grid: the label map, then what only moves along with
                it, such as ids of objects.
            generator: on the CPU.
            annotated_BL: which classes were annotated; None: all.

        Returns:
            Image and maps of `patch_vox`; last, where it was given, `annotated_BL`, in which the
            classes of a mirrored patch have changed sides as they have in the label map.
        """
        image_BCIJK, maps_BMIJK = warp(
            image_BCIJK,
            torch.stack([one.long() for one in maps_BIJK], dim=1),
            self.spatial,
            patch_vox=self.patch_vox,
            generator=generator,
        )
        image_BCIJK, maps_BMIJK, turned_B = mirror(
            image_BCIJK, maps_BMIJK, self.spatial, generator=generator
        )
        image_BCIJK = vary_intensity(image_BCIJK, self.intensity, generator=generator)
        if self.channel_dropout and image_BCIJK.shape[1] > 1:
            image_BCIJK = drop_channels(image_BCIJK, self.channel_dropout, generator=generator)
        if annotated_BL is None:
            return image_BCIJK, *maps_BMIJK.unbind(1)
        if self.spatial.mirror_order is not None:
            other_BL = annotated_BL[:, list(self.spatial.mirror_order)]
            annotated_BL = torch.where(
                turned_B.to(other_BL.device)[:, None], other_BL, annotated_BL
            )
        return image_BCIJK, *maps_BMIJK.unbind(1), annotated_BL


def warp(
    image_BCIJK: torch.Tensor,
    maps_BMIJK: torch.Tensor,
    spatial: SpatialAugment,
    *,
    patch_vox: Triple,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate and scale some patches of a batch about their centre; crop all to `patch_vox`."""
    num = len(image_BCIJK)
    matrix_B33 = _draw_matrices(num, spatial, flat=patch_vox[2] == 1, generator=generator)
    warped = torch.rand(num, generator=generator) < spatial.probability
    image, maps = _centre(image_BCIJK, patch_vox), _centre(maps_BMIJK, patch_vox)
    if not warped.any():
        return image, maps
    chosen = warped.nonzero()[:, 0].to(image.device)
    grid = _sampling_grid(
        matrix_B33[warped].to(image.device), patch_vox, within=image_BCIJK.shape[2:]
    )
    image, maps = image.clone(), maps.clone()
    image[chosen] = functional.grid_sample(
        image_BCIJK[chosen], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    # Whole numbers up to 2^24 pass through float32 unharmed.
    sampled = functional.grid_sample(
        maps_BMIJK[chosen].to(image.dtype),
        grid,
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    maps[chosen] = sampled.round().to(maps.dtype)
    return image, maps


def mirror(
    image_BCIJK: torch.Tensor,
    maps_BMIJK: torch.Tensor,
    spatial: SpatialAugment,
    *,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Flip patches along the mirror axes; in the first map, classes with a partner change sides.

    Returns:
        Image and maps, and in which patches (B, bool, on the CPU) sides have changed.
    """
    flips = torch.rand((len(image_BCIJK), 3), generator=generator) < 0.5
    sided = spatial.mirror_order is not None and spatial.sided_axis in spatial.mirror_axes
    turned_B = flips[:, spatial.sided_axis] & sided
    image, maps = list(image_BCIJK), list(maps_BMIJK)
    for patch in range(len(image)):
        axes = [axis for axis in spatial.mirror_axes if flips[patch, axis]]
        if not axes:
            continue
        image[patch] = image[patch].flip([axis + 1 for axis in axes])
        maps[patch] = maps[patch].flip([axis + 1 for axis in axes])
        if turned_B[patch] and spatial.mirror_order is not None:
            maps[patch][0] = _swap_sides(maps[patch][0], spatial.mirror_order)
    return torch.stack(image), torch.stack(maps), turned_B


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


def _draw_matrices(
    num: int, spatial: SpatialAugment, *, flat: bool, generator: torch.Generator
) -> torch.Tensor:
    """Draw a rotation times a zoom a patch, (B, 3, 3), from output to input offsets in voxels."""
    turn = (2 * torch.rand((num, 3), generator=generator) - 1) * spatial.rotate_deg
    if flat:
        turn[:, :2] = 0
    low, high = torch.tensor(spatial.scale).log()
    zoom = torch.exp(low + (high - low) * torch.rand(num, generator=generator))
    cosine, sine = torch.cos(torch.deg2rad(turn)), torch.sin(torch.deg2rad(turn))
    matrix = torch.eye(3).repeat(num, 1, 1)
    for axis, (first, second) in enumerate(((1, 2), (0, 2), (0, 1))):
        about = torch.eye(3).repeat(num, 1, 1)
        about[:, first, first] = about[:, second, second] = cosine[:, axis]
        about[:, first, second], about[:, second, first] = -sine[:, axis], sine[:, axis]
        matrix = matrix @ about
    scale = 1 / zoom[:, None].repeat(1, 3)
    if flat:
        scale[:, 2] = 1
    edges = torch.tensor(spatial.spacing)
    return matrix * scale[:, None, :] * edges[None, None, :] / edges[None, :, None]


def _sampling_grid(
    matrix_B33: torch.Tensor, patch_vox: Triple, *, within: torch.Size
) -> torch.Tensor:
    """Where grid_sample reads each output voxel, (B, I, J, K, 3), centred on the larger patch."""
    device = matrix_B33.device
    offsets = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in patch_vox]
    output = torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1)
    source = torch.einsum("bxy,ijky->bijkx", matrix_B33, output)
    half = torch.tensor(within, device=device, dtype=torch.float32) / 2
    return (source / half).flip(-1)


def _centre(patches: torch.Tensor, patch_vox: Triple) -> torch.Tensor:
    """Crop the last three axes to the patch about their centre."""
    for axis, want in zip((-3, -2, -1), patch_vox, strict=True):
        patches = patches.narrow(axis, (patches.shape[axis] - want) // 2, want)
    return patches


def _swap_sides(label_IJK: torch.Tensor, mirror_order: tuple[int, ...]) -> torch.Tensor:
    highest = int(label_IJK.max())
    # Indices past the last class (voxels to ignore) have no side.
    order = torch.tensor([*mirror_order, *range(len(mirror_order), highest + 1)])
    return order.to(label_IJK)[label_IJK.long()]


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * share
