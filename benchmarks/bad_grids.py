"""Masks beside their scans, classes nobody drew, and masks that overlap: rows 65 to 69."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from benchmarks.bad_images import NOTED, REFUSED, RIGHT
from benchmarks.bad_labels import train_line
from benchmarks.tiny_set import AFFINE, SHAPE, write_tiny_set
from benchmarks.trial import Trial, Want
from medseg.core.labels import label_set
from medseg.data.manifest import read_manifest, write_manifest

# Takes the mask and its affine, and returns both changed.
Placed = tuple[NDArray[np.uint8], NDArray[np.float64]]
Move = Callable[[NDArray[np.uint8]], Placed]


def bad_grids(folder: Path) -> Iterator[Trial]:
    """Make a dataset for every bad placement, and yield what is done with it."""
    for number, (row, name, move, wants) in enumerate(_moves()):
        data = folder / str(number)
        manifest = write_tiny_set(data)
        mask = data / "labels" / "case_0.nii.gz"
        voxels, affine = move(np.asarray(nibabel.load(mask).dataobj))
        image = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
        image.set_sform(affine, 1)
        nibabel.save(image, mask)
        yield _check(row, name, data, manifest, wants)
        yield Trial(
            row=row, name=name, line=train_line(manifest, data / "run"), wants=wants,
            output=data / "run",
        )  # fmt: skip
    yield from _classes(folder / "classes")
    yield from _overlaps(folder / "overlaps")


def _moves() -> Iterator[tuple[int, str, Move, tuple[Want, ...]]]:
    def shifted(by_mm: float) -> Move:
        affine = AFFINE.copy()
        affine[0, 3] += by_mm
        return lambda mask: (mask, affine)

    def flipped(mask: NDArray[np.uint8]) -> Placed:
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = SHAPE[0] - 1
        return mask, AFFINE @ flip

    def header_alone(mask: NDArray[np.uint8]) -> Placed:
        return mask, np.diag([-1.0, -1.1, 1.3, 1.0])

    def reordered(mask: NDArray[np.uint8]) -> Placed:
        return mask.transpose(2, 0, 1), AFFINE[:, [2, 0, 1, 3]]

    yield 65, "a mask 1e-6 mm off", shifted(1e-6), RIGHT
    yield 66, "a mask 5 mm off", shifted(5.0), REFUSED
    yield 66, "a mask mirrored in its header", flipped, REFUSED
    yield 66, "a mask with another header", header_alone, REFUSED
    yield 66, "a mask with its axes in another order", reordered, REFUSED
    yield 67, "a mask of fewer slices", lambda mask: (mask[:, :, :-2].copy(), AFFINE), REFUSED


def _classes(data: Path) -> Iterator[Trial]:
    """Declare a class that nobody drew, and one that one case alone has."""
    manifest = write_tiny_set(data)
    mask = data / "labels" / "case_0.nii.gz"
    image = nibabel.load(mask)
    voxels = np.asarray(image.dataobj).copy()
    voxels[0, 0, 0] = 2
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine, dtype=voxels.dtype), mask)
    labels = label_set({"ball": 1, "rare": 2, "never": 3})
    write_manifest(replace(read_manifest(manifest), labels=labels), manifest)
    yield _check(68, "a class that nobody drew, and one in one case", data, manifest, REFUSED)


def _overlaps(data: Path) -> Iterator[Trial]:
    """Give two classes, a file each, that share voxels."""
    manifest = write_tiny_set(data)
    found = read_manifest(manifest)
    first = found.cases[0]
    assert isinstance(first.labels[0], str)
    mask = data / first.labels[0]
    image = nibabel.load(mask)
    inner = np.asarray(image.dataobj).copy()
    inner[: SHAPE[0] // 2] = 0
    nibabel.save(nibabel.Nifti1Image(inner, image.affine), data / "labels" / "inner.nii.gz")
    both = {"ball": first.labels[0], "part": "labels/inner.nii.gz"}
    cases = (replace(first, labels=(both,)), *found.cases[1:])
    labels = label_set({"ball": 1, "part": 2})
    write_manifest(replace(found, labels=labels, cases=cases), manifest)
    yield _check(69, "masks of two classes that overlap", data, manifest, NOTED)


def _check(row: int, name: str, data: Path, manifest: Path, wants: tuple[Want, ...]) -> Trial:
    return Trial(
        row=row,
        name=name,
        line=("check", f"manifest={manifest}", f"output={data}/audit/check.json", "num_workers=0"),
        wants=wants,
        output=data / "audit",
    )
