import itertools
import random
from collections import Counter

import pytest
from dataset_on_paper import paper_case, paper_manifest

from medseg.core.errors import ManifestError
from medseg.data.splits import Split, fold_of_cases, split_cases


def many(num_patients: int, rng: random.Random, **changes: object) -> list:
    """Cases of patients who bring one to four each, with strata and classes at random."""
    return [
        paper_case(
            f"p{patient:03}-{number}",
            patient_id=f"p{patient:03}",
            stratum=rng.choice("ABC"),
            classes=tuple(name for name in ("anterior", "posterior") if rng.random() < 0.6),
            **changes,
        )
        for patient in range(num_patients)
        for number in range(rng.randint(1, 4))
    ]


def test_208_single_cases_give_166_and_42_in_fold_0():
    manifest = paper_manifest([paper_case(f"{n:03}") for n in range(208)])
    split = split_cases(manifest, 0)
    assert (len(split.training), len(split.validation)) == (166, 42)


def test_folds_share_no_patient_and_together_are_all_cases():
    for seed in range(40):
        rng = random.Random(seed)
        manifest = paper_manifest(many(rng.randint(6, 40), rng), seed=seed)
        splits = [split_cases(manifest, fold) for fold in range(5)]
        validated = [case.case_id for split in splits for case in split.validation]
        assert sorted(validated) == sorted(case.case_id for case in manifest.cases)
        for split in splits:
            learned = {case.patient_id for case in split.training}
            assert learned.isdisjoint(case.patient_id for case in split.validation)


def test_the_order_of_rows_does_not_matter():
    rng = random.Random(1)
    cases = many(30, rng)
    shuffled = rng.sample(cases, len(cases))
    for fold in range(5):
        one, other = (split_cases(paper_manifest(rows), fold) for rows in (cases, shuffled))
        assert one == other


def test_another_seed_gives_other_folds_and_the_same_seed_the_same():
    cases = many(30, random.Random(1))
    drawn = [fold_of_cases(paper_manifest(cases, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_drawn_folds_do_not_change_with_versions():
    manifest = paper_manifest([paper_case(f"{n}") for n in range(10)], num_folds=2)
    assert "".join(str(fold) for fold in fold_of_cases(manifest).values()) == "0011010011"


def test_strata_are_spread_to_within_one_case():
    cases = [paper_case(f"{n:02}", stratum="rare" if n < 13 else "common") for n in range(60)]
    folds = fold_of_cases(paper_manifest(cases))
    for stratum in ("rare", "common"):
        counts = Counter(folds[case.case_id] for case in cases if case.stratum == stratum)
        assert max(counts.values()) - min(counts[fold] for fold in range(5)) <= 1
    sizes = Counter(folds.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_a_class_of_five_cases_reaches_every_fold():
    held = itertools.chain([("anterior", "posterior")] * 5, itertools.repeat(("anterior",)))
    cases = [
        paper_case(f"{n:02}", classes=classes) for n, classes in zip(range(50), held, strict=False)
    ]
    folds = fold_of_cases(paper_manifest(cases))
    assert {folds[case.case_id] for case in cases[:5]} == set(range(5))


def test_large_patients_do_not_unbalance_the_folds():
    rng = random.Random(3)
    cases = many(60, rng)
    sizes = Counter(fold_of_cases(paper_manifest(cases)).values())
    assert max(sizes.values()) - min(sizes.values()) <= 4


def test_folds_that_cases_name_win():
    cases = [paper_case(f"{n}", fold=n % 3) for n in range(9)]
    split = split_cases(paper_manifest(cases, num_folds=3), 1)
    assert [case.case_id for case in split.validation] == ["1", "4", "7"]


def test_all_trains_on_everything_but_test_and_unlabelled_cases():
    cases = [
        *(paper_case(f"{n}") for n in range(6)),
        paper_case("t", split="test"),
        paper_case("u", split="unlabelled", labels=()),
    ]
    split = split_cases(paper_manifest(cases), "all")
    assert [case.case_id for case in split.training] == list("012345")
    assert split.validation == ()


def test_test_cases_are_in_no_fold():
    cases = [paper_case(f"{n:02}", split="test" if n % 4 == 0 else "train") for n in range(40)]
    for fold in range(5):
        split = split_cases(paper_manifest(cases), fold)
        assert all(case.split == "train" for case in (*split.training, *split.validation))


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ({"split": "test"}, {}, "SPL-001"),
        ({"split": "test"}, {"split": "unlabelled", "labels": ()}, "SPL-001"),
        ({"fold": 0}, {"fold": 1}, "SPL-002"),
    ],
)
def test_a_patient_on_both_sides_is_refused_by_name(first, second, code):
    cases = [
        paper_case("a", patient_id="Ada", **first),
        paper_case("b", patient_id="Ada", **second),
    ]
    with pytest.raises(ManifestError, match=f"{code} patient 'Ada'.*'a'.*'b'"):
        paper_manifest(cases)


@pytest.mark.parametrize("key", ["digest", "image_digest"])
def test_one_image_under_two_patients_is_refused_with_both_names(key):
    cases = [paper_case("a", **{key: "same"}), paper_case("b", **{key: "same"})]
    with pytest.raises(ManifestError, match=r"SPL-003 cases 'a'.*'b'.*same image"):
        paper_manifest(cases)


def test_one_image_twice_of_one_patient_on_one_side_is_allowed():
    cases = [paper_case(name, patient_id="p", image_digest="same") for name in "ab"]
    assert len(paper_manifest(cases).cases) == 2


@pytest.mark.parametrize("fold", [5, -1])
def test_a_fold_that_does_not_exist_is_refused(fold):
    with pytest.raises(ManifestError, match=r"SPL-004 fold .*expected 0 to 4, or all"):
        split_cases(paper_manifest([paper_case(f"{n}") for n in range(9)]), fold)


def test_fewer_patients_than_folds_are_refused():
    cases = [paper_case(f"{n}", patient_id=f"p{n % 4}") for n in range(20)]
    with pytest.raises(ManifestError, match="SPL-005 paper: 4 patients cannot fill 5 folds"):
        split_cases(paper_manifest(cases), 0)


def test_a_named_fold_without_cases_is_refused():
    with pytest.raises(ManifestError, match="SPL-005 fold 3 has 0 of 4"):
        split_cases(paper_manifest([paper_case(f"{n}", fold=n % 2) for n in range(4)]), 3)


def test_a_split_made_by_hand_may_not_leak_either():
    with pytest.raises(ManifestError, match="SPL-002 patient 'p' is in training and in validation"):
        Split((paper_case("a", patient_id="p"),), (paper_case("b", patient_id="p"),))
