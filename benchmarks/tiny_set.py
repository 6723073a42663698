"""A dataset of a few thousand voxels a case: a bright ball in noise, so that commands take seconds.

Files are written by nibabel, which medseg does not write with, and so remains an independent party.
"""

from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from medseg.core.labels import label_set
from medseg.data.case import Case, Channel
from medseg.data.manifest import Manifest, write_manifest

SHAPE = (20, 22, 18)
# Three axes of different length and spacing, so that no swap goes unseen.
AFFINE = np.array([[1.0, 0, 0, -9], [0, 1.1, 0, 4], [0, 0, 1.3, 30], [0, 0, 0, 1]])
_RADIUS_MM = 5.0
_CONTRAST = 300.0


def ball(rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw a scan and its mask, (I, J, K) each."""
    spacing_mm = np.diag(AFFINE)[:3]
    centre_mm = rng.uniform(0.35, 0.65, 3) * SHAPE * spacing_mm
    grid_mm = np.moveaxis(np.indices(SHAPE), 0, -1) * spacing_mm
    mask = np.linalg.norm(grid_mm - centre_mm, axis=-1) < _RADIUS_MM
    scan = rng.normal(100, 20, SHAPE) + _CONTRAST * mask
    return scan.astype(np.int16), mask.astype(np.uint8)


def write_image(voxels: NDArray[np.generic], path: Path) -> Path:
    """Write an array with the set's placement, sform and qform alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, AFFINE, dtype=voxels.dtype)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def write_tiny_set(folder: Path, *, num_cases: int = 6, seed: int = 0) -> Path:
    """Write scans, masks and the manifest of a dataset; return the manifest's path.

    Args:
        folder: holds `images/`, `labels/` and `manifest.json` afterwards.
        num_cases: at least 5, each of a patient of its own, for five folds.
        seed: of all draws.
    """
    cases = []
    for number in range(num_cases):
        scan, mask = ball(np.random.default_rng((seed, number)))
        name = f"case_{number}"
        write_image(scan, folder / "images" / f"{name}.nii.gz")
        write_image(mask, folder / "labels" / f"{name}.nii.gz")
        cases.append(
            Case(
                case_id=name,
                patient_id=f"patient_{number}",
                images={"T1": f"images/{name}.nii.gz"},
                labels=(f"labels/{name}.nii.gz",),
            )
        )
    manifest = Manifest(
        name="tiny",
        data_root=folder.absolute(),
        channels=(Channel(name="T1", modality="MR"),),
        labels=label_set({"ball": 1}),
        reference_channel="T1",
        spatial_dims=3,
        cases=tuple(cases),
    )
    write_manifest(manifest, folder / "manifest.json")
    return folder / "manifest.json"
