"""What a device can bear: voxels of a patch, of a case, widths of a network, steps.

On a CPU the first convolution already halves the resolution, since a full-resolution stage costs
several times the rest of the network.
"""

from dataclasses import dataclass
from typing import Literal

from medseg.runtime.hardware import Hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a device can bear.

    Attributes:
        patch_vox: voxels of a patch.
        batch_size: patches a step.
        case_vox: voxels of a median case (2D: of a slice); larger ones are resampled coarser.
        widths: features of the levels.
        halve_first: the first convolution has stride 2.
        num_steps: of a full training.
    """

    patch_vox: int
    batch_size: int
    case_vox: int
    widths: tuple[int, ...]
    halve_first: bool
    num_steps: int


# Slices: a step over four small patches teaches as much as one over four large ones, and there are
# several times as many in the same time.
_CPU = {
    2: Budget(
        patch_vox=2**14,
        batch_size=4,
        case_vox=2**20,
        widths=(16, 32, 64, 128, 256),
        halve_first=True,
        num_steps=2000,
    ),
    3: Budget(
        patch_vox=2**17,
        batch_size=2,
        case_vox=2**23,
        widths=(16, 32, 64, 128),
        halve_first=True,
        num_steps=2000,
    ),
}
# For a GPU of 8 GB; patch and batch grow with its memory.
_GPU = {
    2: Budget(
        patch_vox=2**18,
        batch_size=12,
        case_vox=2**24,
        widths=(32, 64, 128, 256, 512, 512),
        halve_first=False,
        num_steps=25_000,
    ),
    3: Budget(
        patch_vox=2**21,
        batch_size=2,
        case_vox=2**28,
        widths=(32, 64, 128, 256, 320, 320),
        halve_first=False,
        num_steps=25_000,
    ),
}
_GPU_MEMORY_BYTES = 8 * 2**30


def budget_of(hardware: Hardware, spatial_dims: Literal[2, 3]) -> Budget:
    """Return what a device can bear; a larger GPU takes larger patches, then larger batches."""
    if hardware.device == "cpu":
        return _CPU[spatial_dims]
    base = _GPU[spatial_dims]
    growth = max(0.25, hardware.memory_bytes / _GPU_MEMORY_BYTES)
    return Budget(
        patch_vox=int(base.patch_vox * min(growth, 2.0)),
        batch_size=max(2, int(base.batch_size * min(max(growth / 2, 1.0), 4.0))),
        case_vox=base.case_vox,
        widths=base.widths,
        halve_first=base.halve_first,
        num_steps=base.num_steps,
    )
