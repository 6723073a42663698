"""How the patches of a batch move: turned and scaled about their middle, cropped, mirrored.

What moves is images, maps of whole numbers, and positions of objects, all by the same draws.

Axes: B patch, C channel, M map of whole numbers (of objects: object), IJK voxel.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Motion:
    """The draws of one batch, on the CPU.

    Attributes:
        patch_vox: size of the patches that leave.
        matrix_B33: from offsets after the move to those before it, from the middle, in voxels.
        warped_B: which patches are turned and scaled at all.
        flips_B3: axes that are mirrored.
        swapped_B: in which patches left and right have changed sides.
        mirror_order: see `SpatialAugment`.
    """

    patch_vox: Triple
    matrix_B33: torch.Tensor
    warped_B: torch.Tensor
    flips_B3: torch.Tensor
    swapped_B: torch.Tensor
    mirror_order: tuple[int, ...] | None

    @classmethod
    def draw(
        cls, num: int, spatial: SpatialAugment, *, patch_vox: Triple, generator: torch.Generator
    ) -> "Motion":
        """Draw how `num` patches move; every draw comes from the generator."""
        matrix_B33 = _draw_matrices(num, spatial, flat=patch_vox[2] == 1, generator=generator)
        warped_B = torch.rand(num, generator=generator) < spatial.probability
        flips_B3 = torch.rand((num, 3), generator=generator) < 0.5
        mirrored = torch.tensor([axis in spatial.mirror_axes for axis in range(3)])
        flips_B3 = flips_B3 & mirrored
        sided = spatial.mirror_order is not None
        return cls(
            patch_vox=patch_vox,
            matrix_B33=matrix_B33,
            warped_B=warped_B,
            flips_B3=flips_B3,
            swapped_B=flips_B3[:, spatial.sided_axis] & sided,
            mirror_order=spatial.mirror_order,
        )

    def move(
        self, image_BCIJK: torch.Tensor, maps_BMIJK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move images and maps; in the first map, classes with a partner change sides."""
        return self._mirror(*self._warp(image_BCIJK, maps_BMIJK))

    def move_objects(self, objects_BM5: torch.Tensor, *, within: torch.Size) -> torch.Tensor:
        """Move the centres of objects, and scale their sizes.

        Args:
            objects_BM5: as in `object_targets`, of the patches as they were cut out.
            within: their size.
        """
        device = objects_BM5.device
        before, after = torch.tensor(within), torch.tensor(self.patch_vox)
        cropped_BM3 = objects_BM5[..., 1:4] - ((before - after) // 2).to(device)
        offset_BM3 = objects_BM5[..., 1:4] - ((before - 1) / 2).to(device)
        turned_BM3 = offset_BM3 @ torch.linalg.inv(self.matrix_B33).mT.to(device)
        warped_B11 = self.warped_B.to(device)[:, None, None]
        last = (after - 1).to(device)
        # A centre is a voxel; between voxels the heat of a small object would have no peak.
        at_BM3 = torch.where(warped_B11, (turned_BM3 + last / 2).round(), cropped_BM3)
        at_BM3 = torch.where(self.flips_B3.to(device)[:, None], last - at_BM3, at_BM3)
        smaller_B11 = torch.linalg.det(self.matrix_B33).to(device)[:, None, None]
        vox_BM1 = objects_BM5[..., 4:] / torch.where(warped_B11, smaller_B11, 1)
        return torch.cat([objects_BM5[..., :1], at_BM3, vox_BM1], dim=-1)

    def move_annotated(self, annotated_BL: torch.Tensor) -> torch.Tensor:
        """Let the classes that were annotated change sides as those of the label map do."""
        if self.mirror_order is None:
            return annotated_BL
        other_BL = annotated_BL[:, list(self.mirror_order)]
        return torch.where(self.swapped_B.to(other_BL.device)[:, None], other_BL, annotated_BL)

    def _warp(
        self, image_BCIJK: torch.Tensor, maps_BMIJK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotate and scale some patches of a batch about their centre; crop all to the patch."""
        image, maps = _centre(image_BCIJK, self.patch_vox), _centre(maps_BMIJK, self.patch_vox)
        if not self.warped_B.any():
            return image, maps
        chosen = self.warped_B.nonzero()[:, 0].to(image.device)
        grid = _sampling_grid(
            self.matrix_B33[self.warped_B].to(image.device),
            self.patch_vox,
            within=image_BCIJK.shape[2:],
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

    def _mirror(
        self, image_BCIJK: torch.Tensor, maps_BMIJK: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image, maps = list(image_BCIJK), list(maps_BMIJK)
        for patch, flips in enumerate(self.flips_B3.tolist()):
            axes = [axis + 1 for axis in range(3) if flips[axis]]
            if not axes:
                continue
            image[patch] = image[patch].flip(axes)
            maps[patch] = maps[patch].flip(axes)
            if self.swapped_B[patch] and self.mirror_order is not None:
                maps[patch][0] = _swap_sides(maps[patch][0], self.mirror_order)
        return torch.stack(image), torch.stack(maps)


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
