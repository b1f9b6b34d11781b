"""How much of the model's result is taken, and which tiles are background."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.geometry import Rect, Size
from srpipe.plan.mask import Mask, is_even


def interpolated(values: np.ndarray, size: Size, scale: int) -> np.ndarray:
    """The whole mask at the output's size, pixel by pixel, float64."""
    height, width = values.shape
    out = np.empty((size.height * scale, size.width * scale))
    for i in range(size.height * scale):
        v = np.clip((i + 0.5) / scale * height / size.height - 0.5, 0, height - 1)
        for j in range(size.width * scale):
            u = np.clip((j + 0.5) / scale * width / size.width - 0.5, 0, width - 1)
            y, x = int(v), int(u)
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            upper = values[y, x] * (1 - (u - x)) + values[y, right] * (u - x)
            lower = values[below, x] * (1 - (u - x)) + values[below, right] * (u - x)
            out[i, j] = upper * (1 - (v - y)) + lower * (v - y)
    return out / 255


@given(
    seed=st.integers(0, 2**32),
    mask=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    image=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    scale=st.integers(1, 3),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_any_part_is_that_of_the_whole_interpolated(
    seed: int, mask: tuple[int, int], image: tuple[int, int], scale: int, place: tuple[float, float]
) -> None:
    values = np.random.default_rng(seed).choice([0, 255, 90], mask, p=[0.6, 0.3, 0.1])
    values = values.astype(np.uint8)
    size = Size(*image)
    whole = interpolated(values, size, scale)
    left, top = (int(p * (n - 1)) for p, n in zip(place, image, strict=True))
    rect = Rect(left, top, max(1, (image[0] - left) // 2), max(1, (image[1] - top) // 2))
    part = whole[top * scale :, left * scale :][: rect.height * scale, : rect.width * scale]
    found = Mask(values, size)
    weights = found.weights(rect, scale)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, part, atol=1e-6)
    # What is said of a part holds for every scale.
    assert not found.is_black(rect) or not weights.any()
    assert not found.is_white(rect) or (weights == 1).all()


@pytest.mark.parametrize(("grey", "black", "white"), [(0, True, False), (255, False, True)])
def test_even_masks_are_exact(grey: int, black: bool, white: bool) -> None:
    mask = Mask(np.full((7, 9), grey, np.uint8), Size(90, 70))
    beyond = Rect(-10, 60, 30, 30)
    assert (mask.is_black(beyond), mask.is_white(beyond)) == (black, white)
    assert (mask.weights(beyond, 3) == grey / 255).all()


@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5)),
    spread=st.integers(0, 20),
    limit=st.integers(0, 20),
    dtype=st.sampled_from(["uint8", "uint16"]),
)
def test_a_tile_is_even_if_no_band_s_values_lie_further_apart(
    seed: int, shape: tuple[int, int, int], spread: int, limit: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    offsets = rng.integers(0, 200, shape[2])
    pixels = (offsets + rng.integers(0, spread + 1, shape)).astype(dtype)
    expected = all(int(np.ptp(pixels[..., band])) <= limit for band in range(shape[2]))
    assert is_even(pixels, limit) == expected


def test_one_pixel_is_enough_to_be_worth_the_model() -> None:
    pixels = np.full((64, 64, 3), 250, np.uint8)
    assert is_even(pixels, 8)
    pixels[37, 21, 1] = 240
    assert not is_even(pixels, 8)
