from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.colour import ColourPath, luma, pad_edges, resize_plain
from tests.conftest import photograph_pixels


def path(bands: int, channels: int, **changes: object) -> ColourPath:
    """Of an 8-bit picture, grey or RGB, with alpha where the number of bands is even."""
    facts = {
        "colours": bands if bands == channels else 3 if bands >= 3 else 1, "bgr": False,
        "value_range": (0.0, 1.0), "white": 255, "highest": 255, "layout": "NCHW", "scale": 1,
    }  # fmt: skip
    return ColourPath(bands=bands, channels=channels, **(facts | changes))  # type: ignore[arg-type]


def there_and_back(colour: ColourPath, pixels: np.ndarray) -> np.ndarray:
    """The pixels through a model that changes nothing, rounded as the kernel does."""
    height, width = pixels.shape[:2]
    shape = (colour.channels, height, width)
    batch = np.empty(shape if colour.layout == "NCHW" else (*shape[1:], shape[0]), np.float32)
    colour.pack(pixels, batch)
    planes = colour.unpack(batch, pixels if colour.needs_source else None)
    assert planes.flags.c_contiguous
    assert planes.dtype == np.float32
    integers = np.floor(planes.transpose(1, 2, 0) * np.float32(colour.highest) + np.float32(0.5))
    return integers.clip(0, colour.highest).astype(pixels.dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
@pytest.mark.parametrize("bgr", [False, True])
def test_identity_model_returns_the_image(
    dtype: str,
    bands: int,
    channels: int,
    layout: str,
    value_range: tuple[float, float],
    bgr: bool,
) -> None:
    pixels = photograph_pixels(20, 30, bands, dtype)
    highest = np.iinfo(pixels.dtype).max
    colour = path(
        bands, channels, layout=layout, value_range=value_range, bgr=bgr, white=highest,
        highest=highest,
    )  # fmt: skip
    np.testing.assert_array_equal(there_and_back(colour, pixels), pixels)


@given(
    dtype=st.sampled_from(["uint8", "uint16"]),
    bands=st.integers(1, 13),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    low=st.floats(-500, 500, width=32),
    span=st.floats(20, 65_000, width=32),
    unit=st.sampled_from([1.0, 1 / 64]),
    white_share=st.floats(0, 1),
    bgr=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_bands_range_and_white_go_there_and_back(
    dtype: str,
    bands: int,
    layout: str,
    low: float,
    span: float,
    unit: float,
    white_share: float,
    bgr: bool,
    seed: int,
) -> None:
    """float32 resolves 16 bits where black is not very far from 0 for the width of the range."""
    highest = np.iinfo(dtype).max
    white = max(highest // 16, int(white_share * highest))
    pixels = np.random.default_rng(seed).integers(0, highest + 1, (3, 5, bands)).astype(dtype)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = 0, white, highest
    value_range = (low * unit, (low + span) * unit)
    colour = path(
        bands, bands, layout=layout, value_range=value_range, white=white, highest=highest,
        bgr=bgr and bands == 3,
    )  # fmt: skip
    assert not colour.needs_source
    np.testing.assert_array_equal(there_and_back(colour, pixels), pixels)
    shape = (bands, 3, 5) if layout == "NCHW" else (3, 5, bands)
    batch = np.empty(shape, np.float32)
    colour.pack(pixels, batch)
    planes = batch if layout == "NCHW" else batch.transpose(2, 0, 1)
    for place, value in ((0, value_range[0]), (1, value_range[1])):
        np.testing.assert_allclose(planes[:, 0, place], value, rtol=1e-5, atol=1e-4 * unit)


def test_rgb_is_packed_in_the_models_order() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    batch = np.empty((3, 2, 2), np.float32)
    path(3, 3, bgr=True, value_range=(0.0, 255.0)).pack(pixels, batch)
    np.testing.assert_array_equal(batch[0], pixels[..., 2])


def test_float16_models_get_float16() -> None:
    pixels = photograph_pixels(8, 8)
    batch = np.empty((3, 8, 8), np.float16)
    path(3, 3).pack(pixels, batch)
    np.testing.assert_array_equal(batch, (pixels / 255).transpose(2, 0, 1).astype(np.float16))


def test_one_channel_model_sees_luma_and_keeps_chroma() -> None:
    pixels = photograph_pixels(16, 16)
    colour = path(3, 1)
    batch = np.empty((1, 16, 16), np.float32)
    colour.pack(pixels, batch)
    expected = pixels.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(batch[0], expected, atol=1e-6)
    brighter = colour.unpack(batch + np.float32(0.1), pixels)
    ycc = cv2.cvtColor(brighter.transpose(1, 2, 0), cv2.COLOR_RGB2YCrCb)
    before = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2YCrCb)
    np.testing.assert_allclose(ycc[..., 0], before[..., 0] + 0.1, atol=1e-4)
    np.testing.assert_allclose(ycc[..., 1:], before[..., 1:], atol=1e-4)


def test_alpha_is_resized_not_enhanced() -> None:
    pixels = photograph_pixels(10, 12, bands=4)
    colour = path(4, 3, scale=2)
    result = np.zeros((3, 20, 24), np.float32)
    planes = colour.unpack(result, pixels)
    assert planes.shape == (4, 20, 24)
    assert not planes[:3].any()
    np.testing.assert_array_equal(
        planes[3], resize_plain(pixels[..., 3:], 2, 0, np.iinfo(pixels.dtype).max)[0]
    )


def test_plain_enlargement_is_bicubic() -> None:
    """A straight line stays nearly straight, where repeating pixels makes steps of 0 and 10."""
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (9, 1))[..., np.newaxis]
    enlarged = resize_plain(ramp, 2, 0, 255)[0, 9, 6:-6] * 255
    np.testing.assert_allclose(np.diff(enlarged), 5, atol=1)


def test_grey_comes_back_as_the_mean() -> None:
    result = np.stack([np.full((2, 2), v, np.float32) for v in (0.1, 0.2, 0.6)])
    np.testing.assert_allclose(path(1, 3).unpack(result, None), np.full((1, 2, 2), 0.3), atol=1e-7)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (16.0, 235.0)])
