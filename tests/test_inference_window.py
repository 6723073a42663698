"""Sliding windows: covered everywhere, blended smoothly, equal to an independent implementation."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from medseg.core.errors import ConfigError
from medseg.inference.window import WindowSettings, predict_logits, window_starts

CPU = torch.device("cpu")


def predict(image, network, **settings):
    return predict_logits(image, network, settings=WindowSettings(**settings), device=CPU)


@given(
    shape=st.tuples(*[st.integers(8, 60)] * 3),
    patch=st.tuples(*[st.integers(1, 8)] * 3),
    overlap=st.floats(0, 0.9),
)
def test_windows_cover_every_voxel_and_stay_inside(shape, patch, overlap):
    settings = WindowSettings(patch_vox=patch, overlap=overlap)
    for axis in range(3):
        starts = sorted({start[axis] for start in window_starts(shape, settings)})
        assert starts[0] == 0
        assert starts[-1] == shape[axis] - patch[axis]
        assert all(b - a <= patch[axis] for a, b in pairwise(starts))


@pytest.mark.parametrize("shape", [(33, 20, 9), (10, 16, 8), (5, 4, 3), (16, 16, 8), (40, 1, 17)])
def test_a_voxelwise_network_gives_the_same_answer_in_windows_as_at_once(shape):
    image = torch.randn(2, *shape)

    def network(x):
        return torch.stack([x.sum(1), -x[:, 0], x[:, 1] ** 2], dim=1)

    blended = predict(image, network, patch_vox=(16, 16, 8), overlap=0.5, batch_size=3)
    torch.testing.assert_close(blended, network(image[None])[0], atol=1e-5, rtol=1e-5)


def test_blending_agrees_with_monai_where_both_lay_the_same_windows():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 3, 5, padding=2)
    image = torch.randn(1, 32, 24, 16)
    ours = predict(image, network, patch_vox=(16, 16, 8), overlap=0.5)
    with torch.no_grad():
        theirs = sliding_window_inference(
            image[None], (16, 16, 8), 1, network, overlap=0.5, mode="gaussian", sigma_scale=0.125
        )[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_batch_size_of_windows_does_not_change_the_answer():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    image = torch.randn(1, 20, 21, 22)
    one, many = (predict(image, network, patch_vox=(8, 8, 8), batch_size=n) for n in (1, 7))
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)


def test_mirroring_makes_the_answer_symmetric():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    image = torch.randn(1, 16, 12, 8)
    settings = {"patch_vox": (16, 12, 8), "mirror_axes": (0, 2)}
    plain, mirrored = (
        predict(image, network, **settings),
        predict(image.flip(1), network, **settings),
    )
    torch.testing.assert_close(plain, mirrored.flip(1), atol=1e-5, rtol=1e-5)


def test_mirroring_gives_left_and_right_partners_their_own_side_back():
    image = torch.zeros(1, 8, 4, 4)
    image[:, :4] = 1

    def left_is_bright_low_half(x):
        # Tells left (1) from right (2) by position alone, as a network learns to.
        side = torch.linspace(1, -1, 8).reshape(1, 8, 1, 1).expand(len(x), 8, 4, 4)
        return torch.stack([0 * side, side, -side], dim=1)

    wrong = predict(image, left_is_bright_low_half, patch_vox=(8, 4, 4), mirror_axes=(0,))
    right = predict(
        image,
        left_is_bright_low_half,
        patch_vox=(8, 4, 4),
        mirror_axes=(0,),
        mirror_order=(0, 2, 1),
    )
    assert wrong[1].abs().max() < 1e-6
    assert (right.argmax(0)[:4] == 1).all()
    assert (right.argmax(0)[4:] == 2).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_partners_change_sides_with_the_axis_between_left_and_right_alone(axis):
    """What says `left` of every voxel, wherever it lies, says `right` of half the mirror images."""
    shape = (4, 4, 4)
    answers = predict(
        torch.zeros(1, *shape),
        lambda x: torch.tensor([0.0, 1.0, 3.0]).reshape(1, 3, 1, 1, 1).expand(len(x), 3, *shape),
        patch_vox=shape,
        mirror_axes=(axis,),
        sided_axis=1,
        mirror_order=(0, 2, 1),
    )
    left, right = answers[1:].flatten(1).unbind()
    torch.testing.assert_close(left, torch.full_like(left, 2.0 if axis == 1 else 1.0))
    torch.testing.assert_close(right, torch.full_like(right, 2.0 if axis == 1 else 3.0))


def test_an_overlap_of_one_is_refused():
    with pytest.raises(ConfigError, match="overlap=1"):
        WindowSettings(patch_vox=(8, 8, 8), overlap=1)


def test_components_of_a_vector_change_sign_with_the_mirror():
    """A field that points at the bright voxel does so from every mirror image alike."""
    image = torch.zeros((1, 6, 8, 1))
    image[0, 4, 1] = 1

    def points(windows):
        out = []
        for window in windows[:, 0]:
            place = (window == window.max()).nonzero()[0]
            grid = torch.stack(torch.meshgrid(*map(torch.arange, window.shape), indexing="ij"))
            out.append(torch.cat([window[None], (place[:, None, None, None] - grid)[:2].float()]))
        return torch.stack(out)

    alone = predict(image, points, patch_vox=(6, 8, 1))
    mirrored = {"patch_vox": (6, 8, 1), "mirror_axes": (0, 1)}
    assert not torch.equal(predict(image, points, **mirrored), alone)
    averaged = predict(image, points, **mirrored, vector_outputs=(1, 2))
    torch.testing.assert_close(averaged, alone)
