"""Volumes of classes: counted by hand, and kept or replaced in their table."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.labels import label_set
from medseg.metrics.volumes import measure_volumes, write_volumes

LABELS = label_set({"left lung": 4, "liver": 9})


def rows(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return {(row["case_id"], row["class"]): row for row in csv.DictReader(stream)}


def test_volumes_are_voxels_times_the_volume_of_one_on_any_grid(rng):
    label_map = rng.integers(0, 3, (5, 6, 4)).astype(np.uint8)
    sheared = np.array([[0.8, 0.1, 0, 5], [0, 1.1, 0.3, 6], [0.2, 0, 2.5, 7], [0, 0, 0, 1]])
    voxel_ml = abs(np.linalg.det(sheared[:3, :3])) / 1000
    found = measure_volumes(label_map, geometry=Geometry((5, 6, 4), sheared), labels=LABELS)
    assert [one.class_name for one in found] == ["left lung", "liver"]
    assert [one.num_vox for one in found] == [(label_map == n).sum() for n in (1, 2)]
    assert [one.ml for one in found] == pytest.approx([one.num_vox * voxel_ml for one in found])


def test_voxels_to_ignore_and_grids_without_size_have_no_volume(tmp_path):
    labels = replace(LABELS, ignore_value=255)
    label_map = np.array([1, 3, 3, 0], np.uint8).reshape(4, 1, 1)
    geometry = Geometry((4, 1, 1), np.eye(4), "px")
    found = measure_volumes(label_map, geometry=geometry, labels=labels)
    assert [one.num_vox for one in found] == [1, 0]
    assert all(math.isnan(one.ml) for one in found)
    write_volumes({"a": found}, tmp_path / "volumes.csv")
    assert [row["ml"] for row in rows(tmp_path / "volumes.csv").values()] == ["", ""]


def test_rows_of_other_cases_stay_and_those_of_failed_ones_go(tmp_path):
    path = tmp_path / "volumes.csv"
    geometry = Geometry((2, 1, 1), np.diag([10.0, 10, 10, 1]))
    one, two = (
        measure_volumes(np.full((2, 1, 1), n, np.uint8), geometry=geometry, labels=LABELS)
        for n in (1, 2)
    )
    write_volumes({'b;"$(x)': one, "a": one, "bad": one}, path)
    write_volumes({"a": two}, path, without=["bad"])
    found = rows(path)
    assert {case for case, _ in found} == {'b;"$(x)', "a"}
    assert found["a", "left lung"]["voxels"] == "0"
    assert found["a", "liver"] == {"case_id": "a", "class": "liver", "voxels": "2", "ml": "2"}
    assert found['b;"$(x)', "left lung"]["ml"] == "2"
