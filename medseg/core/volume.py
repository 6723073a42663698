"""Voxels on a grid: what every reader returns and every writer takes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import GeometryError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One scan, or one label map, placed in space.

    Attributes:
        voxels: channel first, (C, I, J, K); a 2D image has K = 1, an RGB image C = 3.
            Label maps hold integers in one channel, or one channel a region where classes overlap.
        geometry: the grid the voxels lie on.
        channels: a name for each channel.
        findings: what the reader repaired or noticed; silence means nothing was changed.

    Raises:
        GeometryError: voxels whose shape is not the geometry's, or names that do not count up.
    """

    voxels: Array
    geometry: Geometry
    channels: tuple[str, ...] = ("image",)
    findings: tuple[Finding, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.geometry.shape:
            raise GeometryError(
                f"voxels of shape {self.voxels.shape} do not lie on a grid of "
                f"{self.geometry.shape}; expected channels first, then i, j, k"
            )
        if len(self.channels) != self.voxels.shape[0]:
            raise GeometryError(
                f"{self.voxels.shape[0]} channels carry {len(self.channels)} names {self.channels}"
            )

    @property
    def only_channel(self) -> Array:
        """The only channel.

        Raises:
            GeometryError: the volume has several channels.
        """
        if len(self.channels) != 1:
            raise GeometryError(f"expected one channel, found {self.channels}")
        return np.asarray(self.voxels[0])
