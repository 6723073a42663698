"""Prepared cases on disk: made once, keyed by what they were made from, mapped into memory.

A key covers the bytes of the case's files, the part of the plan that prepares scans, and the
version of the chain: edit a mask or the plan, and the case is prepared anew.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import ReadError
from medseg.core.geometry import Geometry
from medseg.data.manifest import Case
from medseg.runtime.files import digest_json, read_json, write_json
from medseg.transforms.chains import Prepared

# Enough voxels of a class to draw patch centres from, without storing every voxel of a liver.
_MAX_POINTS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class CachedCase:
    """One prepared case on disk.

    Attributes:
        case: the manifest's row.
        folder: where its arrays lie.
        geometry: the grid they lie on.
        points: per class index, voxels (N, 3) of that class.
    """

    case: Case
    folder: Path
    geometry: Geometry
    points: dict[int, NDArray[np.int32]]

    def open_image(self) -> NDArray[np.float32]:
        """Open the prepared image (C, I, J, K), mapped into memory and not read until touched."""
        mapped: NDArray[np.float32] = np.load(self.folder / "image.npy", mmap_mode="r")
        return mapped

    def open_label(self) -> NDArray[Any] | None:
        """Open the label map (I, J, K) on the same grid; None when nobody labelled the case."""
        path = self.folder / "label.npy"
        if not path.exists():
            return None
        mapped: NDArray[Any] = np.load(path, mmap_mode="r")
        return mapped

    def open_ids(self) -> NDArray[np.int32] | None:
        """Open the ids of objects (I, J, K) on the same grid; None where they were not kept."""
        path = self.folder / "ids.npy"
        if not path.exists():
            return None
        mapped: NDArray[np.int32] = np.load(path, mmap_mode="r")
        return mapped


def cache_key(case: Case, recipe: dict[str, Any]) -> str:
    """Return the name of a case's folder: a digest of its files and of how it is prepared."""
    files = {"images": dict(case.images), "labels": list(case.labels), "digest": case.digest}
    spacing = list(case.spacing_mm) if case.spacing_mm else None
    return digest_json({"files": files, "spacing_mm": spacing, "recipe": recipe})[:32]


def prepare_cases(
    cases: Iterable[Case],
    prepare: Callable[[Case], Prepared],
    *,
    folder: Path,
    recipe: dict[str, Any],
    num_workers: int = 1,
) -> list[CachedCase]:
    """Prepare every case that is not on disk yet, and open all of them.

    Args:
        cases: rows of a manifest.
        prepare: reads and prepares one case.
        folder: of this dataset's cache.
        recipe: plain values that name how cases are prepared.
        num_workers: threads; reading, unpacking and resampling release Python's lock.

    Raises:
        MedsegError: the first case that cannot be read; those before it stay prepared.
    """

    def one(case: Case) -> CachedCase:
        place = folder / cache_key(case, recipe)
        if not (place / "case.json").exists():
            _store(prepare(case), place)
        return _open(case, place)

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        return list(pool.map(one, cases))


def _store(prepared: Prepared, place: Path) -> None:
    """Write a prepared case aside and move it into place, so that a killed run leaves no half."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=place.parent))
    try:
        np.save(part / "image.npy", prepared.image_CIJK.numpy())
        points: dict[str, NDArray[np.int32]] = {}
        if prepared.label_IJK is not None:
            label_IJK = prepared.label_IJK.numpy()
            np.save(part / "label.npy", label_IJK)
            points = _class_points(label_IJK)
        np.savez(part / "points.npz", **points)  # type: ignore[arg-type]
        write_json({"geometry": prepared.geometry.to_json()}, part / "case.json")
        if prepared.ids_IJK is not None:
            np.save(part / "ids.npy", prepared.ids_IJK.numpy())
        try:
            part.replace(place)
        except OSError:
            # Another run prepared the same case in the meantime: theirs is as good as ours.
            if not (place / "case.json").exists():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open(case: Case, place: Path) -> CachedCase:
    with contextlib.suppress(OSError):
        # The time of last use, by which `medseg cache prune` goes; a shared cache may forbid it.
        os.utime(place / "case.json")
    stored = read_json(place / "case.json", kind=ReadError, what="a prepared case")
    with np.load(place / "points.npz") as points:
        by_class = {int(name): points[name] for name in points.files}
    return CachedCase(case, place, Geometry.from_json(stored["geometry"]), by_class)


def _class_points(label_IJK: NDArray[Any]) -> dict[str, NDArray[np.int32]]:
    """Draw up to `_MAX_POINTS` voxels of every class; which ones depends on the case alone."""
    rng = np.random.default_rng(label_IJK.size)
    points = {}
    for index in np.unique(label_IJK[label_IJK > 0]):
        flat = np.flatnonzero(label_IJK == index)
        if len(flat) > _MAX_POINTS:
            flat = np.sort(rng.choice(flat, _MAX_POINTS, replace=False))
        voxels = np.stack(np.unravel_index(flat, label_IJK.shape), axis=1)
        points[str(int(index))] = voxels.astype(np.int32)
    return points
