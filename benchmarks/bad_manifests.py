"""Manifests and tables that contradict the data or themselves: rows 70 to 74, and 48."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from benchmarks.bad_batches import count_of
from benchmarks.bad_images import REFUSED, RIGHT
from benchmarks.bad_labels import train_line
from benchmarks.tiny_set import write_image, write_tiny_set
from benchmarks.trial import Trial

Rows = list[dict[str, Any]]


def bad_manifests(folder: Path, model: Path) -> Iterator[Trial]:
    """Make a dataset for every fault, and yield what is done with it."""
    yield from _declared_channels(folder / "channels")
    yield from _missing_files(folder / "missing", model)
    for number, (row, name, change) in enumerate(_contradictions()):
        data = folder / f"rows_{number}"
        manifest = write_tiny_set(data)
        value = json.loads(manifest.read_text())
        change(value["cases"], data)
        manifest.write_text(json.dumps(value))
        yield _check(row, name, manifest)
        if name != _PACKED:
            yield Trial(row=row, name=name, line=train_line(manifest, data / "run"), wants=REFUSED)
    for name, content in (("no such manifest", None), ("a manifest that is no JSON", "{")):
        path = folder / f"{name}.json"
        if content:
            path.write_text(content)
        yield Trial(row=70, name=name, line=train_line(path, folder / "run"), wants=REFUSED)
    yield from _elsewhere(folder / "elsewhere")


_PACKED = "one image twice, packed in two ways, in training and test"


def _check(row: int, name: str, manifest: Path) -> Trial:
    audit = manifest.parent / "audit"
    return Trial(
        row=row,
        name=name,
        line=("check", f"manifest={manifest}", f"output={audit}/check.json", "num_workers=0"),
        wants=REFUSED,
        output=audit,
    )


def _missing_files(folder: Path, model: Path) -> Iterator[Trial]:
    for kind in ("images", "labels"):
        data = folder / kind
        manifest = write_tiny_set(data)
        (data / kind / "case_2.nii.gz").unlink()
        name = f"a file of {kind} is missing"
        yield _check(70, name, manifest)
        yield Trial(row=70, name=name, line=train_line(manifest, data / "run"), wants=REFUSED)
    masks = folder / "masks"
    yield Trial(
        row=70,
        name="a file of images is missing",
        line=(
            "predict", f"manifest={folder / 'images' / 'manifest.json'}", "split=all",
            f"checkpoint={model}", f"output={masks}",
        ),
        wants=REFUSED,
        survivors=lambda: count_of(masks, 5),
        output=masks,
    )  # fmt: skip


def _declared_channels(folder: Path) -> Iterator[Trial]:
    """Give every case one file whose fourth axis holds three channels, and say so."""
    manifest = write_tiny_set(folder)
    value = json.loads(manifest.read_text())
    names = ["T1", "T2", "FLAIR"]
    value["channels"] = [{"name": name, "modality": "MR"} for name in names]
    for row in value["cases"]:
        path = folder / row["images"]["T1"]
        scan = np.asarray(nibabel.load(path).dataobj)
        write_image(np.stack([scan, scan + 1, scan + 2], axis=-1), path)
        row["images"] = dict.fromkeys(names, row["images"]["T1"])
    manifest.write_text(json.dumps(value))
    name = "three channels in one file, declared"
    yield replace(_check(48, name, manifest), wants=RIGHT)
    yield Trial(row=48, name=name, line=train_line(manifest, folder / "run"), wants=RIGHT)


def _contradictions() -> Iterator[tuple[int, str, Callable[[Rows, Path], None]]]:
    def twice(rows: Rows, _: Path) -> None:
        rows[1]["case_id"] = rows[0]["case_id"]

    def packed(rows: Rows, data: Path) -> None:
        copy = data / "images" / "copy.nii"
        nibabel.save(nibabel.load(data / rows[0]["images"]["T1"]), copy)
        rows[1] |= {"images": {"T1": "images/copy.nii"}, "split": "test"}

    def two_folds(rows: Rows, _: Path) -> None:
        for number, row in enumerate(rows):
            row |= {"fold": number % 5, "patient_id": "same" if number < 2 else row["patient_id"]}

    def two_splits(rows: Rows, _: Path) -> None:
        rows[0] |= {"patient_id": "same", "split": "test"}
        rows[1] |= {"patient_id": "same"}

    def nobody(rows: Rows, _: Path) -> None:
        rows[0]["patient_id"] = " "

    def leads_to(path: str) -> Callable[[Rows, Path], None]:
        def change(rows: Rows, data: Path) -> None:
            outside = data.parent / "outside.nii.gz"
            shutil.copyfile(data / rows[0]["images"]["T1"], outside)
            (data / "link.nii.gz").symlink_to(outside)
            rows[0]["images"]["T1"] = path.format(outside=outside)

        return change

    yield 71, "a case id twice", twice
    yield 71, _PACKED, packed
    yield 72, "a patient in two folds", two_folds
    yield 72, "a patient in training and test", two_splits
    yield 72, "a case of no patient", nobody
    yield 73, "a path with ..", leads_to("../outside.nii.gz")
    yield 73, "an absolute path", leads_to("{outside}")
    yield 73, "a link out of the data root", leads_to("link.nii.gz")
    yield 73, "a drive of Windows", leads_to("C:\\\\outside.nii.gz")


def _elsewhere(folder: Path) -> Iterator[Trial]:
    """Name the manifest from another folder than its own."""
    write_tiny_set(folder / "data")
    work = folder / "work"
    work.mkdir()
    for line in (
        ("check", "manifest=../data/manifest.json", "num_workers=0"),
        ("plan", "manifest=../data/manifest.json"),
        train_line(Path("../data/manifest.json"), Path("run")),
    ):
        yield Trial(
            row=74,
            name="relative paths, another working folder",
            line=line,
            wants=RIGHT,
            prepare=lambda: os.chdir(work),
        )
