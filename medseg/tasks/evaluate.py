"""`medseg evaluate`: masks against references, one row a case and class, and what they come to."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medseg.config import require, settings
from medseg.core.errors import EXIT_SOME_FAILED, ConfigError, MedsegError
from medseg.data.manifest import Manifest, read_manifest
from medseg.data.pairs import Pair, SplitChoice, pair_folders, pair_with_manifest
from medseg.data.pool import outcomes
from medseg.evaluation.case_scores import rows_of_refusal, score_pair
from medseg.metrics.objects import object_measures, pool_objects
from medseg.metrics.score_table import Row, measures_in, scores_text
from medseg.metrics.scoring import Scoring, require_count
from medseg.runtime.console import say, table
from medseg.runtime.files import write_json, write_text
from medseg.runtime.provenance import write_provenance
from medseg.runtime.runfolder import fresh_folder, locked
from medseg.statistics.agreement import pair_rows, summarise_pairs
from medseg.statistics.cohort import Summariser, Summary
from medseg.statistics.objects import pooled_scores, summarise_objects
from medseg.statistics.summary_table import object_rows, summary_notes, summary_rows
from medseg.tracking.fields import TEST_SPLIT_TAG
from medseg.tracking.tracker import Tracker, open_tracker

SCORES = "scores.csv"
SUMMARY = "summary.json"
OBJECT_SCORES = "object_scores.csv"
RATERS = "raters.csv"
_SPLITS: dict[str, SplitChoice] = {"all": "all", "train": "train", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Rows of scores.csv, object_scores.csv and raters.csv, and what summary.json says."""

    rows: tuple[Row, ...]
    summary: Summary
    object_rows: tuple[Row, ...] = ()
    agreement: tuple[Row, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or 3 when some case could not be scored."""
        return EXIT_SOME_FAILED if self.summary["num_failed"] else 0


def main(config: Any) -> int:
    """Evaluate as the settings of `conf/evaluate.yaml` say."""
    chosen = settings(config)
    output = Path(require(chosen, "output", "folder for scores.csv and summary.json"))
    scoring = Scoring(
        surface_tolerance_mm=chosen["surface_tolerance_mm"],
        class_tolerance_mm=chosen["class_tolerance_mm"],
        level=chosen["level"],
        seed=chosen["seed"],
        iou_thresholds=tuple(chosen["iou_thresholds"]),
    )
    manifest = _manifest_of(chosen)
    split = _split_of(chosen["split"])
    pairs = _pairs_of(chosen, manifest, split)
    digests = {"manifest": manifest.digest} if manifest else {}
    what = "folders" if chosen["reference"] else str(split)
    # A folder that cannot be written is found before the work, not after it.
    with (
        locked(output),
        _tracked(chosen, manifest, output, run_name=f"evaluate {what}") as tracker,
    ):
        tracker.set_tags({"command": "evaluate", "split": what})
        if manifest and split == "test":
            tracker.set_tags({TEST_SPLIT_TAG: manifest.digest})
        tracker.log_params(
            {"surface_tolerance_mm": scoring.surface_tolerance_mm, "digest": digests}
        )
        evaluation = evaluate(
            pairs,
            output,
            scoring=scoring,
            num_workers=chosen["num_workers"],
            digests=digests,
            tracker=tracker,
        )
    show_evaluation(evaluation)
    say(f"scores: {output / SCORES}, summary: {output / SUMMARY}")
    return evaluation.exit_code


def evaluate(
    pairs: Sequence[Pair],
    output: Path,
    *,
    scoring: Scoring | None = None,
    num_workers: int | None = None,
    digests: Mapping[str, str] | None = None,
    tracker: Tracker | None = None,
) -> Evaluation:
    """Score all pairs and write scores.csv, summary.json and run.json.

    Where classes are of things, object_scores.csv is written, too; where cases have several raters,
    raters.csv. A pair that cannot be scored gives rows that say why, and the rest goes on.

    Args:
        pairs: what to compare (`data.pairs`).
        output: folder to write to.
        scoring: tolerances and intervals.
        num_workers: processes that score; None: one a core; 0: none.
        digests: SHA-256 of the inputs by role, for run.json.
        tracker: takes the means, a metric a class and measure.

    Raises:
        ConfigError: a tolerance for a class that no pair has, or no number of processes.
        WriteError: the folder cannot be written.
    """
    scoring = scoring or Scoring()
    _require_known(scoring, pairs)
    if num_workers is not None:
        require_count("num_workers", num_workers)
    work = partial(
        score_pair,
        surface_tolerance_mm=scoring.surface_tolerance_mm,
        class_tolerance_mm=dict(scoring.class_tolerance_mm),
        iou_thresholds=scoring.iou_thresholds,
    )
    found = outcomes(work, pairs, num_workers=num_workers, label="scored")
    scored = [
        rows_of_refusal(pair, one) if isinstance(one, MedsegError) else one
        for pair, one in zip(pairs, found, strict=True)
    ]
    rows = tuple(row for one in scored for row in one.rows)
    objects = tuple(row for one in scored for row in one.objects)
    agreement = tuple(row for one in scored for row in one.agreement)
    summariser = Summariser(
        measures=measures_in(rows),
        classes=tuple(dict.fromkeys(name for pair in pairs for name in pair.labels.names)),
        level=scoring.level,
        seed=scoring.seed,
    )
    summary = summariser.summarise(rows)
    if objects:
        thresholds = scoring.iou_thresholds
        summary["objects"] = summarise_objects(
            objects,
            replace(summariser, measures=object_measures(thresholds)),
            pool=partial(pool_objects, thresholds=thresholds),
        )
        write_text(scores_text(objects), output / OBJECT_SCORES)
    if agreement:
        summary["raters"] = summarise_pairs(agreement, summariser)
        write_text(scores_text(agreement), output / RATERS)
    write_text(scores_text(rows), output / SCORES)
    write_json(summary, output / SUMMARY)
    write_provenance(output, command="evaluate", digests=digests or {}, seed=scoring.seed)
    if tracker is not None:
        tracker.log_metrics(_means(summary), step=0)
    return Evaluation(rows=rows, summary=summary, object_rows=objects, agreement=agreement)


def show_evaluation(evaluation: Evaluation) -> None:
    """Print a line a class, what was missed, and what could not be scored."""
    summary = evaluation.summary
    columns, rows = summary_rows(summary)
    num_cases, num_patients = summary["num_cases"], summary["num_patients"]
    title = (
        f"{num_cases - summary['num_failed']} of {num_cases} cases scored, "
        f"{num_patients} patients; {summary['interval']['level']:.0%} intervals"
    )
    table(rows, columns=columns, title=title)
    for note in summary_notes(summary):
        say(note)
    if "objects" in summary:
        columns, rows = object_rows(summary["objects"])
        table(rows, columns=columns, title="objects of all cases together, and mean AP of a case")
    if "raters" in summary:
        columns, rows = pair_rows(summary["raters"])
        table(rows, columns=columns, title="between raters, and prediction and raters")
    for error in (error for errors in summary["failed"].values() for error in errors):
        say(f"not scored: {error}", error=True)


def _means(summary: Summary) -> dict[str, float]:
    scores = {name: entry["scores"] for name, entry in summary["classes"].items()}
    scores["foreground"] = summary["foreground"]
    means = {
        f"{measure}/{name}": entry["mean"]
        for name, measures in scores.items()
        for measure, entry in measures.items()
    }
    counts = {name: summary[name] for name in ("num_cases", "num_failed")}
    return {**means, **pooled_scores(summary), **counts}


def _require_known(scoring: Scoring, pairs: Sequence[Pair]) -> None:
    known = {name for pair in pairs for name in pair.labels.names}
    known |= {region.name for pair in pairs for region in pair.labels.regions}
    if unknown := sorted(set(scoring.class_tolerance_mm) - known):
        raise ConfigError(
            f"class_tolerance_mm.{unknown[0]}: no such class; expected one of {sorted(known)}"
        )


def _manifest_of(chosen: Mapping[str, Any]) -> Manifest | None:
    if not chosen["manifest"]:
        return None
    root = chosen["data_root"]
    return read_manifest(Path(chosen["manifest"]), data_root=root and Path(root))


def _split_of(asked: object) -> SplitChoice:
    text = str(asked)
    if text.isdecimal():
        return int(text)
    if text in _SPLITS:
        return _SPLITS[text]
    raise ConfigError(f"split={text}: expected all, train, test, or the number of a fold")


def _pairs_of(
    chosen: Mapping[str, Any], manifest: Manifest | None, split: SplitChoice
) -> list[Pair]:
    prediction = Path(require(chosen, "prediction", "folder of predicted masks"))
    things = chosen["things"]
    if chosen["reference"]:
        return pair_folders(
            prediction,
            Path(chosen["reference"]),
            labels=manifest.labels if manifest else None,
            patients={case.case_id: case.patient_id for case in manifest.cases} if manifest else {},
            things=things,
        )
    if manifest is None:
        raise ConfigError(
            "manifest= or reference= is missing: what the masks are measured against",
            code="CFG-003",
        )
    return pair_with_manifest(manifest, prediction, split=split, things=things)


@contextmanager
def _tracked(
    chosen: Mapping[str, Any], manifest: Manifest | None, output: Path, *, run_name: str
) -> Iterator[Tracker]:
    """Track the block as a run that ends as the block does."""
    mlflow = chosen["mlflow"]
    if not mlflow["enabled"]:
        yield Tracker()
        return
    tracker = open_tracker(
        uri=mlflow["uri"],
        experiment=mlflow["experiment"] or (manifest.name if manifest else "evaluate"),
        run_name=run_name,
        # A folder of its own: evaluating twice into one output is two runs.
        folder=fresh_folder(output, "tracking"),
    )
    try:
        yield tracker
    except KeyboardInterrupt:
        tracker.close("KILLED")
        raise
    except Exception:
        tracker.close("FAILED")
        raise
    tracker.close("FINISHED")
