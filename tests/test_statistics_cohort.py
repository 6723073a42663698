"""The summary of a cohort, against counts and means done by hand."""

import math
from typing import Any

import pytest

from medseg.statistics.bootstrap import Interval
from medseg.statistics.cohort import Summariser
from medseg.statistics.summary_table import summary_notes, summary_rows

NAN = float("nan")


def row(case: str, name: str, dice: float, **changes: Any) -> dict[str, Any]:
    return {
        "case_id": case,
        "patient_id": case[0],
        "stratum": "",
        "class": name,
        "dice": dice,
        "surface_dice": dice,
        "hd95_mm": 1.0,
        "volume_error_ml": 0.0,
        "volume_prediction_ml": 0.0,
        "reference_empty": False,
        "prediction_empty": False,
        "error": "",
        **changes,
    }


def summarise(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    measures = ("dice", "surface_dice", "hd95_mm", "volume_error_ml")
    summariser = Summariser(measures=measures, classes=("liver", "tumour"), **changes)
    return summariser.summarise(rows)


ABSENT = {"reference_empty": True, "prediction_empty": True, "hd95_mm": NAN}
ROWS = [
    row("a1", "liver", 0.9),
    row("a1", "tumour", NAN, **ABSENT),
    row("a2", "liver", 0.8),
    row("a2", "tumour", 0.0, reference_empty=True, hd95_mm=NAN, volume_prediction_ml=1.5),
    row("b1", "liver", 0.4),
    row("b1", "tumour", 0.0, prediction_empty=True, hd95_mm=NAN),
]


def test_means_leave_out_undefined_scores_and_count_them() -> None:
    tumour = summarise(ROWS)["classes"]["tumour"]
    assert tumour["scores"]["dice"]["mean"] == 0
    assert tumour["scores"]["dice"]["num"] == 2
    assert tumour["scores"]["dice"]["num_undefined"] == 1
    assert tumour["scores"]["hd95_mm"]["num_undefined"] == 3
    assert math.isnan(tumour["scores"]["hd95_mm"]["median"])


def test_empty_masks_misses_and_false_positives_are_counted_beside_the_means() -> None:
    tumour = summarise(ROWS)["classes"]["tumour"]
    assert (tumour["num"], tumour["num_reference_empty"], tumour["num_prediction_empty"]) == (
        3,
        2,
        2,
    )
    assert (tumour["num_missed"], tumour["num_false_positive"]) == (1, 1)
    assert tumour["false_positive"] == {"volume_prediction_ml": {"mean": 0.75, "largest": 1.5}}


def test_the_foreground_is_the_mean_over_classes_of_a_case_then_over_cases() -> None:
    foreground = summarise(ROWS)["foreground"]["dice"]
    assert foreground["mean"] == pytest.approx((0.9 + 0.4 + 0.2) / 3)
    assert foreground["median"] == pytest.approx(0.4)


def test_a_region_does_not_count_twice_in_the_foreground() -> None:
    region = [row("a1", "abdomen", 0.1)]
    assert summarise(ROWS + region)["foreground"] == summarise(ROWS)["foreground"]


def test_intervals_are_drawn_over_patients_from_a_fixed_seed() -> None:
    rows = [row(case, "liver", dice) for case, dice in (("a1", 0.9), ("a2", 0.8), ("b1", 0.4))]
    dice = summarise(rows)["classes"]["liver"]["scores"]["dice"]
    # Two patients: a resample is all of one, all of the other, or both.
    assert (dice["low"], dice["high"]) == (pytest.approx(0.4), pytest.approx(0.85))
    assert summarise(rows) == summarise(rows)
    more = summarise([*rows, row("c1", "tumour", 0.5)])
    assert more["classes"]["liver"] == summarise(rows)["classes"]["liver"]


def test_rows_with_errors_are_listed_and_not_averaged() -> None:
    failed = [{**row("c1", name, 0), "error": "no mask"} for name in ("liver", "tumour")]
    summary = summarise(ROWS + failed)
    assert summary["num_cases"] == 4
    assert summary["num_failed"] == 1
    assert summary["failed"] == {"c1": ["no mask"]}
    assert summary["classes"]["liver"] == summarise(ROWS)["classes"]["liver"]
    assert summary["classes"]["tumour"]["num"] == 3


def test_strata_have_summaries_of_their_own() -> None:
    rows = [
        row("a1", "liver", 0.9, stratum="1.5 T"),
        row("b1", "liver", 0.5, stratum="3 T"),
        row("c1", "liver", 0.7, stratum="3 T"),
    ]
    summary = summarise(rows)
    groups = summary["groups"]
    assert groups["1.5 T"]["classes"]["liver"]["scores"]["dice"]["mean"] == 0.9
    assert groups["3 T"]["num_cases"] == 2
    assert summarise(ROWS)["groups"] == {}
    lines = {line[0]: line[1] for line in summary_rows(summary)[1]}
    assert lines["foreground, 3 T"] == "0.600"


def test_the_printed_table_says_how_many_scores_are_undefined() -> None:
    columns, rows = summary_rows(summarise(ROWS))
    assert columns[-2:] == ("hd95_mm", "volume_error_ml")
    assert [line[0] for line in rows] == ["liver", "tumour", "foreground"]
    assert rows[1][1] == "0.000 (1 undefined)"
    assert list(summary_notes(summarise(ROWS))) == [
        "tumour: missed in 1 of 1 cases that have it, found in 1 of 2 that do not"
    ]


def test_a_score_that_is_small_is_not_printed_as_none() -> None:
    one = {**row("a1", "liver", 0.9), "hd95_mm": 0.00042}
    columns, (liver, *_) = summary_rows(summarise([one]))
    assert liver[columns.index("hd95_mm")] == "4.2e-04"


def test_nothing_scored_is_a_summary_too() -> None:
    summary = summarise([{**row("a1", "liver", 0), "error": "no mask"}])
    assert summary["classes"] == {}
    assert summary["foreground"] == {}
    assert summary_rows(summary)[1] == []


def test_an_interval_in_the_summary_has_the_fields_of_an_interval() -> None:
    found = summarise(ROWS)["classes"]["liver"]["scores"]["dice"]
    assert set(found) == {*Interval.__dataclass_fields__, "median"}
