"""The rows of one case."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg.core.errors import GeometryError
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet, label_set
from medseg.metrics.overlap import measure_overlap
from medseg.metrics.summary import Score, score_case
from medseg.metrics.surface import measure_surfaces

LABELS = label_set({"liver": 1, "spleen": 2, "tumour": 3})
GRID = Geometry((20, 16, 12), np.diag([0.8, 0.8, 2.5, 1.0]))


def drawn(**boxes: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
    label_map = np.zeros(GRID.shape, dtype=np.uint8)
    for name, box in boxes.items():
        label_map[box] = (*LABELS.names, "ignored").index(name) + 1
    return label_map


def cube(start: int, stop: int) -> tuple[slice, slice, slice]:
    return (slice(start, stop),) * 3


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.class_name: score for score in scores}


def test_scores_of_cropped_classes_are_those_of_whole_masks(rng: np.random.Generator) -> None:
    prediction = rng.integers(0, 4, GRID.shape).astype(np.uint8)
    reference = rng.integers(0, 4, GRID.shape).astype(np.uint8)
    reference[:9] = 0
    prediction[:, :5] = 0
    for index, score in enumerate(score_case(prediction, reference, geometry=GRID, labels=LABELS)):
        masks = prediction == index + 1, reference == index + 1
        surfaces = measure_surfaces(*masks, geometry=GRID)
        assert score.dice == measure_overlap(*masks).dice
        assert score.hd95_mm == surfaces.hausdorff_mm(95)
        assert score.surface_dice == pytest.approx(surfaces.surface_dice(1.0))


def test_volumes_are_millilitres_and_the_error_is_prediction_less_reference() -> None:
    prediction = drawn(liver=cube(2, 6))
    reference = drawn(liver=cube(2, 7))
    score = score_case(prediction, reference, geometry=GRID, labels=LABELS)[0]
    voxel_ml = 0.8 * 0.8 * 2.5 / 1000
    assert score.volume_prediction_ml == pytest.approx(64 * voxel_ml)
    assert score.volume_reference_ml == pytest.approx(125 * voxel_ml)
    assert score.volume_error_ml == pytest.approx(-61 * voxel_ml)
    assert score.volume_error_abs_ml == pytest.approx(61 * voxel_ml)


def test_a_false_positive_in_an_empty_reference_keeps_its_volume() -> None:
    found = by_name(score_case(drawn(tumour=cube(2, 4)), drawn(), geometry=GRID, labels=LABELS))
    assert found["tumour"].reference_empty
    assert not found["tumour"].prediction_empty
    assert found["tumour"].dice == 0
    assert math.isnan(found["tumour"].hd95_mm)
    assert found["tumour"].volume_prediction_ml == pytest.approx(8 * GRID.voxel_ml)
    assert math.isnan(found["liver"].dice)
    assert found["liver"].volume_error_ml == 0


def test_classes_that_were_not_annotated_give_no_row() -> None:
    scores = score_case(
        drawn(liver=cube(1, 3)),
        drawn(liver=cube(1, 3)),
        geometry=GRID,
        labels=LABELS,
        annotated=("spleen",),
    )
    assert [score.class_name for score in scores] == ["spleen"]


def test_ignored_voxels_belong_to_neither_mask() -> None:
    labels = LabelSet(labels=LABELS.labels, ignore_value=255)
    prediction = drawn(liver=cube(2, 8))
    reference = drawn(liver=cube(2, 6))
    reference[prediction.astype(bool) & (reference == 0)] = labels.ignore_index or 0
    score = score_case(prediction, reference, geometry=GRID, labels=labels)[0]
    assert score.dice == 1
    assert score.hd_mm == 0
    assert score.volume_prediction_ml == score.volume_reference_ml


def test_a_region_is_the_union_of_its_classes_and_comes_after_them() -> None:
    value: dict[str, Any] = LABELS.to_json()
    value["regions"] = [{"name": "abdomen", "members": ["liver", "spleen"]}]
    labels = LabelSet.from_json(value)
    prediction = drawn(liver=cube(2, 6))
    reference = drawn(spleen=cube(2, 6))
    scores = score_case(prediction, reference, geometry=GRID, labels=labels)
    assert [score.class_name for score in scores] == ["liver", "spleen", "tumour", "abdomen"]
    assert [score.dice for score in scores[:2]] == [0, 0]
    assert scores[-1].dice == 1
    partly = score_case(
        prediction, reference, geometry=GRID, labels=labels, annotated=("liver", "tumour")
    )
    # What of the region is spleen, nobody drew.
    assert [score.class_name for score in partly] == ["liver", "tumour"]


def test_a_class_may_have_its_own_tolerance() -> None:
    prediction, reference = drawn(liver=cube(2, 6), spleen=cube(7, 11)), drawn()
    reference[1:] = prediction[:-1]
    found = by_name(
        score_case(
            prediction,
            reference,
            geometry=GRID,
            labels=LABELS,
            surface_tolerance_mm=0.5,
            class_tolerance_mm={"spleen": 0.8},
        )
    )
    assert found["spleen"].surface_dice == 1
    assert found["liver"].surface_dice < 1
    assert found["spleen"].surface_tolerance_mm == 0.8


def test_pixels_are_named_pixels_and_counted() -> None:
    geometry = Geometry((8, 8, 1), np.eye(4), "px")
    prediction = np.zeros(geometry.shape, dtype=np.uint8)
    reference = prediction.copy()
    prediction[2:5, 2:5] = reference[2:5, 3:6] = 1
    row = score_case(prediction, reference, geometry=geometry, labels=label_set({"nucleus": ">0"}))[
        0
    ].to_row()
    assert row["class"] == "nucleus"
    assert row["hd_px"] == 1
    assert row["volume_reference_px"] == 9
    assert not [name for name in row if name.endswith(("_mm", "_ml"))]


def test_a_label_map_of_another_shape_is_refused() -> None:
    with pytest.raises(GeometryError, match="prediction"):
        score_case(np.zeros((2, 2, 2), np.uint8), drawn(), geometry=GRID, labels=LABELS)
