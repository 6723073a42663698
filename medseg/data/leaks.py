"""Leaks between splits: one patient, or one image, on both sides of a line."""

from collections.abc import Callable, Iterable

from medseg.core.errors import ManifestError
from medseg.data.case import Case


def require_no_leak(cases: Iterable[Case]) -> None:
    """Refuse cases of which training could have seen what validation or test measures.

    Raises:
        ManifestError: SPL-001 a patient in test and elsewhere; SPL-002 a patient in two folds;
            SPL-003 the same image under two patients, or in test and elsewhere.
    """
    listed = sorted(cases, key=lambda case: case.case_id)
    _require_one_side(listed)
    _require_one_fold(listed)
    _require_own_images(listed)


def _require_one_side(cases: list[Case]) -> None:
    for patient, own in _grouped(cases, lambda case: case.patient_id).items():
        test = [case.case_id for case in own if case.split == "test"]
        rest = [case.case_id for case in own if case.split != "test"]
        if test and rest:
            raise ManifestError(
                f"patient {patient!r} is in the test split (case {test[0]!r}) and outside it "
                f"(case {rest[0]!r})",
                code="SPL-001",
                hint="give all cases of a patient the same split",
            )


def _require_one_fold(cases: list[Case]) -> None:
    for patient, own in _grouped(cases, lambda case: case.patient_id).items():
        folds = {case.fold: case.case_id for case in own if case.fold is not None}
        if len(folds) > 1:
            (first, one), (second, other) = list(folds.items())[:2]
            raise ManifestError(
                f"patient {patient!r} is in fold {first} (case {one!r}) and in fold {second} "
                f"(case {other!r})",
                code="SPL-002",
                hint="give all cases of a patient the same fold",
            )


def _require_own_images(cases: list[Case]) -> None:
    for copies in _grouped(cases, lambda case: case.image_digest or case.digest).values():
        first, *others = copies
        for other in others:
            if crosses(first, other):
                raise ManifestError(
                    f"cases {first.case_id!r} (patient {first.patient_id!r}, {first.split}) and "
                    f"{other.case_id!r} (patient {other.patient_id!r}, {other.split}) hold the "
                    "same image",
                    code="SPL-003",
                    hint="remove one, or give both the same patient and split",
                )


def crosses(first: Case, second: Case) -> bool:
    """Tell whether two copies of one image could end on both sides of a split."""
    one_side = (first.split == "test") == (second.split == "test")
    return first.patient_id != second.patient_id or not one_side


def _grouped(cases: list[Case], key: Callable[[Case], str]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if value := key(case):
            groups.setdefault(value, []).append(case)
    return groups
