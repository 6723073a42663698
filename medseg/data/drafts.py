"""From what a layout found to cases: who is left out, whose a case is, and what it is for."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from medseg.core.errors import ManifestError
from medseg.data.case import Annotation, Case, SplitName
from medseg.data.layouts.found import Draft, Request, Skipped


def chosen_drafts(drafts: Sequence[Draft], request: Request) -> list[Draft]:
    """Leave out what the user excludes.

    Raises:
        ManifestError: ING-009: a pattern of `exclude` or `test` fits no case.
    """
    ids = [draft.case_id for draft in drafts]
    for key, patterns in (("exclude", request.exclude), ("test", request.test)):
        for pattern in patterns:
            if not any(fnmatchcase(case_id, pattern) for case_id in ids):
                raise ManifestError(
                    f"{key}: {pattern!r} fits no case, such as {ids[0]!r}", code="ING-009"
                )
    return [draft for draft in drafts if not _fits(draft.case_id, request.exclude)]


def complete_drafts(
    drafts: Sequence[Draft], channels: Sequence[str]
) -> tuple[list[Draft], list[Skipped]]:
    """Part the cases that have all of these channels from those that lack one.

    Raises:
        ManifestError: ING-013: every case lacks one.
    """
    complete: list[Draft] = []
    skipped: list[Skipped] = []
    for draft in drafts:
        lacking = [name for name in channels if name not in draft.images]
        if lacking:
            skipped.append(Skipped(subject=draft.case_id, reason=f"has no {', '.join(lacking)}"))
        else:
            complete.append(draft)
    if not complete:
        raise ManifestError(
            f"all {len(skipped)} cases lack a channel; the first, {skipped[0].subject!r}, "
            f"{skipped[0].reason}",
            code="ING-013",
            hint="name the channels to take, such as channels.CT=CT, or keep_incomplete=true",
        )
    return complete, skipped


def cases_of(drafts: Sequence[Draft], request: Request, root: Path) -> tuple[Case, ...]:
    """Make cases of drafts, their paths moved from the source's root to the data root.

    Raises:
        ManifestError: ING-008 a case whose patient nothing tells; ING-012 a source outside the
            data root; MAN-002 to MAN-004, the refusals of `Case`.
    """
    prefix = _prefix(root, request.data_root)
    return tuple(
        Case(
            case_id=draft.case_id,
            patient_id=_patient(draft, request),
            images={name: prefix + path for name, path in draft.images.items()},
            labels=tuple(_moved(one, prefix) for one in draft.labels),
            raters=draft.raters,
            annotated=draft.annotated,
            fold=_fold(draft, request),
            split=_split(draft, request),
            stratum=draft.stratum,
            spacing_mm=draft.spacing_mm or request.spacing_mm,
            series_uids=draft.series_uids,
        )
        for draft in drafts
    )


def _patient(draft: Draft, request: Request) -> str:
    if draft.patient_id:
        return draft.patient_id
    if request.patient:
        match = re.search(request.patient, draft.case_id)
        if match and match.groups():
            return match[1]
        raise ManifestError(
            f"case {draft.case_id!r}: patient={request.patient} finds no patient in it",
            code="ING-008",
            hint="the expression needs one group, such as patient='(\\d+)_'",
        )
    if request.patient_is_case:
        return draft.case_id
    raise ManifestError(
        f"case {draft.case_id!r}: nothing says whose it is; folds are drawn by patient",
        code="ING-008",
        hint="give patient= (an expression), a column, or patient_is_case=true",
    )


def _fold(draft: Draft, request: Request) -> int | None:
    # A case that the user holds back for testing leaves the fold it was published in.
    is_kept = request.named_folds and _split(draft, request) == "train"
    return draft.fold if is_kept else None


def _split(draft: Draft, request: Request) -> SplitName:
    if _fits(draft.case_id, request.test):
        return "test"
    return draft.split or ("train" if draft.labels else "unlabelled")


def _fits(case_id: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(case_id, pattern) for pattern in patterns)


def _prefix(root: Path, data_root: Path | None) -> str:
    """Return what takes a path below the source to one below the data root."""
    if data_root is None:
        return ""
    try:
        inside = root.resolve().relative_to(data_root.resolve())
    except ValueError as fault:
        raise ManifestError(
            f"source {root}: does not lie below data_root {data_root}", code="ING-012"
        ) from fault
    return "" if inside == Path() else f"{inside.as_posix()}/"


def _moved(annotation: Annotation, prefix: str) -> Annotation:
    if isinstance(annotation, str):
        return prefix + annotation
    return {name: prefix + path for name, path in annotation.items()}
