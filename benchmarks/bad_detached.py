"""NRRD and MetaImage headers whose voxels lie in another file, or do not: row 60."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bad_images import REFUSED, RIGHT, BadImage
from benchmarks.tiny_set import ball
from benchmarks.trial import Want

_NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 20 22 18
space directions: (1,0,0) (0,1.1,0) (0,0,1.3)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (9,-4,30)
data file: {file}

"""
_METAIMAGE = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 9 -4 30
ElementSpacing = 1 1.1 1.3
DimSize = 20 22 18
ElementType = MET_SHORT
ElementDataFile = {file}
"""


def bad_detached(folder: Path) -> Iterator[BadImage]:
    """Write header and voxels apart, rightly and wrongly."""
    scan, _ = ball(np.random.default_rng(60))
    raw = scan.tobytes(order="F")
    inside = folder / "detached"
    inside.mkdir(parents=True)
    (inside / "voxels.raw").write_bytes(raw)
    (inside / "short.raw").write_bytes(raw[:-100])
    (inside / "long.raw").write_bytes(raw + raw)
    outside = folder / "outside.raw"
    outside.write_bytes(raw)
    (inside / "link.raw").symlink_to(outside)
    listed: list[tuple[str, str, tuple[Want, ...]]] = [
        ("voxels beside the header", "voxels.raw", RIGHT),
        ("voxels missing", "gone.raw", REFUSED),
        ("too few voxels", "short.raw", REFUSED),
        ("twice the voxels", "long.raw", REFUSED),
        ("voxels in the folder above", "../outside.raw", REFUSED),
        ("voxels under an absolute path", str(outside), REFUSED),
        ("voxels behind a link that leads out", "link.raw", REFUSED),
    ]
    for form, suffix, template in (("NRRD", "nhdr", _NRRD), ("MetaImage", "mhd", _METAIMAGE)):
        for number, (name, file, wants) in enumerate(listed):
            path = inside / f"{form}_{number}.{suffix}"
            path.write_text(template.format(file=file))
            yield BadImage(row=60, name=f"{form}: {name}", path=path, wants=wants)
