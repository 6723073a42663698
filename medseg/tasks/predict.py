"""`medseg predict`: scans in, masks on each scan's own grid out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from medseg.config import load_plugins, require, settings
from medseg.core.errors import EXIT_SOME_FAILED, CheckpointError, ConfigError
from medseg.data.manifest import read_manifest
from medseg.inference.batch import (
    Outcome,
    Outputs,
    ProbabilityType,
    predict_sources,
    recorded,
)
from medseg.inference.predictor import Predictor
from medseg.inference.sources import Source, sources_in, sources_of_manifest
from medseg.io.sidecars import write_sidecars
from medseg.io.writing import FROM_DICOM
from medseg.runtime.console import progress, say
from medseg.runtime.files import digest_of, read_json
from medseg.runtime.hardware import pick_device
from medseg.runtime.provenance import write_provenance
from medseg.runtime.runfolder import locked
from medseg.tracking.checkpoints import resolve_checkpoint


def main(config: Any) -> int:
    """Predict as the settings of `conf/predict.yaml` say."""
    chosen = settings(config)
    load_plugins(chosen["plugins"])
    named = require(chosen, "checkpoint", "model.pt, runs:/ID/model or models:/name@alias")
    output = Path(require(chosen, "output", "folder for the masks"))
    uri = chosen["mlflow"]["uri"]
    paths = [
        resolve_checkpoint(str(one), uri=uri)
        for one in (named if isinstance(named, list) else [named])
    ]
    device = pick_device(chosen["device"])
    predictor = Predictor.load(
        paths,
        device=device,
        overlap=chosen["overlap"],
        mirror=_wants_mirror(chosen["mirror"], device),
        batch_size=chosen["batch_size"],
    )
    outputs = Outputs(
        folder=output,
        formats=tuple(chosen["formats"]),
        probabilities=_probability_type(chosen["probabilities"]),
        seg_type=chosen["dicom_seg"]["type"],
    )
    sources = _sources(chosen, predictor)
    outcomes = predict_into(sources, predictor, outputs=outputs, checkpoints=paths)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        say(f"medseg predict: {outcome.case_id}: {outcome.message}", error=True)
    counts = {status: sum(o.status == status for o in outcomes) for status in ("written", "kept")}
    say(f"{counts['written']} written, {counts['kept']} kept, {len(failed)} failed: {output}")
    if remarks := sum(o.status != "failed" and bool(o.message) for o in outcomes):
        say(f"{remarks} with remarks, in predictions.csv")
    from_dicom = [name for name in outputs.formats if name in FROM_DICOM]
    bare = sum(source.dicom is None for source in sources)
    if from_dicom and bare:
        say(f"{bare} without {', '.join(from_dicom)}: scans that are no DICOM series")
    return EXIT_SOME_FAILED if failed else 0


def predict_into(
    sources: Sequence[Source],
    predictor: Predictor,
    *,
    outputs: Outputs,
    checkpoints: Sequence[Path],
) -> list[Outcome]:
    """Segment scans into a folder: masks, `predictions.csv`, label side files, `run.json`.

    Args:
        sources: the scans.
        predictor: made of the checkpoints.
        outputs: folder and formats.
        checkpoints: where the predictor came from, for `run.json`.

    Raises:
        CheckpointError: the folder holds masks of another checkpoint.
    """
    folder = outputs.folder
    digests = {f"checkpoint_{n}": digest_of(path) for n, path in enumerate(checkpoints)}
    with locked(folder):
        _require_same_model(folder, digests)
        write_provenance(
            folder,
            command="predict",
            digests=digests,
            settings={
                "formats": outputs.formats,
                "overlap": predictor.windows.overlap,
                "mirror_axes": predictor.windows.mirror_axes,
                "device": predictor.device.type,
            },
        )
        write_sidecars(folder, predictor.labels)
        outcomes = predict_sources(progress(sources, "segmenting"), predictor, outputs=outputs)
        return list(recorded(outcomes, folder / "predictions.csv", labels=predictor.labels))


def _sources(chosen: Mapping[str, Any], predictor: Predictor) -> list[Source]:
    if (chosen["input"] is None) == (chosen["manifest"] is None):
        raise ConfigError(
            "expected input= (a scan or a folder) or manifest=, one of the two", code="CFG-003"
        )
    if chosen["input"] is not None:
        return sources_in(
            Path(chosen["input"]), suv=predictor.in_suv, planes=predictor.planes_of_one
        )
    missing = chosen["missing"]
    if missing not in ("fail", "zero"):
        raise ConfigError(f"missing={missing}: expected fail or zero")
    if missing == "zero" and not predictor.channel_dropout:
        raise ConfigError(
            "missing=zero: this model was trained with all channels there",
            hint="train with augment.channel_dropout above 0",
        )
    manifest = read_manifest(
        Path(chosen["manifest"]), data_root=chosen["data_root"] and Path(chosen["data_root"])
    )
    return sources_of_manifest(
        manifest, str(chosen["split"]), missing=missing, trained_on=predictor.modalities
    )


def _wants_mirror(value: Any, device: torch.device) -> bool:
    if value == "auto":
        # Eight times the work for a fraction of a point: worth it on a GPU only.
        return device.type != "cpu"
    if isinstance(value, bool):
        return value
    raise ConfigError(f"mirror={value}: expected true, false or auto")


def _probability_type(value: Any) -> ProbabilityType | None:
    if value is None or isinstance(value, bool):
        return "uint16" if value else None
    if value in ("uint8", "uint16", "float32"):
        return cast(ProbabilityType, value)
    raise ConfigError(f"probabilities={value}: expected false, uint8, uint16 or float32")


def _require_same_model(folder: Path, digests: Mapping[str, str]) -> None:
    """Refuse to mix masks of two models in one folder."""
    path = folder / "run.json"
    if not path.exists():
        return
    stored = read_json(path, kind=CheckpointError, what="the record of a prediction")
    if stored.get("digests") != dict(digests):
        raise CheckpointError(
            f"output={folder}: holds masks of another checkpoint",
            code="CFG-008",
            hint="choose another folder; masks of two models are not mixed",
        )
