import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg.core.errors import LabelError
from medseg.core.labels import CodedTerm, Label, LabelSet, Region, label_set

KINDS = [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, np.float32, np.float64]


@st.composite
def label_sets(draw: st.DrawFn) -> LabelSet:
    values = draw(
        st.lists(st.integers(-300, 70_000).filter(bool), min_size=2, max_size=9, unique=True)
    )
    ignore = values.pop() if draw(st.booleans()) else None
    names = [f"class {n}" for n in range(len(values))]
    made = label_set(dict(zip(names, values, strict=True)))
    return LabelSet(labels=made.labels, ignore_value=ignore)


@given(labels=label_sets(), seed=st.integers(0, 2**31))
def test_stored_values_come_back_after_translation_both_ways(labels: LabelSet, seed: int) -> None:
    stored = np.array([0, *(label.values[0] for label in labels.labels)])
    if labels.ignore_value is not None:
        stored = np.append(stored, labels.ignore_value)
    volume = np.random.default_rng(seed).choice(stored, size=(4, 5, 6))
    index = labels.from_stored(volume, name="mask")
    by_hand = {int(value): n for n, value in enumerate(stored)}
    assert np.array_equal(index, np.vectorize(by_hand.get)(volume))
    assert np.array_equal(labels.to_stored(index), volume)
    assert labels.to_stored(index).dtype.itemsize <= volume.dtype.itemsize


@pytest.mark.parametrize("kind", KINDS)
def test_every_numeric_type_gives_the_same_indices(kind: type) -> None:
    labels = label_set({"myelin": 127, "axon": 100})
    stored = np.array([[0, 127], [100, 127]], dtype=kind)
    assert labels.from_stored(stored, name="m").tolist() == [[0, 1], [2, 1]]


def test_a_mask_of_booleans_and_an_empty_one_are_masks() -> None:
    labels = label_set({"liver": 1})
    assert labels.from_stored(np.array([True, False]), name="m").tolist() == [1, 0]
    assert labels.from_stored(np.zeros((0, 3)), name="m").shape == (0, 3)


def test_several_stored_values_may_stand_for_one_class() -> None:
    labels = label_set({"kidney": [2, 3], "liver": 6})
    index = labels.from_stored(np.array([0, 2, 3, 6]), name="m")
    assert index.tolist() == [0, 1, 1, 2]
    assert labels.to_stored(index).tolist() == [0, 2, 2, 6]


def test_any_positive_value_is_one_class_where_values_are_instances() -> None:
    labels = label_set({"nucleus": ">0"})
    assert labels.from_stored(np.array([0, 1, 65_000]), name="m").tolist() == [0, 1, 1]
    with pytest.raises(LabelError, match="LBL-003"):
        labels.from_stored(np.array([-1]), name="m")


@given(noise=hnp.arrays(np.float64, 20, elements=st.floats(-9e-4, 9e-4)))
def test_round_off_below_a_thousandth_is_repaired_by_rounding(noise) -> None:
    labels = label_set({"a": 1, "b": 2})
    whole = np.arange(20) % 3
    assert labels.from_stored(whole + noise, name="m").tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("stored", "code", "told"),
    [
        ([0.0, np.nan], "LBL-001", "NaN"),
        ([0.0, np.inf], "LBL-001", "infinite"),
        ([0.0, 0.6], "LBL-002", "0.6, which is not a whole number"),
        ([0.0, 0.998], "LBL-002", "0.998"),
        ([0.0, 1e300], "LBL-002", "1e+300"),
        ([0, 1, 7, 7], "LBL-003", r"7 (2 voxels) belong to no class of liver=(1,)"),
        ([0, -1], "LBL-003", "-1 (1 voxels)"),
        ([0.0, 255.0], "LBL-003", "255"),
    ],
)
def test_values_that_stand_for_nothing_are_refused_with_file_and_value(stored, code, told) -> None:
    with pytest.raises(LabelError) as refusal:
        label_set({"liver": 1}).from_stored(np.array(stored), name="case7.nii.gz")
    assert refusal.value.code == code
    assert told in str(refusal.value)
    assert "case7.nii.gz" in str(refusal.value)


def test_the_ignore_value_gets_the_index_after_the_last_class_and_comes_back() -> None:
    labels = LabelSet(labels=label_set({"a": 1, "b": 4}).labels, ignore_value=255)
    assert labels.ignore_index == 3
    index = labels.from_stored(np.array([0, 1, 4, 255]), name="m")
    assert index.tolist() == [0, 1, 2, 3]
    assert labels.to_stored(index).tolist() == [0, 1, 4, 255]


