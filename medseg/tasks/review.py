"""`medseg review`: which scans to annotate next, by the disagreement of an ensemble."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config import load_plugins, require, settings
from medseg.core.errors import EXIT_SOME_FAILED, MedsegError
from medseg.data.manifest import read_manifest
from medseg.inference.disagreement import Disagreement, disagreement_on, require_several
from medseg.inference.predictor import Predictor
from medseg.inference.sources import Source, sources_in, sources_of_manifest
from medseg.runtime.console import progress, say, table
from medseg.runtime.files import digest_of, write_text
from medseg.runtime.hardware import pick_device
from medseg.runtime.provenance import write_provenance
from medseg.runtime.runfolder import locked
from medseg.tracking.checkpoints import resolve_checkpoint

# How many of the list are shown.
_NUM_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """One scan: how much the members disagree, or why it could not be read."""

    case_id: str
    found: Disagreement | None
    message: str = ""


def main(config: Any) -> int:
    """Review as the settings of `conf/review.yaml` say."""
    chosen = settings(config)
    load_plugins(chosen["plugins"])
    named = require(chosen, "checkpoint", "model.pt of every member, as a list")
    output = Path(require(chosen, "output", "folder for review.csv"))
    pool = Path(require(chosen, "unlabelled", "a manifest, a scan, or a folder of scans"))
    uri = chosen["mlflow"]["uri"]
    paths = [
        resolve_checkpoint(str(one), uri=uri)
        for one in (named if isinstance(named, list) else [named])
    ]
    ensemble = Predictor.load(
        paths,
        device=pick_device(chosen["device"]),
        overlap=chosen["overlap"],
        batch_size=chosen["batch_size"],
    )
    with locked(output):
        write_provenance(
            output,
            command="review",
            digests={f"checkpoint_{n}": digest_of(path) for n, path in enumerate(paths)},
            settings={"overlap": chosen["overlap"]},
        )
        root = chosen["data_root"] and Path(chosen["data_root"])
        ranked = rank_sources(unlabelled_sources(pool, ensemble, data_root=root), ensemble)
        write_review(ranked, output / "review.csv")
    _show(ranked, output)
    return EXIT_SOME_FAILED if any(one.found is None for one in ranked) else 0


def rank_sources(sources: Sequence[Source], ensemble: Predictor) -> list[Reviewed]:
    """Review every scan; those the ensemble disagrees on most come first, refused ones last.

    Raises:
        ConfigError: REV-001, an ensemble of one.
    """
    require_several(ensemble)
    reviewed = []
    for source in progress(sources, "reviewing"):
        try:
            found = disagreement_on(source.read(), ensemble)
        except MedsegError as refusal:
            reviewed.append(Reviewed(case_id=source.case_id, found=None, message=str(refusal)))
            continue
        reviewed.append(Reviewed(case_id=source.case_id, found=found))
    return sorted(reviewed, key=_place)


def unlabelled_sources(
    path: Path, ensemble: Predictor, *, data_root: Path | None = None
) -> list[Source]:
    """Find what to review, in the units that the ensemble was trained on.

    Args:
        path: a manifest, whose unlabelled cases are taken, a scan, or a folder of scans.
        ensemble: DICOM is turned into SUV where it was trained on that.
        data_root: folder the manifest's paths start from; None: what the manifest says.

    Raises:
        ManifestError: SCN-010, a dataset in another unit of PET.
        ReadError, ConfigError: as `sources_in` and `sources_of_manifest`.
    """
    if path.suffix == ".json" or (path / "manifest.json").exists():
        manifest = read_manifest(path, data_root=data_root)
        return sources_of_manifest(manifest, "unlabelled", trained_on=ensemble.modalities)
    return sources_in(path, suv=ensemble.in_suv, planes=ensemble.planes_of_one)


def write_review(ranked: Sequence[Reviewed], path: Path) -> None:
    """Write `review.csv`: a row a scan, the one to annotate first on top."""
    names = next((list(one.found.by_class) for one in ranked if one.found is not None), [])
    columns = ["rank", "case_id", "disagreement", "mutual_information"]
    columns += [*(f"{name}_disagreement" for name in names), "message"]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for rank, one in enumerate(ranked, start=1):
        if one.found is None:
            writer.writerow(["", one.case_id, *[""] * (2 + len(names)), one.message])
            continue
        values = [one.found.score, one.found.mutual_information, *one.found.by_class.values()]
        writer.writerow([rank, one.case_id, *map(_number, values), one.message])
    write_text(out.getvalue(), path)


def _place(one: Reviewed) -> tuple[bool, float, float, str]:
    if one.found is None:
        return True, 0.0, 0.0, one.case_id
    information = one.found.mutual_information
    return False, -one.found.score, -(information if information == information else 0), one.case_id


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6g}"


def _show(ranked: Sequence[Reviewed], output: Path) -> None:
    told = [(one, one.found) for one in ranked if one.found is not None]
    table(
        [
            (rank, one.case_id, found.score, found.mutual_information)
            for rank, (one, found) in enumerate(told[:_NUM_SHOWN], start=1)
        ],
        columns=("rank", "case", "disagreement", "mutual information (bits)"),
    )
    for one in ranked:
        if one.found is None:
            say(f"medseg review: {one.case_id}: {one.message}", error=True)
    say(f"{len(told)} of {len(ranked)} scans reviewed: {output / 'review.csv'}")
