"""NIfTI written: NIfTI-1 through nibabel, with the affine of the scan and no text.

The affine goes into the sform, and into the qform where a quaternion can express it, both with code
2 ("aligned to another file"): true of a mask whether its scan lies in scanner or in atlas space.
Numbers of a type NIfTI lacks are widened: float16 to float32, bool to uint8.
"""

from pathlib import Path
from typing import Literal

import nibabel
import numpy as np

from medseg.core.errors import WriteError
from medseg.core.geometry import TOLERANCE_MM, Geometry
from medseg.core.volume import Array, Volume
from medseg.runtime.files import write_with

# Whole numbers that stand for probabilities, and what 1 is stored as.
Quantised = Literal["uint8", "uint16"]
_ONE = {"uint8": 255, "uint16": 65535}
_ALIGNED = 2
_WIDENED = {"b1": np.uint8, "f2": np.float32}
_KINDS = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"}
_LONGEST_AXIS = 32767


def write_nifti(volume: Volume, path: Path, *, quantised: Quantised | None = None) -> None:
    """Write voxels with the affine of their geometry; several channels become a fourth axis.

    Args:
        volume: what to write; no name, date or description goes into the header.
        path: .nii or .nii.gz.
        quantised: store probabilities from 0 to 1 as whole numbers with a slope: `uint8` is a
            quarter of the size of float32 and at most 1/510 off, `uint16` half of it and at most
            1/131070 off. NIfTI has no float16, which is up to 1/4096 off.

    Raises:
        WriteError: NII-030 numbers that NIfTI cannot hold, NII-031 an axis longer than its field.
    """
    several = len(volume.channels) > 1
    voxels = np.moveaxis(volume.voxels, 0, -1) if several else volume.voxels[0]
    if max(voxels.shape) > _LONGEST_AXIS:
        raise WriteError(
            f"{path}: {voxels.shape} voxels; NIfTI-1 holds at most {_LONGEST_AXIS} along an axis",
            code="NII-031",
            hint="write NRRD instead",
        )
    if quantised is not None:
        # In float16 the product would lose more than the rounding.
        shades = np.clip(voxels, 0, 1).astype(np.float32) * _ONE[quantised]
        stored: Array = np.rint(shades).astype(quantised)
    else:
        stored = _widened(voxels, path)
    image = nibabel.Nifti1Image(stored, np.array(volume.geometry.affine), dtype=stored.dtype)
    image.header.set_xyzt_units("mm" if volume.geometry.unit == "mm" else "unknown")
    _set_forms(image, volume.geometry)
    image.header.set_slope_inter(1 / _ONE[quantised] if quantised else 1, 0)
    write_with(lambda part: nibabel.save(image, part), path)


def _set_forms(image: nibabel.Nifti1Image, geometry: Geometry) -> None:
    image.set_sform(geometry.affine, code=_ALIGNED)
    # A quaternion has no shear: where it would move a corner, the file carries the sform alone.
    image.set_qform(geometry.affine, code=_ALIGNED, strip_shears=True)
    expressed = Geometry(geometry.shape, image.get_qform(), geometry.unit)
    if not expressed.matches(geometry, TOLERANCE_MM / 2):
        image.set_qform(None, code=0)


def _widened(voxels: Array, path: Path) -> Array:
    kind = voxels.dtype.str[1:]
    if kind in _WIDENED:
        return voxels.astype(_WIDENED[kind])
    if kind not in _KINDS:
        raise WriteError(
            f"{path}: voxels of type {voxels.dtype}; NIfTI holds integers and real numbers",
            code="NII-030",
        )
    return voxels
