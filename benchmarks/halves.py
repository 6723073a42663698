"""Scans cut in two, for datasets of one scan: one half is trained on, the other one tested on.

usage: python -m benchmarks.halves MANIFEST OUTPUT

Each scan of MANIFEST, whose only class is of things, is cut across its longest axis. The halves
become NIfTI files under OUTPUT and two cases of OUTPUT/manifest.json with folds 0 and 1, which
pass for two patients. They are not: what is measured on them says how objects of that kind are told
apart, and nothing about another patient.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.core.volume import Array, Volume
from medseg.data.case import Case
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.data.object_ids import read_ids
from medseg.data.scans import read_reference, read_scan
from medseg.io.formats import write_volume


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    chosen = words.parse_args()
    print(halve(chosen.manifest, chosen.output))


def halve(path: Path, output: Path) -> Path:
    """Cut every scan of a manifest in two; return the manifest of the halves."""
    manifest = read_manifest(path)
    things = replace(manifest, labels=manifest.labels.with_things(manifest.labels.names))
    (name,) = manifest.labels.names
    halves = replace(
        manifest,
        name=f"{manifest.name}_halves",
        data_root=output,
        labels=label_set({name: ">0"}).with_things([name]),
        num_folds=2,
        cases=tuple(half for case in things.cases for half in cut(things, case, output)),
    )
    write_manifest(halves, output / "manifest.json")
    return output / "manifest.json"


def cut(manifest: Manifest, case: Case, output: Path) -> list[Case]:
    """Write both halves of a case, and return their rows."""
    scan = read_scan(manifest, case)
    ids = read_ids(manifest, case, read_reference(manifest, case, scan.geometry))
    axis = int(np.argmax(scan.geometry.shape))
    middle = scan.geometry.shape[axis] // 2
    rows = []
    for fold, (first, last) in enumerate([(0, middle), (middle, scan.geometry.shape[axis])]):
        name = f"{case.case_id}_{fold}"
        window = tuple(slice(first, last) if n == axis else slice(None) for n in range(3))
        grid = _moved(scan.geometry, axis, first, last)
        images = {}
        for channel, voxels_IJK in zip(manifest.channels, scan.voxels, strict=True):
            images[channel.name] = f"images/{name}_{channel.name}.nii.gz"
            _write(voxels_IJK[window], grid, output / images[channel.name])
        _write(ids[window].astype(np.uint16), grid, output / "objects" / f"{name}.nii.gz")
        rows.append(
            Case(
                case_id=name,
                patient_id=name,
                images=images,
                labels=(f"objects/{name}.nii.gz",),
                fold=fold,
            )
        )
    return rows


def _moved(geometry: Geometry, axis: int, first: int, last: int) -> Geometry:
    shape = [last - first if n == axis else size for n, size in enumerate(geometry.shape)]
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, axis] * first
    return Geometry((shape[0], shape[1], shape[2]), affine)


def _write(voxels_IJK: Array, grid: Geometry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(voxels_IJK[np.newaxis], grid, ("",)), path)


if __name__ == "__main__":
    main()