@pytest.mark.parametrize("number", [253, 254, 300])
def test_index_types_hold_every_index_and_ignore(number: int) -> None:
    made = label_set({f"c{n}": n for n in range(1, number + 1)})
    labels = LabelSet(labels=made.labels, ignore_value=1000)
    stored = np.array([0, number, 1000])
    assert labels.from_stored(stored, name="m").tolist() == [0, number, number + 1]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(255, np.uint8), (256, np.uint16), (65_536, np.uint32), (-1, np.int16), (-40_000, np.int32)],
)
def test_files_store_the_smallest_type_that_holds_the_values(value: int, kind: type) -> None:
    stored = label_set({"a": value}).to_stored(np.array([0, 1]))
    assert stored.dtype == kind
    assert stored.tolist() == [0, value]


def test_mirroring_twice_changes_nothing_and_swaps_partners() -> None:
    labels = LabelSet.from_json(
        {
            "labels": [
                {"name": "left", "values": 1, "partner": "right"},
                {"name": "spleen", "values": 2},
                {"name": "right", "values": 3, "partner": "left"},
            ]
        }
    )
    assert labels.mirror_order == (0, 3, 2, 1)
    order = np.array(labels.mirror_order)
    assert order[order].tolist() == [0, 1, 2, 3]


def label(name: str, *values: int, **more) -> Label:
    return Label(name=name, values=values, colour=(1, 2, 3), **more)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: LabelSet(labels=()), "at least one class"),
        (lambda: LabelSet(labels=(label("a", 1), label("a", 2))), "repeat"),
        (lambda: LabelSet(labels=(label("background", 1),)), "background"),
        (lambda: LabelSet(labels=(label("a", 1), label("b", 1))), "repeat"),
        (lambda: LabelSet(labels=(label("a", 0),)), "background"),
        (lambda: LabelSet(labels=(label("a", 1, 1),)), "repeat"),
        (lambda: LabelSet(labels=(label("a", 1),), ignore_value=1), "already a class"),
        (lambda: LabelSet(labels=(label("a", 1),), ignore_value=0), "already a class"),
        (lambda: LabelSet(labels=(label("a", 1),), ignore_value="foo"), "'foo': expected a whole"),
        (lambda: LabelSet(labels=(label("a", 1),), ignore_value=3.5), "3.5: expected a whole"),
        (lambda: LabelSet(labels=(label("a", 1),), ignore_value=[1]), "expected a whole"),
        (lambda: LabelSet(labels=(label("a", 1),), ignore_value=True), "True: expected a whole"),
        (lambda: label_set({"a": ">0", "b": 3}), "only class"),
        (lambda: LabelSet(labels=(label("a", 1, partner="z"),)), "not a class"),
        (lambda: LabelSet(labels=(label("a", 1, partner="b"), label("b", 2))),
         "names no partner; expected 'a'"),
        (lambda: LabelSet(labels=(label("a", 1),), regions=(Region(name="r", members=("z",)),)),
         "expected some of"),
        (lambda: LabelSet(labels=(label("a", 1),), regions=(Region(name="r", members=()),)),
         "no members"),
        (lambda: LabelSet(labels=(label("a", 1),), regions=(Region(name="r", members=("a",)),) * 2),
         "twice"),
        (lambda: label("a"), "at least one stored value"),
        (lambda: Label(name="a", values=(1,), colour=(1, 2, 300)), "colour"),
        (lambda: Label(name="a", values=(1,), colour=(1, 2)), "colour"),
        (lambda: label("a", 1, kind="ting"), "stuff or thing"),
        (lambda: LabelSet.from_json({}), "at least one class"),
        (lambda: LabelSet.from_json({"labels": [{"name": "a"}]}), "a name and values"),
        (lambda: LabelSet.from_json({"labels": [{"name": "a", "values": "1"}]}), "whole numbers"),
        (lambda: LabelSet.from_json({"labels": [{"name": "a", "values": 1.5}]}), "whole numbers"),
        (lambda: LabelSet.from_json({"labels": [{"name": "a", "values": True}]}), "whole numbers"),
        (lambda: LabelSet.from_json({"labels": [{"name": "a", "values": []}]}), "whole numbers"),
    ],
)  # fmt: skip
def test_a_label_set_that_contradicts_itself_is_refused(make, told: str) -> None:
    with pytest.raises(LabelError, match=told):
        make()


@given(labels=label_sets())
def test_json_gives_back_the_same_label_set(labels: LabelSet) -> None:
    assert LabelSet.from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_json_keeps_codes_kinds_regions_and_instances() -> None:
    rich = LabelSet(
        labels=(
            label("tumour", 1, 2, code=CodedTerm(value="78961009", scheme="SCT", meaning="Spleen")),
            label("cell", 4, kind="thing"),
        ),
        regions=(Region(name="all", members=("tumour", "cell")),),
        ignore_value=9,
    )
    for labels in (rich, label_set({"nucleus": ">0"})):
        assert LabelSet.from_json(json.loads(json.dumps(labels.to_json()))) == labels
