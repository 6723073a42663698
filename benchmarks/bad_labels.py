"""Masks that hold what no class is: rows 61 to 64, and labels too large for float32 (row 46)."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from benchmarks.bad_images import NOTED, REFUSED, RIGHT
from benchmarks.tiny_set import write_image, write_tiny_set
from benchmarks.trial import Oracle, Trial, Want
from medseg.core.labels import LabelSet, label_set
from medseg.data.manifest import read_manifest, write_manifest

# Of the trainings whose answer is asked for, not their result.
NUM_STEPS = 2
_BEYOND_FLOAT32 = 2**24 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BadMask:
    """A mask put in the place of a good one, and how commands should answer."""

    row: int
    name: str
    mask: Callable[[NDArray[np.uint8]], NDArray[np.generic]]
    check: tuple[Want, ...]
    train: tuple[Want, ...]
    evaluate: tuple[Want, ...]
    labels: LabelSet | None = None


def bad_labels(folder: Path) -> Iterator[Trial]:
    """Make a dataset for every bad mask, and yield what is done with it."""
    for number, bad in enumerate(_masks()):
        data = folder / str(number)
        manifest = write_tiny_set(data)
        mask = data / "labels" / "case_0.nii.gz"
        good = np.asarray(nibabel.load(mask).dataobj)
        masks = data / "masks"
        shutil.copytree(data / "labels", masks)
        write_image(bad.mask(good), mask)
        if bad.labels is not None:
            write_manifest(replace(read_manifest(manifest), labels=bad.labels), manifest)
        yield from _trials(bad, data, manifest, masks)


def _trials(bad: BadMask, data: Path, manifest: Path, masks: Path) -> Iterator[Trial]:
    mask, audit, run, scores = (data / name for name in ("labels", "audit", "run", "scores"))
    yield Trial(
        row=bad.row,
        name=bad.name,
        line=("check", f"manifest={manifest}", f"output={audit}/check.json", "num_workers=0"),
        wants=bad.check,
        oracle=_counts_voxels(mask / "case_0.nii.gz", audit / "check.json"),
        output=audit,
    )
    yield Trial(
        row=bad.row, name=bad.name, line=train_line(manifest, run), wants=bad.train, output=run
    )
    yield Trial(
        row=bad.row,
        name=f"{bad.name}, as a reference",
        line=(
            "evaluate", f"manifest={manifest}", f"prediction={masks}", f"output={scores}",
            "mlflow.enabled=false", "num_workers=0",
        ),
        wants=bad.evaluate,
        oracle=_scores(scores, num_cases=6),
        survivors=_scores(scores, num_cases=5),
        output=scores,
    )  # fmt: skip


def train_line(manifest: Path, run: Path, *more: str) -> tuple[str, ...]:
    """Return the line of a short training."""
    return (
        "train", f"manifest={manifest}", f"output={run}", "model=unet", "device=cpu",
        f"training.max_steps={NUM_STEPS}", "mlflow.enabled=false", *more,
    )  # fmt: skip


def _masks() -> Iterator[BadMask]:
    for value in (7, -1, 255):
        yield BadMask(
            row=61,
            name=f"a voxel of {value}, which is no class",
            mask=partial(_with_voxel, value=value, dtype=np.int16),
            check=REFUSED,
            train=REFUSED,
            evaluate=REFUSED,
        )
    yield BadMask(
        row=61,
        name="a voxel of 255, declared as nobody's",
        mask=partial(_with_voxel, value=255, dtype=np.int16),
        check=RIGHT,
        train=RIGHT,
        evaluate=RIGHT,
        labels=replace(label_set({"ball": 1}), ignore_value=255),
    )
    yield BadMask(
        row=62,
        name="0.9999 instead of 1",
        mask=lambda good: good.astype(np.float32) * np.float32(0.9999),
        check=RIGHT,
        train=RIGHT,
        evaluate=RIGHT,
    )
    for row, name, part in ((62, "0.6 in a voxel", 0.6), (63, "NaN in a voxel", np.nan)):
        yield BadMask(
            row=row,
            name=name,
            mask=partial(_with_voxel, value=part, dtype=np.float32),
            check=REFUSED,
            train=REFUSED,
            evaluate=REFUSED,
        )
    yield BadMask(
        row=64,
        name="an empty mask",
        mask=np.zeros_like,
        check=NOTED,
        train=RIGHT,
        evaluate=RIGHT,
    )
    large = label_set({"ball": (1, _BEYOND_FLOAT32)})
    for name, stored, wants in (
        ("2^24 + 1, a class", _BEYOND_FLOAT32, RIGHT),
        ("2^24, beside the class 2^24 + 1", _BEYOND_FLOAT32 - 1, REFUSED),
    ):
        yield BadMask(
            row=46,
            name=name,
            mask=partial(np.multiply, np.int32(stored)),
            check=wants,
            train=wants,
            evaluate=wants,
            labels=large,
        )


def _with_voxel(
    mask: NDArray[np.uint8], value: float, dtype: type[np.generic]
) -> NDArray[np.generic]:
    changed = mask.astype(dtype)
    changed[0, 0, 0] = value
    return changed


def _counts_voxels(mask: Path, report: Path) -> Oracle:
    """Compare the voxels that check counted with those nibabel sees."""

    def oracle() -> str:
        cases = json.loads(report.read_text())["cases"]
        found = next(case["class_vox"]["ball"] for case in cases if case["case_id"] == "case_0")
        values = np.rint(np.asarray(nibabel.load(mask).dataobj, dtype=np.float64))
        expected = int(np.isin(values, (1, _BEYOND_FLOAT32)).sum())
        return "" if found == expected else f"{found} voxels of the class, expected {expected}"

    return oracle


def _scores(folder: Path, *, num_cases: int) -> Oracle:
    """Tell whether so many cases have a score; an empty reference has none, and is listed."""

    def oracle() -> str:
        with (folder / "scores.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        listed = {row["case_id"] for row in rows if not row["error"]}
        return "" if len(listed) == num_cases else f"{len(listed)} cases, expected {num_cases}"

    return oracle
