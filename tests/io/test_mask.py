"""Masks as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

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


def with_nan(white: np.ndarray) -> np.ndarray:
    values = white.astype(np.float32)
    values[:, :10] = np.nan
    values[:, 10:20] = -np.inf
    return values


def transparent(white: np.ndarray) -> np.ndarray:
    """White all over, and seen on the right."""
    alpha = white * np.uint8(255)
    return np.dstack([np.full((*white.shape, 3), 255, np.uint8), alpha])


KINDS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "uint8 0 1": ("tif", lambda white: white.astype(np.uint8)),
    "png 0 1": ("png", lambda white: white.astype(np.uint8)),
    "uint8": ("tif", lambda white: white * np.uint8(255)),
    "int8 0 1": ("tif", lambda white: white.astype(np.int8)),
    "int8": ("tif", lambda white: white * np.int8(127)),
    "bool": ("tif", lambda white: white),
    "1 bit png": ("png", lambda white: white),
    "int16 0 1": ("tif", lambda white: white.astype(np.int16)),
    "int16 0 255": ("tif", lambda white: white * np.int16(255)),
    "int16": ("tif", lambda white: white * np.int16(32767)),
    "int16 with no-data": ("tif", lambda white: np.where(white, 1, -9999).astype(np.int16)),
    "uint16 0 1": ("tif", lambda white: white.astype(np.uint16)),
    "uint16 0 255": ("tif", lambda white: white * np.uint16(255)),
    "png 16 bits 0 255": ("png", lambda white: white * np.uint16(255)),
    "uint16": ("tif", lambda white: white * np.uint16(65535)),
    "uint32 0 1": ("tif", lambda white: white.astype(np.uint32)),
    "int32 0 255": ("tif", lambda white: white * np.int32(255)),
    "float16": ("tif", lambda white: white.astype(np.float16)),
    "float32": ("tif", lambda white: white.astype(np.float32)),
    "float32 0 255": ("tif", lambda white: white * np.float32(255)),
    "float32 that overshoots": ("tif", lambda white: np.where(white, 1.02, -0.1).astype(np.float32)),
    "float32 with NaN": ("tif", with_nan),
    "RGB": ("png", lambda white: np.dstack([white * np.uint8(255)] * 3)),
    "RGB 0 1": ("tif", lambda white: np.dstack([white.astype(np.uint8)] * 3)),
    "alpha": ("png", transparent),
    "grey and alpha": ("png", lambda white: transparent(white)[..., 2:]),
    "float RGB": ("tif", lambda white: np.dstack([white.astype(np.float32)] * 3)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_white_is_what_the_type_and_the_values_say(tmp_path: Path, kind: str) -> None:
    suffix, make = KINDS[kind]
    white = np.zeros((50, 100), bool)
    white[:, 50:] = True
    pixels = make(white)
    path = tmp_path / f"m.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else None)
    else:
        Image.fromarray(pixels).save(path)
    image = Size(200, 100)
    info = read_mask_info(str(path), image)
    assert info.share == 0.5
    row = load_mask(info, image).weights(Rect(0, 40, 200, 1), 1)[0]
    assert (row[: 100 - SOFT_PX - 4] == 0).all()
    assert (row[100 + SOFT_PX + 4 :] == 1).all()


def test_where_a_file_says_that_0_is_white(tmp_path: Path) -> None:
    """As Pillow reads it; but tifffile says so of all booleans."""
    white = half(50, 100)[..., 0] > 0
    tifffile.imwrite(tmp_path / "m.tif", ~white, photometric="miniswhite", software="a scanner's")
    with Image.open(tmp_path / "m.tif") as image:
        assert (np.asarray(image) == white).all()
    assert (module._weights(str(tmp_path / "m.tif")) == 255 * white).all()


@pytest.mark.parametrize(("nodata", "dtype"), [(255, "uint8"), (-9999, "int16"), (7, "float32")])
def test_no_data_is_black(tmp_path: Path, nodata: int, dtype: str) -> None:
    """As GIS programs write masks of 0 and 1."""
    pixels = half(50, 100)[..., 0].astype(dtype) // 255
    pixels[:, 75:] = nodata
    tag = (42113, "s", 0, str(nodata), True)
    tifffile.imwrite(tmp_path / "m.tif", pixels, extratags=[tag])
    expected = np.where(pixels == 1, 255, 0)
    np.testing.assert_array_equal(module._weights(str(tmp_path / "m.tif")), expected)


def test_a_fourth_band_that_is_no_alpha_does_not_count(tmp_path: Path) -> None:
    pixels = np.dstack([half(50, 100, 3), np.zeros((50, 100), np.uint8)])
    expected = half(50, 100)[..., 0]
    for extra, result in ((0, expected), (2, expected * 0)):
        tifffile.imwrite(tmp_path / "m.tif", pixels, photometric="rgb", extrasamples=[extra])
        np.testing.assert_array_equal(module._weights(str(tmp_path / "m.tif")), result)


def test_greys_mix_by_their_share_of_white(tmp_path: Path) -> None:
    image = Size(200, 100)
    for values in (
        np.linspace(0, 255, 200).astype(np.uint8), np.linspace(0, 65535, 200).astype(np.uint16),
        np.linspace(0, 1, 200, dtype=np.float32), np.linspace(0, 255, 200, dtype=np.float32),
    ):  # fmt: skip
        tifffile.imwrite(tmp_path / "m.tif", np.tile(values, (100, 1)))
        info = read_mask_info(str(tmp_path / "m.tif"), image)
        assert info.share == pytest.approx(0.5, abs=0.01)
        row = load_mask(info, image).weights(Rect(20, 40, 160, 1), 1)[0]
        assert row == pytest.approx(np.linspace(0, 1, 200)[20:180], abs=0.01)


def test_color_counts_by_its_brightness(tmp_path: Path) -> None:
    pixels = photograph_pixels(100, 200)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    values = module._weights(str(tmp_path / "m.png"))
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_allclose(values, expected, atol=1)


@pytest.mark.parametrize("pixels", [
    np.zeros((10, 20), np.uint8), np.zeros((10, 20), bool), np.full((10, 20), 3, np.uint8),
    np.full((10, 20), np.nan, np.float32), np.full((10, 20), -1, np.int16),
    np.full((10, 20), 0.01, np.float32), np.full((10, 20), -np.inf, np.float32),
])  # fmt: skip
def test_a_mask_that_enhances_nothing_is_an_error(tmp_path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "m.tif", pixels)
    with pytest.raises(InputError, match=r"m\.tif enhances nothing"):
        read_mask_info(str(tmp_path / "m.tif"), Size(200, 100))


def test_the_part_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, image = str(write_pixels(tmp_path / "m.png", half(100, 200))), Size(200, 100)
    assert read_mask_info(path, image, Rect(120, 0, 50, 50)).share == 1
    caplog.clear()
    assert read_mask_info(path, image, Rect(10, 0, 50, 50)).share == 0
    assert "enhances nothing of the part that is asked for" in caplog.text


@pytest.mark.parametrize(("pixels", "said"), [
    (np.ones((10, 20), np.float64), "samples of 64 bits"),
    (np.ones((10, 20), np.int64), "samples of 64 bits"),
    (np.ones((10, 20), np.complex64), "64 bits|complex"),
    (np.full((10, 20), 3e5, np.float32), "goes up to 300000: black is 0, and white 1, 255 or 65535"),
    (np.full((10, 20), 70000, np.int32), "goes up to 70000"),
    (np.ones((10, 20, 5), np.uint8), "has 5 bands of data"),
])  # fmt: skip
def test_numbers_that_make_no_mask(tmp_path: Path, pixels: np.ndarray, said: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=said):
        read_mask_info(str(tmp_path / "m.tif"), Size(200, 100))


def test_what_it_enhances_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = Size(200, 100)
    grey = half(50, 100)
    for pixels, level, said in (
        (grey, "INFO", "The mask enhances 50.0% of the image."),
        (grey // 2, "WARNING", "24.9% of the image, with at most 50% of the model's result"),
        (grey | 255, "WARNING", "enhances 100.0% of the image: it is white everywhere"),
    ):
        caplog.clear()
        with caplog.at_level("INFO", "srpipe"):
            read_mask_info(str(write_pixels(tmp_path / "m.png", pixels)), image)
        (record,) = caplog.records
        assert record.levelname == level
        assert said in record.getMessage()


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
    info = read_mask_info(str(path), image)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ReadError, match="changed while the job was running"):
        load_mask(info, image)
    with pytest.raises(InputError, match="not an image that can be read"):
        read_mask_info(str(path), image)
