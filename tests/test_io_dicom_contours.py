"""Outlines run through pixel edges; filling them, or any polygon, is what brute force says."""

from itertools import combinations

import matplotlib.path
import numpy as np
import pytest
from scipy import ndimage

from medseg.io.dicom.rtstruct.outlines import outlines_of
from medseg.io.dicom.rtstruct.scan_conversion import crossing_pairs, fill, without_copies


def mask_of(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows]).T


SHAPES = {
    "one pixel": mask_of("#"),
    "touching at a corner": mask_of("#.", ".#"),
    "touching at the other corner": mask_of(".#", "#."),
    "hole": mask_of("###", "#.#", "###"),
    "hole that touches the outside at a corner": mask_of("###", "#.#", "##."),
    "two holes that touch at a corner": mask_of("####", "#.##", "##.#", "####"),
    "two holes side by side": mask_of("#####", "#.#.#", "#####"),
    "island in a hole": mask_of("#####", "#...#", "#.#.#", "#...#", "#####"),
    "hole in an island in a hole": mask_of(
        "#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"
    ),
    "comb": mask_of("#.#.#", "#.#.#", "#####"),
    "full": np.ones((4, 3), dtype=bool),
}


def by_matplotlib(polygons, shape):
    """Exclusive or of the even-odd fill of each polygon, by another library."""
    centres = np.argwhere(np.ones(shape, dtype=bool))
    inside = np.zeros(shape, dtype=bool)
    for polygon in polygons:
        closed = np.vstack([polygon, polygon[:1]])
        inside ^= matplotlib.path.Path(closed).contains_points(centres).reshape(shape)
    return inside


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES.keys())
def test_outlines_fill_to_the_mask_here_and_by_another_library(mask):
    outlines = outlines_of(mask)
    assert np.array_equal(fill(outlines, mask.shape), mask)
    assert np.array_equal(by_matplotlib(outlines, mask.shape), mask)
    assert len(outlines) == ndimage.label(mask)[1]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.6, 0.8])
def test_outlines_of_any_mask_fill_to_it(share, rng):
    for _ in range(40):
        mask = rng.random(rng.integers(1, 14, 2)) < share
        outlines = outlines_of(mask)
        if len(outlines):
            assert np.array_equal(fill(outlines, mask.shape), mask)
            assert np.array_equal(by_matplotlib(outlines, mask.shape), mask)
        assert len(outlines) == ndimage.label(mask)[1]


def test_an_empty_mask_has_no_outline():
    assert outlines_of(np.zeros((3, 4), dtype=bool)) == []


def test_outlines_run_through_corners_of_pixels_and_turn_at_each():
    (outline,) = outlines_of(mask_of("....", ".##.", ".##."))
    assert sorted(map(tuple, outline)) == [(0.5, 0.5), (0.5, 2.5), (2.5, 0.5), (2.5, 2.5)]


def test_a_large_mask_with_many_holes_takes_no_time_to_speak_of(rng):
    mask = rng.random((200, 200)) < 0.7
    assert np.array_equal(fill(outlines_of(mask), mask.shape), mask)


def inside_by_angles(point, polygon):
    """Winding by summed angles, point by point; odd windings are inside by the even-odd rule."""
    way = polygon - point
    ahead = np.roll(way, -1, axis=0)
    cross = way[:, 0] * ahead[:, 1] - way[:, 1] * ahead[:, 0]
    turns = np.arctan2(cross, (way * ahead).sum(axis=1)).sum() / (2 * np.pi)
    return round(turns) % 2 == 1


@pytest.mark.parametrize("num_corners", [3, 4, 7, 30])
def test_any_polygon_fills_as_summed_angles_say(num_corners, rng):
    shape = (9, 11)
    for _ in range(20):
        polygon = rng.uniform(-3, 13, (num_corners, 2))
        found = fill([polygon], shape)
        for index in np.ndindex(shape):
            assert found[index] == inside_by_angles(np.array(index), polygon)


def test_contours_of_a_plane_are_combined_by_exclusive_or():
    squares = [np.array([(a, a), (b, a), (b, b), (a, b)]) for a, b in ((0.5, 8.5), (2.5, 6.5))]
    expected = np.zeros((10, 10), dtype=bool)
    expected[1:9, 1:9] = True
    expected[3:7, 3:7] = False
    assert np.array_equal(fill(squares, (10, 10)), expected)


@pytest.mark.parametrize("shift", [0, 1e-9, -1e-9])
def test_centres_on_the_path_belong_to_the_region(shift):
    triangle = np.array([(1.0, 1.0), (5.0, 1.0), (1.0, 5.0)]) + shift
    i, j = np.indices((7, 7))
    assert np.array_equal(fill([triangle], (7, 7)), (i >= 1) & (j >= 1) & (i + j <= 6))


def test_what_lies_beyond_the_grid_is_cut_off():
    huge = np.array([(-1e12, -1e12), (1e12, -1e12), (1e12, 1e12), (-1e12, 1e12)])
    assert fill([huge], (3, 4)).all()
    assert not fill([huge + 3e12], (3, 4)).any()


def test_contours_that_cover_each_other_in_part_are_told_from_holes():
    square = np.array([(0.5, 0.5), (4.5, 0.5), (4.5, 4.5), (0.5, 4.5)])
    hole, moved, apart = 0.5 * square + 1.25, square + 2, square + 5
    assert list(crossing_pairs([square, hole, apart], (12, 12))) == []
    assert list(crossing_pairs([square, moved], (12, 12))) == [(0, 1, 4)]
    assert list(crossing_pairs([square, np.roll(square, 1, axis=0)], (12, 12))) == [(0, 1, 16)]
    assert len(without_copies([square, hole, square.copy()])) == 2


def test_pairs_are_found_as_comparing_whole_planes_finds_them(rng):
    shape = (15, 12)
    for _ in range(30):
        polygons = [
            rng.uniform(-4, 17, 2) + rng.uniform(-5, 5, (4, 2)) for _ in range(rng.integers(2, 8))
        ]
        masks = [fill([polygon], shape) for polygon in polygons]
        expected = set()
        for one, other in combinations(range(len(polygons)), 2):
            both = int((masks[one] & masks[other]).sum())
            counts = int(masks[one].sum()), int(masks[other].sum())
            if both and (both < min(counts) or counts[0] == counts[1]):
                expected.add((one, other, both))
        assert set(crossing_pairs(polygons, shape)) == expected


def test_contours_of_noise_are_compared_without_much_ado(rng):
    mask = rng.random((256, 256)) < 0.3
    outlines = outlines_of(mask)
    assert len(outlines) > 5_000
    assert list(crossing_pairs(outlines, mask.shape)) == []
