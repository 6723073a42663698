"""NIfTI read: NIfTI-1 and -2, single file or pair, plain or gzip.

The voxels are read here, by the standard, rather than through a library: libraries repair or ignore
what they find (a truncated file, a singular sform, a bad checksum), and so remain free to be the
independent readers of `medseg verify` and of the tests.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import ReadError
from medseg.core.findings import Finding
from medseg.core.volume import Array, Volume
from medseg.io.contents import opened, read_numbers, read_to_end, require_room
from medseg.io.nifti_forms import geometry_of
from medseg.io.nifti_header import NiftiHeader, parse_header
from medseg.io.voxels import COLOURS, channel_names, not_finite, note

_LONGEST_HEADER = 540
_HEADER_SUFFIXES = {".hdr": (".img", ".img.gz"), ".hdr.gz": (".img.gz", ".img")}
_VOXEL_SUFFIXES = {".img": (".hdr", ".hdr.gz"), ".img.gz": (".hdr.gz", ".hdr")}


def read_nifti(path: Path, *, channels_axis: bool = False) -> Volume:
    """Read a NIfTI scan or mask.

    Args:
        path: .nii, .nii.gz, or either file of an .hdr/.img pair.
        channels_axis: a fourth (or fifth) axis holds channels, such as MR sequences.

    Returns:
        Voxels scaled as the header says: integers stay integers where scaling keeps them exact,
        else float32 (float64 from 32-bit and wider numbers). RGB24 and RGBA32 give the channels
        red, green, blue, interleaved as the standard says; alpha is left out. Findings: NII-018
        axes of one voxel removed, NII-019 scaling that means nothing, NII-021 alpha left out,
        NII-022 padding after the voxels, FIL-014 NaN, and those of `nifti_forms`.

    Raises:
        ReadError: NII-001 to NII-008 (`nifti_header`), FIL-007 to FIL-012 (`contents`), NII-009 an
            .hdr or .img without its other half, NII-023 axes that are neither space nor declared.
        GeometryError: NII-010 to NII-012 (`nifti_forms`).
    """
    header_path, voxel_path = pair_of(path)
    with opened(header_path) as stream:
        header = parse_header(stream.read(_LONGEST_HEADER), header_path)
    name = path.name
    findings: list[Finding] = []
    shape, num_channels = _axes(header, path, findings, channels_axis=channels_axis)
    geometry, noticed = geometry_of(header, shape, path)
    findings.extend(noticed)
    numbers = _read_numbers(header, voxel_path if header.paired else header_path, findings)
    # The file's order: samples of a colour fastest, then i, j, k, channels slowest.
    in_file = numbers.reshape((num_channels, *shape[::-1], header.samples))
    voxels = in_file.transpose(4, 0, 3, 2, 1)
    if header.samples > 1:
        if header.samples == 4:
            findings.append(note("NII-021", name, "the alpha channel was left out"))
        return Volume(voxels[:3, 0], geometry, COLOURS, tuple(findings))
    scaled = _scaled(voxels[0], header, name, findings)
    findings.extend(not_finite(scaled, name))
    return Volume(scaled, geometry, channel_names(num_channels), tuple(findings))


def pair_of(path: Path) -> tuple[Path, Path]:
    """Return the header and the voxel file that belong to either half of an .hdr/.img pair.

    A single file (any other suffix) is both. A half that is absent is named by the suffix it would
    most likely have.
    """
    for suffix, others in {**_HEADER_SUFFIXES, **_VOXEL_SUFFIXES}.items():
        if path.name.lower().endswith(suffix):
            stem = path.name[: -len(suffix)]
            candidates = [path.with_name(stem + other) for other in others]
            other = next((file for file in candidates if file.exists()), candidates[0])
            return (path, other) if suffix in _HEADER_SUFFIXES else (other, path)
    return path, path


def _axes(
    header: NiftiHeader, path: Path, findings: list[Finding], *, channels_axis: bool
) -> tuple[tuple[int, int, int], int]:
    """Tell which axes are space and how many channels there are."""
    i, j, k = (*header.dim, 1, 1)[:3]
    extra = [n for n in header.dim[3:] if n > 1]
    listed = " x ".join(map(str, header.dim))
    if len(header.dim) < 2:
        raise ReadError(
            f"{path}: one axis of {listed} voxels; expected two or three",
            code="NII-023",
            hint="a scan has at least two axes",
        )
    if not extra:
        if len(header.dim) > 3:
            found = f"{listed} voxels: the axes of one voxel after the third were removed"
            findings.append(note("NII-018", path.name, found))
        return (i, j, k), 1
    if len(extra) > 1 or header.samples > 1:
        raise ReadError(
            f"{path}: {listed} voxels; expected three axes, or four of which one holds channels",
            code="NII-023",
            hint="split it into one file a time point or channel",
        )
    if not channels_axis:
        raise ReadError(
            f"{path}: {listed} voxels: the file does not say whether the {extra[0]} are channels "
            "or time points",
            code="NII-023",
            hint="channels: ingest it once for each (images.A=FILE images.B=FILE; in Python "
            "channels_axis=True); time points: split the file",
        )
    return (i, j, k), extra[0]


def _read_numbers(header: NiftiHeader, path: Path, findings: list[Finding]) -> NDArray[Any]:
    if not path.exists():
        raise ReadError(
            f"{path}: the voxels of an .hdr/.img pair are missing",
            code="NII-009",
            hint="put both files side by side under one name",
        )
    require_room(path, header.num_numbers * header.numbers.itemsize)
    with opened(path) as stream:
        # Not a seek: a gzip stream that ends inside the extensions must be noticed.
        stream.read(header.voxel_start)
        numbers = read_numbers(stream, header.num_numbers, kind=header.numbers, path=path)
        excess = read_to_end(stream, path=path)
    if excess:
        found = f"{excess} bytes of padding follow the voxels; they were not used"
        findings.append(
            Finding(code="NII-022", severity="warning", subject=path.name, message=found)
        )
    return numbers


def _scaled(voxels: Array, header: NiftiHeader, name: str, findings: list[Finding]) -> Array:
    """Apply slope and intercept (nifti1.h, "DATA SCALING"); a slope of 0 means none."""
    slope, intercept = header.slope, header.intercept
    if not np.isfinite([slope, intercept]).all() or (slope == 0 and intercept != 0):
        found = f"scl_slope {slope:g} and scl_inter {intercept:g} mean no scaling; none was done"
        findings.append(note("NII-019", name, found))
        return voxels
    if slope == 0 or (slope == 1 and intercept == 0):
        return voxels
    if np.issubdtype(voxels.dtype, np.integer) and slope.is_integer() and intercept.is_integer():
        exact = _scaled_exactly(voxels, int(slope), int(intercept))
        if exact is not None:
            return exact
    narrow = voxels.dtype.itemsize <= 2 or voxels.dtype == np.float32
    kind = np.dtype(np.float32 if narrow else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.multiply(voxels, slope, dtype=kind)
        return np.add(scaled, intercept, out=scaled, dtype=kind)


def _scaled_exactly(voxels: Array, slope: int, intercept: int) -> Array | None:
    """Scale integers in integers; None when the result fits no integer type."""
    ends = [int(end) * slope + intercept for end in (voxels.min(), voxels.max())]
    for kind in (np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64)):
        limits = np.iinfo(kind)
        # The unscaled voxels, slope, intercept and the products before the sum must fit as well.
        passed = (*ends, *(end - intercept for end in ends), slope, intercept)
        if np.can_cast(voxels.dtype, kind) and all(limits.min <= n <= limits.max for n in passed):
            return np.add(np.multiply(voxels, slope, dtype=kind), intercept, dtype=kind)
    return None
