"""Many scans through one predictor: each mask written whole, one bad scan never stops the rest."""

import csv
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg.core.errors import ConfigError, MedsegError
from medseg.core.labels import LabelSet
from medseg.core.volume import Volume
from medseg.inference.predictor import Predictor, Segmentation
from medseg.inference.sources import Source
from medseg.io.formats import write_label_map, write_volume
from medseg.io.writing import SUFFIX_OF
from medseg.runtime.files import write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What is written for a case.

    Attributes:
        folder: where.
        formats: names of `SUFFIX_OF`, at least one.
        probabilities: also write `<case_id>_probabilities.nii.gz`, a channel a class.

    Raises:
        ConfigError: an unknown format, or none.
    """

    folder: Path
    formats: tuple[str, ...] = ("nifti",)
    probabilities: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in SUFFIX_OF]
        if unknown or not self.formats:
            raise ConfigError(f"formats={list(self.formats)}: expected some of {list(SUFFIX_OF)}")

    def files_for(self, source: Source) -> dict[str, Path]:
        """Return the mask files of a case by format."""
        return {
            name: self.folder / f"{source.case_id}{SUFFIX_OF[name]}"
            for name in self.formats
            if name != "dicom_seg" or source.dicom is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one scan.

    Attributes:
        case_id: its name.
        status: `written`, `kept` (a mask was there already), or `failed`.
        message: why it failed, or what its reader noticed or repaired, coded; mostly empty.
        volume_ml: per class, of the mask just written.
        seconds: from reading to writing.
    """

    case_id: str
    status: str
    message: str = ""
    volume_ml: dict[str, float] = field(default_factory=dict)
    seconds: float = float("nan")


def predict_sources(
    sources: Iterable[Source], predictor: Predictor, *, outputs: Outputs
) -> Iterator[Outcome]:
    """Segment scans one after another and yield what became of each.

    A case whose files are all there is kept, so an interrupted folder goes on where it stopped.
    """
    for source in sources:
        files = outputs.files_for(source)
        if files and all(path.exists() for path in files.values()):
            yield Outcome(case_id=source.case_id, status="kept")
            continue
        start = time.monotonic()
        try:
            scan = source.read()
            done = predictor.segment(scan, probabilities=outputs.probabilities)
            _write(done, source, files, outputs)
        except MedsegError as refusal:
            yield Outcome(case_id=source.case_id, status="failed", message=str(refusal))
            continue
        yield Outcome(
            case_id=source.case_id,
            status="written",
            message="; ".join(f"{one.code} {one.message}" for one in scan.findings),
            volume_ml=volumes_ml(done),
            seconds=time.monotonic() - start,
        )


def volumes_ml(done: Segmentation) -> dict[str, float]:
    """Volume of every class in millilitres; NaN where the scan has no physical size."""
    if done.geometry.unit == "px":
        return dict.fromkeys(done.labels.names, float("nan"))
    counts = np.bincount(done.label_map.ravel(), minlength=done.labels.num_outputs)
    return {
        name: float(counts[index]) * done.geometry.voxel_ml
        for index, name in enumerate(done.labels.names, start=1)
    }


def write_outcomes(outcomes: Sequence[Outcome], path: Path, *, labels: LabelSet) -> None:
    """Write `predictions.csv`: a row a scan; rows of earlier runs stay for masks that were kept."""
    volumes = [f"{name}_ml" for name in labels.names]
    columns = ["case_id", "status", "seconds", *volumes, "message"]
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
        measured = {f"{n}_ml": _number(ml) for n, ml in outcome.volume_ml.items()}
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


def _write(done: Segmentation, source: Source, files: dict[str, Path], outputs: Outputs) -> None:
    if done.probabilities is not None:
        names = ("background", *done.labels.names)
        maps = Volume(done.probabilities.astype(np.float32), done.geometry, names)
        write_volume(maps, outputs.folder / f"{source.case_id}_probabilities.nii.gz")
    for path in files.values():
        write_label_map(
            done.label_map,
            path,
            geometry=done.geometry,
            labels=done.labels,
            source=source.dicom,
            series_uid=source.series_uid,
        )


def _earlier_rows(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["case_id"]: row for row in csv.DictReader(stream) if row.get("case_id")}


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6g}"
