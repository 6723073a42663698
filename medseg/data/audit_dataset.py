"""The audit of a dataset: what only shows when its cases are seen together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from medseg.core.errors import ManifestError, MedsegError
from medseg.core.findings import Finding, Severity, finding_of
from medseg.data.audit import CaseAudit, audit_case
from medseg.data.leaks import crosses
from medseg.data.manifest import Manifest
from medseg.data.pool import outcomes
from medseg.data.splits import fold_of_cases


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRow:
    """How many cases of a fold (or of the test split) hold each class."""

    name: str
    num_cases: int
    num_patients: int
    class_cases: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Everything that `medseg check` found.

    Attributes:
        cases: one entry a case, by case id.
        findings: of all cases, then of the dataset.
        folds: the fold-by-class table.
    """

    cases: tuple[CaseAudit, ...]
    findings: tuple[Finding, ...]
    folds: tuple[FoldRow, ...]


def audit(manifest: Manifest, *, num_workers: int | None = None) -> Audit:
    """Open every file of every case and look at the dataset as a whole.

    Codes of its own: CHK-010 a class in no case, CHK-011 a class in no case of a fold, CHK-012
    one image twice under one patient; SPL-003 one image on both sides of a split, however each
    copy is packed; SPL-005 folds that cannot be drawn; RUN-001 a case whose reading killed the
    process.

    Args:
        manifest: the dataset.
        num_workers: processes; None: one a core; 0: none, in this process.
    """
    listed = sorted(manifest.cases, key=lambda case: case.case_id)
    found = outcomes(
        audit_case,
        [replace(manifest, cases=(case,)) for case in listed],
        num_workers=num_workers,
        label="checking",
    )
    cases = tuple(
        CaseAudit(case=case, findings=(finding_of(one, case.case_id),))
        if isinstance(one, MedsegError)
        else one
        for case, one in zip(listed, found, strict=True)
    )
    folds, unfilled = _fold_rows(manifest, cases)
    return Audit(
        cases=cases,
        findings=(
            *(finding for case in cases for finding in case.findings),
            *unfilled,
            *_copies(cases),
            *_absent_classes(manifest, folds),
        ),
        folds=folds,
    )


def _fold_rows(
    manifest: Manifest, cases: Sequence[CaseAudit]
) -> tuple[tuple[FoldRow, ...], tuple[Finding, ...]]:
    try:
        fold_of = fold_of_cases(manifest)
    except ManifestError as refusal:
        # A dataset of few patients can still be trained on as a whole.
        unfilled = replace(finding_of(refusal, manifest.name), severity="warning")
        fold_of = dict.fromkeys((case.case_id for case in manifest.training_cases), -1)
        noticed: tuple[Finding, ...] = (unfilled,)
    else:
        noticed = ()
    groups: dict[str, list[CaseAudit]] = {}
    for audited in cases:
        fold = fold_of.get(audited.case.case_id)
        name = audited.case.split if fold is None else f"fold {fold}" if fold >= 0 else "train"
        groups.setdefault(name, []).append(audited)
    rows = tuple(_fold_row(name, groups[name], manifest) for name in sorted(groups))
    return rows, noticed


def _fold_row(name: str, cases: Sequence[CaseAudit], manifest: Manifest) -> FoldRow:
    counted = [case.class_vox for case in cases if case.class_vox is not None]
    return FoldRow(
        name=name,
        num_cases=len(cases),
        num_patients=len({case.case.patient_id for case in cases}),
        class_cases=tuple(
            sum(counts[index] > 0 for counts in counted)
            for index in range(1, manifest.labels.num_indices)
        ),
    )


def _copies(cases: Sequence[CaseAudit]) -> Iterator[Finding]:
    groups: dict[str, list[CaseAudit]] = {}
    for case in cases:
        if case.voxel_digest:
            groups.setdefault(case.voxel_digest, []).append(case)
    for group in groups.values():
        for first, second in combinations((one.case for one in group), 2):
            severity: Severity = "error" if crosses(first, second) else "warning"
            yield Finding(
                code="SPL-003" if severity == "error" else "CHK-012",
                severity=severity,
                subject=second.case_id,
                message=f"holds the same voxels as case {first.case_id!r} (patients "
                f"{second.patient_id!r} and {first.patient_id!r}, splits {second.split} and "
                f"{first.split})",
                hint="remove one, or give both the same patient and split",
            )


def _absent_classes(manifest: Manifest, folds: Sequence[FoldRow]) -> Iterator[Finding]:
    for index, name in enumerate(manifest.labels.names):
        trained = [row for row in folds if row.name.startswith(("fold", "train"))]
        if trained and not any(row.class_cases[index] for row in trained):
            yield Finding(
                code="CHK-010",
                severity="error",
                subject=manifest.name,
                message=f"class {name!r} is in no training case",
                hint="remove it from the labels, or look at the stored values of the masks",
            )
            continue
        for row in trained:
            if not row.class_cases[index]:
                yield Finding(
                    code="CHK-011",
                    severity="warning",
                    subject=manifest.name,
                    message=f"class {name!r} is in no case of {row.name}",
                    hint="it cannot be scored there; pool the folds, or draw others by seed",
                )
