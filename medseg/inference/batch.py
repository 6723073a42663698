"""Many scans through one predictor: each mask written whole, one bad scan never stops the rest."""

import csv
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.labels import LabelSet
from medseg.core.volume import Volume
from medseg.inference.case_files import (
    PROBABILITIES,
    VOLUMES,
    require_formats,
    write_case_files,
)
from medseg.inference.object_files import (
    OBJECTS,
    FoundObject,
    ids_paths,
    measure_objects,
    write_ids,
    write_objects,
)
from medseg.inference.predictor import Predictor, Segmentation
from medseg.inference.sources import Source
from medseg.io.formats import write_volume
from medseg.io.nifti_write import Quantised
from medseg.io.writing import FROM_DICOM, SUFFIX_OF, SegType, require_room
from medseg.metrics.volumes import ClassVolume, write_volumes
from medseg.runtime.files import write_text

# How probability maps are stored: whole numbers with a slope, or as they are.
ProbabilityType = Quantised | Literal["float32"]
# Tables are written whole: after each, so many times as long passes before the next.
_REST = 20
_UNTOLD = (
    "its mask was there already, and no table tells of it; delete the mask to have it measured anew"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What is written for a case.

    Attributes:
        folder: where.
        formats: names of `SUFFIX_OF`, at least one.
        probabilities: as what numbers `<case_id>_probabilities.nii.gz`, a channel a class, is
            written too; None: not at all.
        seg_type: how a DICOM SEG stores its segments.

    Raises:
        ConfigError: what `require_formats` refuses.
    """

    folder: Path
    formats: tuple[str, ...] = ("nifti",)
    probabilities: ProbabilityType | None = None
    seg_type: SegType = "BINARY"

    def __post_init__(self) -> None:
        require_formats(self.formats, self.seg_type)

    def files_for(self, source: Source) -> dict[str, Path]:
        """Return the mask files of a case by format."""
        return {
            name: self.folder / f"{source.case_id}{SUFFIX_OF[name]}"
            for name in self.formats
            if name not in FROM_DICOM or source.dicom is not None
        }

    def ids_for(self, source: Source) -> tuple[Path, ...]:
        """Return the files of the ids of a case's objects."""
        return ids_paths(self.folder, source.case_id, self.formats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one scan.

    Attributes:
        case_id: its name.
        status: `written`, `kept` (a mask was there already), or `failed`.
        message: why it failed, or what its reader noticed or repaired, coded, or that no table
            tells of a kept mask; mostly empty.
        volumes: of the classes in the mask just written.
        objects: in it; None where objects are not told apart.
        seconds: from reading to writing.
    """

    case_id: str
    status: str
    message: str = ""
    volumes: tuple[ClassVolume, ...] = ()
    objects: tuple[FoundObject, ...] | None = None
    seconds: float = float("nan")


def predict_sources(
    sources: Iterable[Source], predictor: Predictor, *, outputs: Outputs
) -> Iterator[Outcome]:
    """Segment scans one after another and yield what became of each.

    A case whose files are all there is kept, so an interrupted folder goes on where it stopped.
    """
    for source in sources:
        files = outputs.files_for(source)
        ids = () if predictor.objects is None else outputs.ids_for(source)
        if files and all(path.exists() for path in (*files.values(), *ids)):
            yield Outcome(case_id=source.case_id, status="kept")
            continue
        start = time.monotonic()
        try:
            scan = source.read()
            for path in files.values():
                require_room(path, geometry=scan.geometry)
            done = predictor.segment(scan, probabilities=outputs.probabilities is not None)
            volumes = _write(done, source, files, outputs)
            objects = _write_objects(done, ids)
        except MedsegError as refusal:
            yield Outcome(case_id=source.case_id, status="failed", message=str(refusal))
            continue
        yield Outcome(
            case_id=source.case_id,
            status="written",
            message="; ".join(f"{one.code} {one.message}" for one in scan.findings),
            volumes=volumes,
            objects=objects,
            seconds=time.monotonic() - start,
        )


def recorded(outcomes: Iterable[Outcome], path: Path, *, labels: LabelSet) -> Iterator[Outcome]:
    """Pass outcomes on and write their tables meanwhile: a run that is killed loses few rows.

    Args:
        outcomes: of one run.
        path: see `write_outcomes`.
        labels: the classes.
    """
    told, pending, due = set(_earlier_rows(path)), list[Outcome](), 0.0
    try:
        for outcome in outcomes:
            if outcome.status == "kept" and outcome.case_id not in told:
                outcome = replace(outcome, message=_UNTOLD)
            pending.append(outcome)
            start = time.monotonic()
            if start >= due:
                write_outcomes(pending, path, labels=labels)
                pending = []
                due = time.monotonic() + _REST * (time.monotonic() - start)
            yield outcome
    finally:
        # Also after Ctrl-C.
        if pending or not path.exists():
            write_outcomes(pending, path, labels=labels)


def write_outcomes(outcomes: Sequence[Outcome], path: Path, *, labels: LabelSet) -> None:
    """Write `predictions.csv`, a row a scan, and beside it `volumes.csv` and `objects.csv`.

    Rows of other cases stay, and those of masks that were kept.
    """
    volumes_ml = [f"{name}_ml" for name in labels.names]
    columns = ["case_id", "status", "seconds", *volumes_ml, "message"]
    earlier = _earlier_rows(path)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    told = {outcome.case_id for outcome in outcomes}
    writer.writerows(row for case_id, row in earlier.items() if case_id not in told)
    for outcome in outcomes:
        if outcome.status == "kept" and outcome.case_id in earlier:
            writer.writerow(earlier[outcome.case_id])
            continue
        measured = {f"{one.class_name}_ml": _number(one.ml) for one in outcome.volumes}
        writer.writerow(
            {
                "case_id": outcome.case_id,
                "status": outcome.status,
                "seconds": _number(outcome.seconds),
                "message": outcome.message,
                **measured,
            }
        )
    write_text(out.getvalue(), path)
    failed = [one.case_id for one in outcomes if one.status == "failed"]
    write_volumes(
        {one.case_id: one.volumes for one in outcomes if one.status == "written"},
        path.parent / VOLUMES,
        without=failed,
    )
    objects = {one.case_id: one.objects for one in outcomes if one.objects is not None}
    if objects or (failed and (path.parent / OBJECTS).exists()):
        write_objects(objects, path.parent / OBJECTS, without=failed)


def _write(
    done: Segmentation, source: Source, files: dict[str, Path], outputs: Outputs
) -> tuple[ClassVolume, ...]:
    if done.probabilities is not None:
        names = done.labels.output_names
        maps = Volume(done.probabilities.astype(np.float32), done.geometry, names)
        kind = None if outputs.probabilities == "float32" else outputs.probabilities
        path = outputs.folder / f"{source.case_id}{PROBABILITIES}.nii.gz"
        write_volume(maps, path, quantised=kind)
    return write_case_files(
        done.label_map,
        files,
        geometry=done.geometry,
        labels=done.labels,
        scan=source,
        seg_type=outputs.seg_type,
    )


def _write_objects(done: Segmentation, paths: Sequence[Path]) -> tuple[FoundObject, ...] | None:
    if done.objects is None:
        return None
    write_ids(done.objects, paths, geometry=done.geometry)
    return measure_objects(done.objects, geometry=done.geometry, labels=done.labels)


def _earlier_rows(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["case_id"]: row for row in csv.DictReader(stream) if row.get("case_id")}


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6g}"
