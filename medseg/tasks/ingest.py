"""`medseg ingest`: turn a folder of scans into a checked manifest."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medseg.config import require, settings
from medseg.core.errors import EXIT_SOME_FAILED, ConfigError
from medseg.core.label import Stored
from medseg.core.labels import LabelSet
from medseg.data.declared import declared_labels
from medseg.data.ingest import Ingested, ingest
from medseg.data.layouts.found import CopyRequest, Request, Skipped
from medseg.data.manifest import Case, Manifest, write_manifest
from medseg.io.dicom.deidentification.copies import Treated
from medseg.privacy import remember_originals
from medseg.runtime.console import say, table
from medseg.runtime.files import write_text
from medseg.runtime.home import home

_SHOWN = 20
_TREATED = "treated.csv"
# Longer lists of classes are only counted.
_NAMED = 4


def main(config: DictConfig) -> int:
    """Import a source as the settings say; 3 when a case could not be read."""
    chosen = settings(config)
    output = _output(chosen)
    copies = copies_of(chosen, output)
    found = ingest(
        replace(request_of(chosen), copies=copies),
        layout=str(chosen["layout"]),
        read_masks=bool(chosen["read_masks"]),
        num_workers=chosen["num_workers"],
    )
    private = home() / "ids" / f"{found.manifest.digest[:12]}.csv"
    # Written before anything is printed: a pipe that closes (`| head`) must not cost the manifest.
    if found.originals:
        remember_originals(found.originals, private)
    write_manifest(found.manifest, output)
    if copies is not None:
        write_treated(found.treated, copies.folder / _TREATED)
    show(found)
    if copies is not None:
        say(f"\nDe-identified copies: {copies.folder}; what was dropped: {_TREATED} there")
        say("No tool is perfect, and no pixel was looked at: faces stay. Look before you share.")
    say(f"\nWrote {output} ({found.manifest.digest[:12]})")
    if found.originals:
        say(f"Ids are keyed hashes; whose they are stands in {private} alone")
    failed = sum(one.failed for one in found.skipped)
    if failed:
        say(f"{failed} cases could not be read and were left out", error=True)
    return EXIT_SOME_FAILED if failed else 0


def request_of(chosen: Mapping[str, Any]) -> Request:
    """Make a request of plain settings.

    Raises:
        ConfigError: a value of the wrong kind.
    """
    raters = {str(name): str(pattern) for name, pattern in chosen["raters"].items()}
    if chosen["label"] is not None:
        raters = {"label": str(chosen["label"]), **raters}
    return Request(
        source=Path(require(chosen, "source", "a folder with scans, or a table")),
        data_root=Path(chosen["data_root"]) if chosen["data_root"] else None,
        name=str(chosen["name"] or ""),
        images=_texts(chosen["images"]),
        raters=raters,
        consensus=chosen["consensus"],
        columns=_texts(chosen["columns"]),
        modalities=_texts(chosen["channels"]),
        reference_channel=str(chosen["reference_channel"] or ""),
        classes=_classes_of(chosen),
        labels={str(name): stored_values(name, text) for name, text in chosen["labels"].items()},
        things=_listed(chosen["things"]),
        ignore_value=chosen["ignore_value"],
        patient=str(chosen["patient"] or ""),
        patient_is_case=bool(chosen["patient_is_case"]),
        test=_listed(chosen["test"]),
        exclude=_listed(chosen["exclude"]),
        keep_incomplete=bool(chosen["keep_incomplete"]),
        spacing_mm=_spacing_mm(chosen["spacing_mm"]),
        spatial_dims=chosen["spatial_dims"],
        named_folds=bool(chosen["named_folds"]),
        num_folds=int(chosen["num_folds"]),
        seed=int(chosen["seed"]),
    )


def copies_of(chosen: Mapping[str, Any], output: Path) -> CopyRequest | None:
    """Say where de-identified copies go: `deidentified` beside the manifest; None for none.

    Raises:
        ConfigError: PRV-006 the copies would lie among the originals, or options of copies that
            are not asked for.
    """
    options = {name: bool(chosen[name]) for name in ("burned_in", "keep_intervals")}
    if not chosen["deidentify"]:
        if any(options.values()):
            raise ConfigError(
                "burned_in and keep_intervals are options of deidentify=true", code="PRV-006"
            )
        return None
    folder = output.absolute().parent / "deidentified"
    source = Path(require(chosen, "source", "a folder with scans, or a table")).resolve()
    root = source if source.is_dir() else source.parent
    if folder.resolve().is_relative_to(root):
        raise ConfigError(
            f"output={output}: copies in {folder} would lie among the originals",
            code="PRV-006",
            hint="give an output= outside the source",
        )
    return CopyRequest(folder=folder, **options)


def write_treated(treated: Treated, path: Path) -> None:
    """Write what was not copied as it was: attributes and counts of files, never a value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("tag", "keyword", "treatment", "num_files"))
    writer.writerows((*row, num_files) for row, num_files in sorted(treated.items()))
    write_text(out.getvalue(), path)