@pytest.mark.parametrize("white", [10_000, 65_535])
def test_what_is_not_the_models_does_not_depend_on_its_numbers(
    value_range: tuple[float, float], white: int
) -> None:
    """Alpha, chroma and the mean of grey are what they are, in whatever numbers the model thinks."""
    facts = {"white": white, "highest": 65_535, "scale": 2}
    for bands, channels in ((4, 3), (4, 1), (2, 1), (1, 3)):
        pixels = photograph_pixels(8, 9, bands, "uint16") // 4
        plain = path(bands, channels, **facts)
        other = path(bands, channels, **facts, value_range=value_range)
        low, high = value_range
        unit = np.random.default_rng(0).random((channels, 16, 18), np.float32)
        expected = plain.unpack(unit, pixels)
        np.testing.assert_allclose(
            other.unpack(unit * np.float32(high - low) + np.float32(low), pixels),
            expected,
            atol=1e-5,
        )
        if bands == 4:
            alpha = resize_plain(pixels[..., 3:], 2, 0, np.iinfo(pixels.dtype).max)[0]
            np.testing.assert_allclose(expected[3], alpha, atol=1e-6)


def test_luma_of_grey_is_grey() -> None:
    np.testing.assert_allclose(luma(np.full((3, 1, 1), 0.7, np.float32)), 0.7, atol=1e-6)


def test_padding_repeats_the_edge() -> None:
    pixels = np.zeros((4, 5, 1), np.uint8)
    pixels[:2, :3, 0] = [[1, 2, 3], [4, 5, 6]]
    pad_edges(pixels, 2, 3)
    expected = np.pad(np.array([[1, 2, 3], [4, 5, 6]]), ((0, 2), (0, 2)), mode="edge")
    np.testing.assert_array_equal(pixels[..., 0], expected)
