"""Colours under transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import srpipe
from srpipe.plan.alpha_fill import RADIUS_PX, fill
from tests.conftest import photograph_pixels, read_pixels, write_pixels


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("colours", [1, 3])
def test_it_is_the_mean_of_what_is_seen_around(dtype: str, colours: int) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, np.iinfo(dtype).max, (50, 61, colours + 1)).astype(dtype)
    pixels[..., -1] = np.where(rng.random((50, 61)) < 0.01, 255, 0)
    pixels[:20, :30, -1] = 0
    before = pixels.copy()
    result = fill(pixels, pixels[..., -1] == 0, colours)
    assert np.array_equal(pixels, before)
    for y in range(50):
        for x in range(61):
            expected = pixels[y, x, :-1].astype(float)
            for r in (1, 2, 4, 8, RADIUS_PX):
                around = pixels[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]
                seen = around[around[..., -1] > 0].astype(float)
                if len(seen) and not pixels[y, x, -1]:
                    expected = seen[:, :-1].mean(axis=0)
                    break
            assert result[y, x, :-1] == pytest.approx(expected, abs=0.6)
            assert result[y, x, -1] == pixels[y, x, -1]


@pytest.mark.parametrize("alpha", [0, 255])
def test_nothing_to_do(alpha: int) -> None:
    pixels = photograph_pixels(9, 9, 4)
    pixels[..., 3] = alpha
    assert fill(pixels, pixels[..., -1] == 0, 3) is pixels


@pytest.mark.parametrize("bands", [2, 4])
def test_a_cut_out_has_no_dark_rim(tmp_path: Path, bands: int) -> None:
    """Black under alpha 0: over white, the result is that of the picture without the black."""
    height, width = 90, 110
    y, x = np.mgrid[:height, :width]
    inside = (y - 45) ** 2 + (x - 55) ** 2 < 35**2
    pixels = np.full((height, width, bands), 200, np.uint8)
    pixels[..., -1] = np.where(inside, 255, 0)
    plain, black = tmp_path / "plain.png", tmp_path / "black.png"
    write_pixels(plain, pixels)
    pixels[~inside, :-1] = 0
    write_pixels(black, pixels)
    results = []
    for source in (plain, black):
        srpipe.enhance(source, tmp_path / "out.png", model="lite-x2", tile_size=64, overwrite=True)
        results.append(read_pixels(tmp_path / "out.png").astype(int))
    expected, result = results
    assert np.array_equal(result[..., -1], expected[..., -1])
    seen = result[..., -1] > 0
    assert np.abs(result - expected)[seen].max() <= 1