def _classes_of(chosen: Mapping[str, Any]) -> LabelSet | None:
    if chosen["classes"] is None:
        return None
    if chosen["labels"] or chosen["ignore_value"] is not None:
        raise ConfigError("classes= declares all classes; expected no labels. or ignore_value= too")
    return declared_labels(Path(str(chosen["classes"])))


def stored_values(name: str, text: object) -> Stored:
    """Read what files store for a class: `1`, `1,2`, `[1, 2]` or `>0`.

    Raises:
        ConfigError: something else.
    """
    if isinstance(text, str) and text.strip() == ">0":
        return ">0"
    parts = text if isinstance(text, list) else str(text).strip("[] ").split(",")
    try:
        return tuple(int(part) for part in parts)
    except ValueError as fault:
        raise ConfigError(
            f"labels.{name}={text}: expected whole numbers, such as 1 or 1,2, or '>0'"
        ) from fault


def show(found: Ingested) -> None:
    """Print what was taken and what was left out, and why."""
    manifest = found.manifest
    shown = list(manifest.cases[:_SHOWN])
    say(f"{manifest.name}: {len(manifest.cases)} cases ({found.layout})\n")
    table(
        [_row(manifest, number) for number in range(len(shown))],
        columns=("case", "patient", "split", "images", "masks", "classes"),
    )
    if len(manifest.cases) > len(shown):
        say(f"... and {len(manifest.cases) - len(shown)} more")
    splits = Counter(case.split for case in manifest.cases)
    patients = len({case.patient_id for case in manifest.cases})
    say(f"\n{patients} patients; " + ", ".join(f"{n} {name}" for name, n in splits.items()))
    if found.skipped:
        _show_skipped(found.skipped)


def _row(manifest: Manifest, number: int) -> tuple[object, ...]:
    case = manifest.cases[number]
    return (
        case.case_id,
        case.patient_id,
        case.split,
        ", ".join(case.images),
        len(case.label_files),
        _classes(case),
    )


def _classes(case: Case) -> str:
    if case.classes is None:
        return ""
    if len(case.classes) > _NAMED:
        return f"{len(case.classes)} classes"
    return ", ".join(case.classes) or "none"


def _show_skipped(skipped: Sequence[Skipped]) -> None:
    # Failures first: those the user did not mean to leave out.
    ordered = sorted(skipped, key=lambda one: not one.failed)
    say()
    table(
        [(one.subject, one.reason) for one in ordered[:_SHOWN]],
        columns=("left out", "why"),
    )
    if len(ordered) > _SHOWN:
        say(f"... and {len(ordered) - _SHOWN} more")


def _output(chosen: Mapping[str, Any]) -> Path:
    output = Path(chosen["output"] or "manifest.json")
    if output.suffix != ".json":
        output = output / "manifest.json"
    if output.exists() and not chosen["overwrite"]:
        raise ConfigError(
            f"output {output}: is already there",
            code="CFG-008",
            hint="give another output=, or overwrite=true",
        )
    return output


def _texts(group: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in group.items()}


def _listed(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else (str(value),)


def _spacing_mm(value: object) -> tuple[float, float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 3:
        raise ConfigError(f"spacing_mm={value}: expected three lengths, such as [0.5,0.5,2]")
    i, j, k = (float(length) for length in value)
    return i, j, k
