"""Folders of several volumes, and masks that belong to another scan: rows 3, 16, 17, 25 and 33."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from benchmarks.bad_batches import count_of
from benchmarks.bad_images import REFUSED, RIGHT, BadImage
from benchmarks.ct_series import (
    AFFINE,
    Edit,
    edit_file,
    setting,
    truth,
    voxels_of,
    write_ct,
    write_enhanced,
)
from benchmarks.trial import Trial, Want
from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.data.case import Case, Channel
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.io.dicom.seg.segmentation import write_seg


def bad_enhanced(folder: Path) -> Iterator[BadImage]:
    """Write enhanced multi-frame files, whole and broken."""
    scan = voxels_of(1)
    good = truth(folder / "truth" / "good.nii", scan)

    def one_group_less(dataset: pydicom.Dataset) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[3]

    listed: list[tuple[str, Callable[[pydicom.Dataset], object] | None, tuple[Want, ...]]] = [
        ("enhanced, frames in any order", None, RIGHT),
        ("enhanced, a frame without its groups", one_group_less, REFUSED),
    ]
    for number, (name, change, wants) in enumerate(listed):
        path = write_enhanced(folder / f"enhanced_{number}", scan)
        if change is not None:
            edit_file(path, change)
        yield BadImage(row=16, name=name, path=path.parent, wants=wants, twin=good)


def bad_studies(folder: Path, model: Path) -> Iterator[Trial]:
    """Put folders of two volumes to predict, ingest and check."""
    two = [
        (3, "two series in a folder", folder / "series", _two_series),
        (17, "two stacks in a file", folder / "stacks", _two_stacks),
        (25, "two time points", folder / "times", _two(TemporalPositionIdentifier=2)),
        (25, "two b-values", folder / "b_values", _two(DiffusionBValue=1000.0)),
        (25, "two echoes", folder / "echoes", _two(EchoTime="80")),
    ]
    for row, name, place, make in two:
        make(place / "scan_1")
        yield from _both(row, name, place, model)
    yield from _other_space(folder / "space")


def _both(row: int, name: str, place: Path, model: Path) -> Iterator[Trial]:
    scan, masks = place / "scan_1", place / "masks"
    yield Trial(
        row=row,
        name=f"{name}: a mask each",
        line=("predict", f"input={scan}", f"checkpoint={model}", f"output={masks}"),
        wants=RIGHT,
        oracle=lambda: count_of(masks, 2),
        output=masks,
    )
    manifest = place / "manifest.json"
    yield Trial(
        row=row,
        name=f"{name}: a case each",
        line=("ingest", f"source={scan}", f"output={manifest}", "labels.ball=1", "num_workers=0"),
        wants=RIGHT,
        oracle=lambda: _num_cases(manifest, 2),
    )
    undecided = _manifest(place, num_cases=1, masks=False)
    yield Trial(
        row=row,
        name=f"{name}: nobody said which",
        line=_check_line(undecided, place / "audit"),
        wants=REFUSED,
        output=place / "audit",
    )


def _num_cases(manifest: Path, expected: int) -> str:
    found = len(read_manifest(manifest).cases)
    return "" if found == expected else f"{found} cases, expected {expected}"


def _other_space(place: Path) -> Iterator[Trial]:
    """Check two cases, then once more when one's mask has moved to another space."""
    for number in (1, 2):
        scan, source = voxels_of(number), place / f"scan_{number}"
        write_ct(source, scan, seed=str(number))
        write_seg(
            (scan > -800).astype(np.uint8),
            place / f"mask_{number}.dcm",
            geometry=Geometry(scan.shape, AFFINE),
            labels=label_set({"ball": 1}),
            source=source,
        )
    manifest = _manifest(place, num_cases=2, masks=True)
    for name, uid, wants in (("the scan's", "", RIGHT), ("another", generate_uid(), REFUSED)):
        if uid:
            edit_file(place / "mask_1.dcm", partial(setting(FrameOfReferenceUID=uid), 0))
        yield Trial(
            row=33,
            name=f"a SEG in {name} frame of reference",
            line=_check_line(manifest, place / "audit"),
            wants=wants,
            output=place / "audit",
        )


def _check_line(manifest: Path, audit: Path) -> tuple[str, ...]:
    return "check", f"manifest={manifest}", f"output={audit}/check.json", "num_workers=0"


def _manifest(root: Path, *, num_cases: int, masks: bool) -> Path:
    manifest = Manifest(
        name="studies",
        data_root=root,
        channels=(Channel(name="CT", modality="CT"),),
        labels=label_set({"ball": 1}),
        reference_channel="CT",
        spatial_dims=3,
        cases=tuple(
            Case(
                case_id=f"case_{number}",
                patient_id=f"patient_{number}",
                images={"CT": f"scan_{number}"},
                labels=(f"mask_{number}.dcm",) if masks else (),
                split="train" if masks else "unlabelled",
            )
            for number in range(1, num_cases + 1)
        ),
    )
    path = root / "studies.json"
    write_manifest(manifest, path)
    return path


def _two_series(folder: Path) -> None:
    for number in (1, 2):
        for path in write_ct(folder, voxels_of(number), seed=str(number)):
            path.rename(path.with_name(f"{number}_{path.name}"))


def _two(**second: float | str) -> Callable[[Path], None]:
    """Make a series of two volumes at one place, told apart by one attribute."""
    first = {name: type(value)(0) for name, value in second.items()}

    def make(folder: Path) -> None:
        for number, (seed, marks) in enumerate(((1, first), (2, second))):
            paths = write_ct(folder, voxels_of(seed), edit=_marked(number, marks), seed="same")
            for path in paths:
                path.rename(path.with_name(f"{number}_{path.name}"))

    return make


def _marked(number: int, marks: Mapping[str, float | str]) -> Edit:
    def edit(k: int, dataset: pydicom.Dataset) -> None:
        setting(**marks, SOPInstanceUID=generate_uid(entropy_srcs=[str(number), str(k)]))(
            k, dataset
        )

    return edit


def _two_stacks(folder: Path) -> None:
    def part(dataset: pydicom.Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            z = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
            groups.FrameContentSequence[0].StackID = "low" if z < -20 else "high"

    edit_file(write_enhanced(folder, voxels_of(1)), part)
