"""Figures, looked at through their pixels."""

import io
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelSet
from medseg.figures import learning_curve_png, overlay_png

# A colour that no gray picture and no axis has.
LABELS = LabelSet.from_json({"labels": [{"name": "organ", "values": 1, "colour": [255, 0, 0]}]})


def pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def outline(png: bytes) -> NDArray[np.bool_]:
    """Pixels in the colour of the class, within the (black) image and without the legend."""
    found = pixels(png).astype(int)
    black = found.max(axis=-1) < 60
    rows, columns = (np.flatnonzero(black.mean(axis=axis) > 0.3) for axis in (1, 0))
    image = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray((image[..., 0] > 200) & (image[..., 1:].max(axis=-1) < 80))


def volume(axes: tuple[int, ...], signs: tuple[int, ...]) -> tuple[Geometry, NDArray[np.uint8]]:
    """A grid of any orientation with an organ at the patient's right front."""
    world_shape = (40, 30, 6)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    shape = tuple(world_shape[axis] for axis in axes)
    for voxel_axis, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, voxel_axis] = sign
        affine[axis, 3] = 0 if sign > 0 else world_shape[axis] - 1
    geometry = Geometry((shape[0], shape[1], shape[2]), affine)
    index = np.stack(np.indices(shape), axis=-1).reshape(-1, 3).astype(np.float64)
    x, y, z = geometry.to_world(index).T
    # In RAS x grows to the patient's right, y to the front.
    inside = (x > 26) & (x < 36) & (y > 20) & (y < 27) & (z > 1) & (z < 4)
    return geometry, inside.reshape(shape).astype(np.uint8)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_the_patients_right_is_on_the_left_and_the_front_on_top(axes: tuple[int, ...]) -> None:
    for signs in list(product((1, -1), repeat=3))[:: 3 if axes != (0, 1, 2) else 1]:
        geometry, mask = volume(axes, signs)
        png = overlay_png(np.zeros(mask.shape), geometry=geometry, labels=LABELS, reference=mask)
        found = outline(png)
        rows, columns = np.nonzero(found)
        assert columns.max() < found.shape[1] / 2
        assert rows.max() < found.shape[0] / 2


def test_a_picture_of_one_slice_is_shown_as_it_is() -> None:
    from medseg.io.placement import image_affine

    geometry = Geometry((30, 20, 1), image_affine(), "px")
    mask = np.zeros(geometry.shape, dtype=np.uint8)
    mask[3:9, 2:6] = 1
    png = overlay_png(np.zeros(mask.shape), geometry=geometry, labels=LABELS, prediction=mask)
    rows, columns = np.nonzero(outline(png))
    height, width = outline(png).shape
    assert height / width == pytest.approx(20 / 30, abs=0.02)
    assert (rows.min() / height, columns.min() / width) == pytest.approx((0.1, 0.1), abs=0.03)
    assert (rows.max() / height, columns.max() / width) == pytest.approx((0.3, 0.3), abs=0.03)


def test_an_overlay_without_masks_or_contrast_is_a_picture_all_the_same() -> None:
    geometry = Geometry((8, 8, 3), np.eye(4))
    empty = np.zeros(geometry.shape, dtype=np.uint8)
    for masks in ({}, {"reference": empty, "prediction": empty}):
        png = overlay_png(np.ones(geometry.shape), geometry=geometry, labels=LABELS, **masks)
        assert pixels(png).shape[0] > 100


def test_the_slice_with_most_of_any_class_is_shown() -> None:
    geometry = Geometry((24, 24, 5), np.eye(4))
    reference = np.zeros(geometry.shape, dtype=np.uint8)
    reference[4:20, 4:20, 3] = 1
    reference[4:6, 4:6, 1] = 1
    # Ignored voxels, an index past the last class, are no foreground.
    reference[:, :, 0] = 2
    large = overlay_png(
        np.zeros(geometry.shape), geometry=geometry, labels=LABELS, reference=reference
    )
    found = outline(large)
    rows, _ = np.nonzero(found)
    assert np.ptp(rows) / found.shape[0] == pytest.approx(16 / 24, abs=0.03)


def test_curves_are_drawn_whatever_is_missing() -> None:
    nan = float("nan")
    for png in (
        learning_curve_png([(1, 0.9), (2, 0.5)], {"organ": [(1, 0.2), (2, nan)]}),
        learning_curve_png([], {}),
    ):
        assert png.startswith(b"\x89PNG")
        assert pixels(png).min() < 100


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    def draw() -> bytes:
        return learning_curve_png([(1, 0.9)], {})

    assert draw() == draw()


def test_figures_leave_no_state_in_pyplot() -> None:
    import sys

    learning_curve_png([(1, 0.9)], {})
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
