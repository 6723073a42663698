"""Folds by patient: balanced over strata and classes, and the same for the same seed."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medseg.core.errors import ManifestError
from medseg.data.case import Case
from medseg.data.leaks import require_no_leak
from medseg.data.manifest import Manifest

# What a fold is balanced over: its size, a stratum, or the cases that hold a class.
Feature = tuple[str, str]
_SIZE: Feature = ("size", "")


@dataclass(frozen=True, slots=True)
class Split:
    """Cases to learn from and cases to measure on, both by case id; no patient is in both.

    Raises:
        ManifestError: SPL-001 to SPL-003, a leak.
    """

    training: tuple[Case, ...]
    validation: tuple[Case, ...]

    def __post_init__(self) -> None:
        require_no_leak((*self.training, *self.validation))
        shared = {c.patient_id for c in self.training} & {c.patient_id for c in self.validation}
        if shared:
            raise ManifestError(
                f"patient {min(shared)!r} is in training and in validation", code="SPL-002"
            )


def split_cases(manifest: Manifest, fold: int | Literal["all"]) -> Split:
    """Return the training and the validation cases of a fold; test cases are in neither.

    Args:
        manifest: its cases' own folds count; without them folds are drawn from its seed.
        fold: 0 to `num_folds` - 1, or `all` to train on everything and validate on nothing.

    Raises:
        ManifestError: SPL-004 no such fold; SPL-005 fewer patients than folds, or an empty fold;
            SPL-006 no training case.
    """
    require_labelled(manifest)
    cases = manifest.training_cases
    if fold == "all":
        return Split(cases, ())
    if fold not in range(manifest.num_folds):
        raise ManifestError(
            f"fold {fold!r}: expected 0 to {manifest.num_folds - 1}, or all", code="SPL-004"
        )
    folds = fold_of_cases(manifest)
    training = tuple(case for case in cases if folds[case.case_id] != fold)
    validation = tuple(case for case in cases if folds[case.case_id] == fold)
    if not training or not validation:
        raise ManifestError(
            f"fold {fold} has {len(validation)} of {len(cases)} training cases; "
            "expected some, not all",
            code="SPL-005",
            hint="name other folds in the manifest, or use fold=all",
        )
    return Split(training, validation)


def require_labelled(manifest: Manifest) -> None:
    """Refuse to learn classes where no case is for training.

    Raises:
        ManifestError: SPL-006.
    """
    if not manifest.training_cases:
        raise ManifestError(
            f"{manifest.name}: none of its {len(manifest.cases)} cases has split train; classes "
            "are learnt from these alone",
            code="SPL-006",
            hint="label some and ingest again; experiment=pretrain learns from unlabelled scans",
        )


def fold_of_cases(manifest: Manifest) -> dict[str, int]:
    """Return the fold of every training case by case id: those it names, else drawn ones.

    Raises:
        ManifestError: SPL-005: fewer patients than folds.
    """
    cases = manifest.training_cases
    if all(case.fold is not None for case in cases):
        return {case.case_id: case.fold for case in cases if case.fold is not None}
    patients: dict[str, list[Case]] = {}
    for case in cases:
        patients.setdefault(case.patient_id, []).append(case)
    if len(patients) < manifest.num_folds:
        raise ManifestError(
            f"{manifest.name}: {len(patients)} patients cannot fill {manifest.num_folds} folds",
            code="SPL-005",
            hint="set num_folds in the manifest, or use fold=all",
        )
    features = {patient: _features(own) for patient, own in patients.items()}
    fold_of = draw_folds(features, num_folds=manifest.num_folds, seed=manifest.seed)
    return {case.case_id: fold_of[case.patient_id] for case in cases}


def draw_folds(
    features: Mapping[str, Mapping[Feature, int]], *, num_folds: int, seed: int
) -> dict[str, int]:
    """Deal patients into folds so that every feature is spread as evenly as it can be.

    Iterative stratification (Sechidis et al., ECML 2011), with patients as the units: the rarest
    feature is dealt first, each patient to the fold that still wants most of it.

    Args:
        features: for every patient, how many of its cases have each feature.
        num_folds: into how many folds.
        seed: decides between patients that are alike; their order in `features` does not.

    Returns:
        The fold of every patient.
    """
    waiting = sorted(features, key=lambda patient: _shuffled(patient, seed))
    total = sum((Counter(own) for own in features.values()), Counter[Feature]())
    wanted = [
        {feature: count / num_folds for feature, count in total.items()} for _ in range(num_folds)
    ]
    fold_of: dict[str, int] = {}
    while waiting:
        rarest = _rarest(features, waiting)
        # Large patients first: late ones are small enough to even out what is left.
        holders = [patient for patient in waiting if features[patient].get(rarest)]
        holders.sort(key=lambda patient: -features[patient][rarest])
        for patient in holders:
            fold = _neediest(wanted, rarest)
            fold_of[patient] = fold
            for feature, count in features[patient].items():
                wanted[fold][feature] -= count
        waiting = [patient for patient in waiting if patient not in fold_of]
    return fold_of


def _rarest(features: Mapping[str, Mapping[Feature, int]], waiting: Sequence[str]) -> Feature:
    left = sum((Counter(features[patient]) for patient in waiting), Counter[Feature]())
    return min(left, key=lambda feature: (left[feature], feature))


def _neediest(wanted: Sequence[Mapping[Feature, float]], feature: Feature) -> int:
    # Rounded, so that sums of fractions which are equal on paper also compare equal here.
    return max(
        range(len(wanted)),
        key=lambda fold: (
            round(wanted[fold][feature], 6),
            round(wanted[fold][_SIZE], 6),
            -fold,
        ),
    )


def _features(cases: Sequence[Case]) -> Counter[Feature]:
    found: Counter[Feature] = Counter()
    for case in cases:
        found[_SIZE] += 1
        if case.stratum:
            found["stratum", case.stratum] += 1
        found.update(("class", name) for name in case.classes or ())
    return found


def _shuffled(patient: str, seed: int) -> str:
    """Sort key that orders patients at random, on every machine and version alike."""
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()
