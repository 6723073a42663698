"""Real scans as medseg places them beside other libraries: how far corners and voxels differ."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.geometry_readers import (
    REFUSALS,
    Placed,
    by_nibabel,
    by_simpleitk,
    series_by_dcm2niix,
    series_by_highdicom,
    series_by_simpleitk,
)
from medseg.core.errors import MedsegError
from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.reader import find_series, read_dicom
from medseg.io.dicom.series.grouping import Series
from medseg.io.formats import read_volume

# Folders of DICOM series, and of files in other formats.
_SERIES = (
    "dicom2nifti_cases", "sts_dicom_rtstruct", "ibsi_orientation", "dicom_rtstruct_misc",
    "dicom_12bit_dcmqa", "dicom_transfer_syntax_dcmqa",
)  # fmt: skip
_LONE_FILES = ("dicom_transfer_syntax_ct",)
_FILES = ("odd_nifti_nrrd", "ibsi_orientation/nifti", "spinalcord_sct")
_NO_SCANS = ("LICENSE", "LICENSE.repo", "LICENSE-APACHE", "LICENSE-MIT", "COPYING")
_NO_SCAN_SUFFIXES = (".txt", ".csv", ".json", ".md", ".raw", ".tsv")
# Round-off of numbers that went through float32: relative, and of the largest value.
_RELATIVE, _OF_LARGEST = 1e-5, 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One scan and its folder, how medseg reads it, and who else does, by name."""

    name: str
    folder: Path
    read: Callable[[], Volume]
    others: dict[str, Callable[[], list[Placed]]]


def items_in(root: Path) -> Iterator[Item]:
    """List the scans of the shared data; those that are not there are left out."""
    for name in _SERIES:
        folders = {file.parent for file in sorted((root / name).rglob("*")) if _is_slice(file)}
        for folder in sorted(folders):
            yield from _series_in(folder, root)
    for name in _LONE_FILES:
        for path in sorted((root / name).glob("*")):
            if _may_be_scan(path):
                yield from _series_in(path, root)
    for name in _FILES:
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and _may_be_scan(path):
                yield _file(path, root)


def measure(item: Item) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a scan with medseg and the others; yield each reader's name and what it gave.

    A reader that refuses gives `refused`; medseg alone is listed when it is the one.
    """
    try:
        scan = item.read()
    except MedsegError as refusal:
        # Names of files, without the folders of whose machine it is.
        said = refusal.message.replace(f"{item.folder}/", "")
        yield "medseg", {"refused": f"{refusal.code} {said}"}
        return
    for reader, read in item.others.items():
        try:
            found = read()
        except REFUSALS as refusal:
            said = (str(refusal).strip().splitlines() or [""])[-1].replace(f"{item.folder}/", "")
            yield reader, {"refused": f"{type(refusal).__name__}: {said[:160]}"}
            continue
        compared = [compare(scan, placed) for placed in found]
        if not compared:
            yield reader, {"refused": "wrote nothing"}
            continue
        yield reader, min(compared, key=lambda row: (row["corner_mm"], row["differing_vox"]))


def compare(scan: Volume, other: Placed) -> dict[str, Any]:
    """Measure one reading against another, whichever way their axes run.

    Returns:
        `corner_mm`: the largest distance of a corner voxel's centre from the nearest corner of the
        other grid, infinite where shapes differ; `differing_vox` of `num_vox`, -1 where voxels
        cannot be matched.
    """
    theirs = Geometry(_shape(other.voxels), other.affine, scan.geometry.unit)
    ours = scan.geometry
    axes = np.rint(np.linalg.inv(theirs.direction) @ ours.direction)
    order = np.abs(axes).argmax(axis=0)
    apart_mm = np.linalg.norm(ours.corners[:, None] - theirs.corners[None], axis=2)
    same_shape = tuple(theirs.shape[n] for n in order) == ours.shape
    result = {
        "corner_mm": float(apart_mm.min(axis=1).max()) if same_shape else float("inf"),
        "differing_vox": -1,
        "num_vox": int(scan.voxels.size),
    }
    if same_shape and sorted(order) == [0, 1, 2] and len(other.voxels) == len(scan.voxels):
        turned = other.voxels.transpose(0, *(order + 1))
        flipped = [n + 1 for n in range(3) if axes[order[n], n] < 0]
        result["differing_vox"] = _num_differing(scan.voxels, np.flip(turned, flipped))
    return result


def _num_differing(ours: NDArray[Any], theirs: NDArray[Any]) -> int:
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=0))
    same = np.isclose(one, other, rtol=_RELATIVE, atol=_OF_LARGEST * largest, equal_nan=True)
    return int(np.count_nonzero(~same))


def _shape(voxels: NDArray[Any]) -> tuple[int, int, int]:
    _, i, j, k = voxels.shape
    return i, j, k


def _may_be_scan(path: Path) -> bool:
    return path.name not in _NO_SCANS and path.suffix not in _NO_SCAN_SUFFIXES


def _is_slice(file: Path) -> bool:
    return file.is_file() and _may_be_scan(file) and file.suffix not in (".nii", ".gz")


def _series_in(path: Path, root: Path) -> Iterator[Item]:
    name = str(path.relative_to(root))
    try:
        found = find_series(path)
    except MedsegError:
        # The refusal is told when it is read.
        yield Item(name=name, folder=path.parent, read=partial(read_volume, path), others={})
        return
    for series in found:
        label = name if len(found) == 1 else f"{name} {series.modality} {series.selector}"
        chosen = f"{series.uid}:{series.part}".rstrip(":")
        read = partial(read_dicom, path, series_uid=chosen)
        others = {} if series.geometry is None else _series_readers(series, path)
        yield Item(name=label, folder=path.parent, read=read, others=others)


def _series_readers(series: Series, path: Path) -> dict[str, Callable[[], list[Placed]]]:
    files: Sequence[Path] = [file.path for file in series.files]
    readers: dict[str, Callable[[], list[Placed]]] = {
        "SimpleITK": partial(series_by_simpleitk, files, series.uid),
        "highdicom": partial(series_by_highdicom, files),
        "dcm2niix": partial(series_by_dcm2niix, files),
    }
    reference = path.with_name(f"{path.name}_ground_truth.nii.gz")
    if reference.exists():
        readers["shipped NIfTI"] = partial(by_nibabel, reference)
    return readers


def _file(path: Path, root: Path) -> Item:
    others = {"SimpleITK": partial(by_simpleitk, path)}
    if ".nii" in path.name or path.name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
        others["nibabel"] = partial(by_nibabel, path)
    return Item(
        name=str(path.relative_to(root)),
        folder=path.parent,
        read=partial(read_volume, path, channels_axis=True),
        others=others,
    )
