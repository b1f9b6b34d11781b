from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srpipe import enhance
from srpipe.plan.bleed import BLEED_RADIUS_PX, bleed_colours
from tests.conftest import photograph_pixels, read_pixels, write_pixels


def sprite(dtype: str = "uint8") -> np.ndarray:
    """(96, 96, 4): a disc of a photograph with a soft edge; black where alpha is 0."""
    highest = np.iinfo(dtype).max
    y, x = np.mgrid[:96, :96] - 47.5
    alpha = np.clip(32 - np.hypot(x, y), 0, 1)
    pixels = np.empty((96, 96, 4), dtype)
    pixels[..., :3] = photograph_pixels(96, 96).astype(np.float64) / 255 * highest * 0.5
    pixels[..., :3] += highest // 2  # bright, so that black beside it shows
    pixels[..., 3] = np.round(alpha * highest)
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def over_white(pixels: np.ndarray) -> np.ndarray:
    """(height, width, 3) in [0, 1]."""
    unit = pixels / np.iinfo(pixels.dtype).max
    colours, alpha = unit[..., :3], unit[..., 3:]
    composite: np.ndarray = colours * alpha + (1 - alpha)
    return composite


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_only_what_is_transparent_changes_and_only_near_what_is_visible(dtype: str) -> None:
    before = sprite(dtype)
    before[0, 0, :3] = 7  # far from all that is visible
    after = before.copy()
    bleed_colours(after)
    visible = before[..., 3] > 0
    np.testing.assert_array_equal(after[visible], before[visible])
    np.testing.assert_array_equal(after[..., 3], before[..., 3])
    assert tuple(after[0, 0, :3]) == (7, 7, 7)
    y, x = np.mgrid[:96, :96] - 47.5
    ring = ~visible & (np.hypot(x, y) < 32 + BLEED_RADIUS_PX / 2)
    assert (after[ring][:, :3] > np.iinfo(dtype).max // 3).all()
    assert not after[..., :3][np.maximum(abs(x), abs(y)) > 32 + BLEED_RADIUS_PX + 1][1:].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiles_agree_but_for_the_radius_along_their_borders(dtype: str) -> None:
    rng = np.random.default_rng(3)
    whole = rng.integers(0, np.iinfo(dtype).max + 1, (90, 110, 4)).astype(dtype)
    whole[..., 3] *= rng.random((90, 110)) < 0.01
    tile = whole[13:77, 21:98].copy()
    bleed_colours(whole)
    bleed_colours(tile)
    r = BLEED_RADIUS_PX
    np.testing.assert_array_equal(tile[r:-r, r:-r], whole[13:77, 21:98][r:-r, r:-r])


@pytest.mark.parametrize("alpha", [0, 200])
def test_nothing_to_do(alpha: int) -> None:
    pixels = photograph_pixels(20, 20, 4)
    pixels[..., 3] = alpha
    before = pixels.copy()
    bleed_colours(pixels)
    np.testing.assert_array_equal(pixels, before)


def test_an_enhanced_sprite_has_no_dark_halo(tmp_path: Path) -> None:
    pixels = sprite()
    write_pixels(tmp_path / "sprite.png", pixels)
    flat = np.round(over_white(pixels) * 255).astype(np.uint8)
    write_pixels(tmp_path / "flat.png", flat)
    for name in ("sprite", "flat"):
        enhance(
            tmp_path / f"{name}.png", tmp_path / f"{name}-x2.png", model="lite-x2", tile_size=64
        )
    composite = over_white(read_pixels(tmp_path / "sprite-x2.png"))
    expected = read_pixels(tmp_path / "flat-x2.png") / 255
    darker = expected - composite
    assert darker.max() < 0.12
    # Along the edge the picture is no darker in the mean either.
    y, x = np.mgrid[:192, :192] - 95.5
    edge = abs(np.hypot(x, y) - 63) < 3
    assert darker[edge].mean() < 0.01
