"""`medseg check`: audit every scan, mask and manifest row, or list what a folder holds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medseg.config import require, settings
from medseg.core.errors import EXIT_SOME_FAILED, ConfigError, ManifestError
from medseg.core.findings import Finding, Severity, finding_of, worst
from medseg.data.audit import CaseAudit
from medseg.data.audit_dataset import Audit, FoldRow, audit
from medseg.data.fixes import FOLDER, fixed_copies
from medseg.data.manifest import Manifest, manifest_file, read_manifest, write_manifest
from medseg.data.survey import Spacing, Surveyed, survey
from medseg.runtime.console import say, table
from medseg.runtime.files import write_json

_SHOWN = 40
_SHOWN_SCANS = 200
_GRAVEST_FIRST: tuple[Severity, ...] = ("error", "warning", "note")


def main(config: DictConfig) -> int:
    """Check a source or a manifest as the settings say; 3 when there are errors."""
    chosen = settings(config)
    if chosen["source"] is None:
        return check_manifest(chosen)
    if chosen["manifest"] is not None:
        raise ConfigError("source= and manifest=: expected one of them", code="CFG-003")
    if idle := [key for key in ("fix", "data_root") if chosen[key]]:
        raise ConfigError(f"{idle[0]}= is about a manifest; expected none beside source=")
    return check_source(chosen)


def check_source(chosen: Mapping[str, Any]) -> int:
    """List the scans under a path, before they are ingested; return the exit code."""
    source = Path(str(chosen["source"]))
    found = survey(source, pixels=bool(chosen["pixels"]), num_workers=chosen["num_workers"])
    output = Path(chosen["output"] or "check.json")
    write_json(found.to_json(), output)
    show_scans(found.scans)
    show_findings(found.findings)
    counts = ", ".join(f"{number} {verdict}" for verdict, number in found.num_by_verdict.items())
    say(f"\n{counts}; report: {output}")
    failed = "damaged" in found.num_by_verdict or worst(found.findings) == "error"
    return EXIT_SOME_FAILED if failed else 0


def check_manifest(chosen: Mapping[str, Any]) -> int:
    """Audit a manifest; return the exit code."""
    what = "the manifest to check, or source= a folder of scans"
    path = manifest_file(Path(require(chosen, "manifest", what)))
    data_root = Path(chosen["data_root"]) if chosen["data_root"] else None
    output = Path(chosen["output"]) if chosen["output"] else path.with_name("check.json")
    try:
        manifest = read_manifest(path, data_root=data_root)
    except ManifestError as refusal:
        if not path.is_file():
            raise
        # What cannot be trusted is not audited further, but the report still says so.
        findings = (finding_of(refusal, path.name),)
        write_json({"findings": [one.to_json() for one in findings]}, output)
        show_findings(findings)
        return EXIT_SOME_FAILED
    found = audit(manifest, num_workers=chosen["num_workers"])
    told = report(manifest, found)
    if chosen["fix"]:
        told["fixes"] = fix(manifest, path, num_workers=chosen["num_workers"])
    write_json(told, output)
    show_folds(manifest, found.folds)
    show_findings(found.findings)
    say(f"\n{len(found.cases)} cases checked; report: {output}")
    return EXIT_SOME_FAILED if worst(found.findings) == "error" else 0


def fix(manifest: Manifest, path: Path, *, num_workers: int | None) -> list[dict[str, object]]:
    """Write repaired copies and the manifest that names them, and say so.

    Args:
        manifest: the dataset.
        path: of its file; `manifest.fixed.json` goes beside it, unless nothing was repaired.
        num_workers: processes; None: one a core; 0: none.
    """
    copies, fixes = fixed_copies(manifest, num_workers=num_workers)
    if not fixes:
        say("nothing that can be repaired with certainty")
        return []
    table(
        [(one.case_id, ", ".join(one.codes), one.original, one.message) for one in fixes[:_SHOWN]],
        columns=("case", "repaired", "file", "what was wrong"),
    )
    if len(fixes) > _SHOWN:
        say(f"... and {len(fixes) - _SHOWN} more, in the report")
    fixed = path.with_name("manifest.fixed.json")
    write_manifest(copies, fixed)
    say(f"\n{len(fixes)} repaired copies in {manifest.data_root / FOLDER}; {fixed} names them\n")
    return [one.to_json() for one in fixes]


def report(manifest: Manifest, found: Audit) -> dict[str, Any]:
    """Return the audit as JSON; its keys are listed in docs/outputs.md."""
    names = manifest.labels.names
    return {
        "manifest": manifest.name,
        "manifest_digest": manifest.digest,
        "num_cases": len(found.cases),
        "num_by_severity": dict(Counter(one.severity for one in found.findings)),
        "findings": [one.to_json() for one in found.findings],
        "folds": [
            {
                "name": row.name,
                "num_cases": row.num_cases,
                "num_patients": row.num_patients,
                "class_cases": dict(zip(names, row.class_cases, strict=True)),
            }
            for row in found.folds
        ],
        "cases": [_case_json(one, ("background", *names)) for one in found.cases],
    }


def show_scans(scans: Sequence[Surveyed]) -> None:
    """Print a row a scan; descriptions of series are shown here and written nowhere."""
    table(
        [
            (
                one.place,
                one.series,
                one.modality,
                one.description,
                one.shape[2] if one.shape else "",
                _edges(one.spacing_mm, one.unit),
                one.verdict,
                one.reason,
            )
            for one in scans[:_SHOWN_SCANS]
        ],
        columns=(
            "scan", "series", "modality", "description", "slices", "spacing", "verdict", "why",
        ),
    )  # fmt: skip
    if len(scans) > _SHOWN_SCANS:
        say(f"... and {len(scans) - _SHOWN_SCANS} more, in the report")


def show_folds(manifest: Manifest, folds: Sequence[FoldRow]) -> None:
    """Print how many cases of each fold hold each class."""
    say(f"{manifest.name}: cases that hold each class\n")
    table(
        [(row.name, row.num_cases, row.num_patients, *row.class_cases) for row in folds],
        columns=("fold", "cases", "patients", *manifest.labels.names),
    )


def show_findings(findings: Sequence[Finding]) -> None:
    """Print errors, then warnings; notes are only counted."""
    grave = [one for one in findings if one.severity != "note"]
    grave.sort(key=lambda one: _GRAVEST_FIRST.index(one.severity))
    say()
    if grave:
        table(
            [
                (one.severity, one.code, one.subject, one.message, one.hint)
                for one in grave[:_SHOWN]
            ],
            columns=("severity", "code", "case", "found", "what to do"),
        )
    if len(grave) > _SHOWN:
        say(f"... and {len(grave) - _SHOWN} more, in the report")
    counts = Counter(one.severity for one in findings)
    say(", ".join(f"{counts[name]} {name}s" for name in _GRAVEST_FIRST))


def _edges(spacing: Spacing | None, unit: str) -> str:
    return " x ".join(f"{edge:.4g}" for edge in spacing) + f" {unit}" if spacing else ""


def _case_json(one: CaseAudit, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "case_id": one.case.case_id,
        "shape": one.shape,
        "spacing_mm": one.spacing_mm,
        "class_vox": dict(zip(names, one.class_vox, strict=True)) if one.class_vox else None,
        "voxel_digest": one.voxel_digest,
    }
