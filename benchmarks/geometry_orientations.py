"""All 48 ways a grid can lie: volume -> DICOM series -> mask -> file -> back, and by others."""

from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Volume
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.series_writer import write_series
from medseg.io.formats import read_label_map, write_label_map
from medseg.io.writing import SUFFIX_OF
from medseg.tasks.verify import verify_mask

FORMATS = ("dicom_seg", "rtstruct", "nifti", "seg_nrrd")
_SHAPE = (9, 8, 5)
_WAYS = {
    "L": (-1, 0, 0), "R": (1, 0, 0), "P": (0, -1, 0), "A": (0, 1, 0), "I": (0, 0, -1),
    "S": (0, 0, 1),
}  # fmt: skip
# A rotation about two axes at once, so that no voxel axis is left on a world axis.
_ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
KINDS = {
    "isotropic": ((1.0, 1.0, 1.0), np.eye(3)),
    "anisotropic": ((0.8, 1.1, 2.3), np.eye(3)),
    "oblique": ((0.8, 1.1, 2.3), _ROTATION),
}
_LABELS = label_set({"organ": 1, "lesion": 2})


def orientations() -> Iterator[str]:
    """Name all 48 orientations, such as `RAS`."""
    for axes in permutations(("LR", "PA", "IS")):
        for letters in product(*axes):
            yield "".join(letters)


def grid(orientation: str, kind: str) -> Geometry:
    """Return a grid of that orientation and kind."""
    spacing_mm, rotation = KINDS[kind]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.array([_WAYS[way] for way in orientation]).T * spacing_mm
    affine[:3, 3] = 12.5, -80.25, 1003.125
    return Geometry(_SHAPE, affine)


def intricate(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise; one voxel; voxels that touch at a corner, in a slice and across; a hole in a hole."""
    label_map = np.zeros(_SHAPE, dtype=np.uint8)
    label_map[:, :, 0] = rng.integers(0, 3, _SHAPE[:2])
    label_map[2, 3, 1] = 1
    label_map[5, 5, 1] = label_map[6, 6, 1] = label_map[7, 7, 2] = 2
    for inset in range(4):
        label_map[inset : 8 - inset, inset : 8 - inset, 3] = (inset + 1) % 2
    return label_map


def measure(orientation: str, kind: str, folder: Path) -> dict[str, Any]:
    """Walk the whole way for one grid.

    Returns:
        `series`: how far voxels lie from where they were (mm), and how many hold another value;
        for every format what medseg reads back, and what the reader of `medseg verify` says.
    """
    geometry = grid(orientation, kind)
    rng = np.random.default_rng(0)
    values = rng.permutation(np.prod(_SHAPE)).astype(np.int16).reshape(_SHAPE)
    series = folder / "series"
    write_series(
        Volume(values[None], geometry), series, modality="CT", patient_id="phantom", seed="scan"
    )
    scan = read_dicom(series)
    result: dict[str, Any] = {"series": _series_error(scan, geometry, values)}
    label_map = intricate(rng)
    for name in FORMATS:
        path = folder / f"mask{SUFFIX_OF[name]}"
        write_label_map(label_map, path, geometry=scan.geometry, labels=_LABELS, source=series)
        again = read_label_map(path, _LABELS, onto=scan.geometry)
        verified = verify_mask(path, series)
        result[name] = {
            "corner_mm": again.geometry.corner_error_mm(scan.geometry),
            "differing_vox": int(np.count_nonzero(again.only_channel != label_map)),
            "reader": verified.reader,
            "reader_corner_mm": verified.corner_error_mm,
            "reader_differing_vox": verified.num_differing_vox,
            "num_vox": verified.num_vox,
        }
    return result


def _series_error(scan: Volume, geometry: Geometry, values: NDArray[Any]) -> dict[str, Any]:
    index = np.argwhere(np.ones(_SHAPE, dtype=bool))
    world = geometry.to_world(index.astype(np.float64))
    found = np.rint(scan.geometry.to_index(world)).astype(np.intp)
    off_mm = np.linalg.norm(scan.geometry.to_world(found.astype(np.float64)) - world, axis=1)
    differing = scan.only_channel[tuple(found.T)] != values[tuple(index.T)]
    return {"corner_mm": float(off_mm.max()), "differing_vox": int(differing.sum())}
