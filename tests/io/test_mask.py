"""Masks as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srpipe.errors import InputError, ReadError
from srpipe.io import mask as module
from srpipe.io.mask import SOFT_PX, load_mask, read_mask_info
from srpipe.plan.geometry import Rect, Size
from tests.conftest import photograph_pixels, write_pixels


def half(height: int, width: int, bands: int = 1, dtype: str = "uint8") -> np.ndarray:
    """Black on the left, white on the right."""
    pixels = np.zeros((height, width, bands), dtype)
    pixels[:, width // 2 :] = np.iinfo(dtype).max
    return pixels


@pytest.mark.parametrize(("name", "size", "bands", "dtype"), [
    ("m.png", (100, 200), 1, "uint8"), ("m.tif", (50, 100), 3, "uint8"),
    ("m.png", (25, 50), 1, "uint16"), ("m.png", (300, 600), 4, "uint16"),
    ("m.jpg", (100, 200), 1, "uint8"),
])  # fmt: skip
def test_any_grey_size_and_depth_has_a_soft_border_of_the_same_width(
    tmp_path: Path, name: str, size: tuple[int, int], bands: int, dtype: str
) -> None:
    pixels = half(*size, bands, dtype)
    pixels[..., 3:] = np.iinfo(dtype).max
    path = write_pixels(tmp_path / name, pixels)
    image = Size(200, 100)
    mask = load_mask(read_mask_info(str(path), image), image)
    row = mask.weights(Rect(0, 40, 200, 1), 1)[0]
    near = SOFT_PX + 4  # a pixel of the smallest mask is four of the image
    assert (row[: 100 - near] < 0.01).all()
    assert (row[100 + near :] > 0.99).all()
    assert (np.diff(row) >= -0.01).all()
    assert row[100 - SOFT_PX // 2] == pytest.approx(0.25, abs=0.12)


def test_a_large_mask_is_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PX", 5000)
    path = write_pixels(tmp_path / "m.png", half(200, 400))
    image = Size(400, 200)
    mask = load_mask(read_mask_info(str(path), image), image)
    row = mask.weights(Rect(0, 40, 400, 1), 1)[0]
    assert row[:180].max() < 0.05
    assert row[220:].min() > 0.95


def test_what_is_no_mask_for_an_image(tmp_path: Path) -> None:
    image = Size(200, 100)
    with pytest.raises(InputError, match="is no file"):
        read_mask_info(str(tmp_path / "none.png"), image)
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(InputError, match="not an image that can be read"):
        read_mask_info(str(text), image)
    turned = write_pixels(tmp_path / "turned.png", half(200, 100))
    with pytest.raises(
        InputError, match="100x200 pixels, which is not the shape of an image of 200x100"
    ):
        read_mask_info(str(turned), image)
    # As a thumbnail has it, rounded to whole pixels.
    read_mask_info(str(write_pixels(tmp_path / "t.png", half(17, 33))), image)


def test_a_mask_that_changes_or_breaks_off(tmp_path: Path) -> None:
    image = Size(200, 100)
    path = write_pixels(tmp_path / "m.png", photograph_pixels(100, 200, 1))
    info = read_mask_info(str(path), image)
    write_pixels(path, half(100, 200))
    with pytest.raises(ReadError, match="changed while the job was running"):
        load_mask(info, image)
    write_pixels(path, photograph_pixels(100, 200, 1))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ReadError, match="cannot be read"):
        load_mask(read_mask_info(str(path), image), image)
