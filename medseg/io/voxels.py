"""What every reader says about the voxels it found: names of channels, numbers that are none."""

import numpy as np

from medseg.core.findings import Finding
from medseg.core.volume import Array

COLOURS = ("red", "green", "blue")


def channel_names(count: int) -> tuple[str, ...]:
    """Name channels that the file does not name."""
    return ("image",) if count == 1 else tuple(f"channel_{n}" for n in range(count))


def note(code: str, name: str, message: str) -> Finding:
    """Return a finding that records a repair nobody needs to look at."""
    return Finding(code=code, severity="note", subject=name, message=message)


def not_finite(voxels: Array, name: str) -> list[Finding]:
    """Count NaN and infinite voxels; they are kept, since only the user knows what they mean."""
    if not np.issubdtype(voxels.dtype, np.inexact):
        return []
    count = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
    if not count:
        return []
    return [
        Finding(
            code="FIL-014",
            severity="warning",
            subject=name,
            message=f"{count} of {voxels.size} voxels are NaN or infinite",
            hint="replace them by a value that means outside, or export the scan again",
        )
    ]
