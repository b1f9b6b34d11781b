"""imresize against exact properties, an independent implementation, and MATLAB's definition."""

import numpy as np
import pytest
from training.resample import axis_weights, cubic_kernel, imresize, to_bytes


def photograph_like(height: int, width: int) -> np.ndarray:
    """A smooth random picture (height, width, 3), uint8: noise at several sizes."""
    random = np.random.default_rng(7)
    total = np.zeros((height, width, 3))
    for size_px in (2, 4, 8, 16, 32):
        coarse = random.normal(size=(height // size_px + 2, width // size_px + 2, 3))
        grown = coarse.repeat(size_px, axis=0).repeat(size_px, axis=1)
        total += grown[:height, :width] * size_px
    total = (total - total.min()) / np.ptp(total)
    return to_bytes(total * 255)


def test_kernel_is_one_at_zero_and_zero_at_whole_distances():
    distances = np.array([0.0, 1.0, -1.0, 2.0, 2.5])
    np.testing.assert_allclose(cubic_kernel(distances), [1, 0, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.5, 2, 3, 4])
def test_constant_picture_stays_constant(scale: float):
    picture = np.full((24, 36, 3), 200, np.uint8)
    np.testing.assert_allclose(imresize(picture, scale), 200, atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1 / 3, 2, 4])
def test_weights_sum_to_one_and_indices_stay_inside(scale: float):
    indices, weights = axis_weights(24, scale)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert indices.min() == 0
    assert indices.max() == 23


def test_halving_weights_are_matlabs():
    # imresize(..., 0.5): eight taps of the kernel stretched to twice its width, at odd quarters.
    _, weights = axis_weights(24, 0.5)
    quarters = np.array([-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75])
    np.testing.assert_allclose(weights[6], cubic_kernel(quarters) / 2, atol=1e-12)


def test_border_is_mirrored_with_the_edge_repeated():
    row = np.arange(6, dtype=np.float32)[None, :, None].repeat(6, axis=0)
    mirrored = np.concatenate([row[:, 3::-1], row, row[:, :1:-1]], axis=1)
    np.testing.assert_allclose(imresize(row, 2)[0], imresize(mirrored, 2)[0, 8:20], atol=1e-5)


def test_size_is_rounded_up():
    assert imresize(np.zeros((7, 9, 3)), 0.5).shape == (4, 5, 3)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_matches_pillow_within_a_level(factor: int):
    image = pytest.importorskip("PIL.Image")
    picture = photograph_like(96 * 2, 144 * 2)
    size = (picture.shape[1] // factor, picture.shape[0] // factor)
    theirs = np.asarray(image.fromarray(picture).resize(size, image.Resampling.BICUBIC))
    ours = to_bytes(imresize(picture, 1 / factor))
    # Pillow leaves border samples out where MATLAB mirrors them.
    inner = (slice(2, -2), slice(2, -2))
    difference = np.abs(ours[inner].astype(int) - theirs[inner].astype(int))
    assert difference.max() <= 1


def test_bytes_are_rounded_half_up_and_clipped():
    assert to_bytes(np.array([-3.0, 0.5, 1.49, 254.5, 300.0])).tolist() == [0, 1, 1, 255, 255]
