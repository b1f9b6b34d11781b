from __future__ import annotations

import cv2
import numpy as np
import pytest

from srpipe.plan.colour import ColourPath, luma, pad_edges, resize_plain
from tests.conftest import photograph_pixels


def path(bands: int, channels: int, **changes: object) -> ColourPath:
    facts = {"bgr": False, "value_range": 1.0, "layout": "NCHW", "scale": 1}
    return ColourPath(bands=bands, channels=channels, **(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("value_range", [1.0, 255.0])
@pytest.mark.parametrize("bgr", [False, True])
def test_identity_model_returns_the_image(
    dtype: str, bands: int, channels: int, layout: str, value_range: float, bgr: bool
) -> None:
    pixels = photograph_pixels(20, 30, bands, dtype)
    colour = path(bands, channels, layout=layout, value_range=value_range, bgr=bgr)
    shape = (channels, 20, 30) if layout == "NCHW" else (20, 30, channels)
    batch = np.empty(shape, np.float32)
    colour.pack(pixels, batch)
    white = np.iinfo(pixels.dtype).max
    assert batch.max() <= value_range
    planes = colour.unpack(batch, pixels if colour.needs_source else None)
    assert planes.flags.c_contiguous
    assert planes.dtype == np.float32
    back = np.floor(planes.transpose(1, 2, 0) * white + 0.5).astype(pixels.dtype)
    np.testing.assert_array_equal(back, pixels)


def test_rgb_is_packed_in_the_models_order() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    batch = np.empty((3, 2, 2), np.float32)
    path(3, 3, bgr=True, value_range=255.0).pack(pixels, batch)
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
    np.testing.assert_array_equal(planes[3], resize_plain(pixels[..., 3:], 2)[0])


def test_plain_enlargement_is_bicubic() -> None:
    """A straight line stays nearly straight, where repeating pixels makes steps of 0 and 10."""
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (9, 1))[..., np.newaxis]
    enlarged = resize_plain(ramp, 2)[0, 9, 6:-6] * 255
    np.testing.assert_allclose(np.diff(enlarged), 5, atol=1)


def test_grey_comes_back_as_the_mean() -> None:
    result = np.stack([np.full((2, 2), v, np.float32) for v in (0.1, 0.2, 0.6)])
    np.testing.assert_allclose(path(1, 3).unpack(result, None), np.full((1, 2, 2), 0.3), atol=1e-7)


def test_luma_of_grey_is_grey() -> None:
    np.testing.assert_allclose(luma(np.full((3, 1, 1), 0.7, np.float32)), 0.7, atol=1e-6)


def test_padding_repeats_the_edge() -> None:
    pixels = np.zeros((4, 5, 1), np.uint8)
    pixels[:2, :3, 0] = [[1, 2, 3], [4, 5, 6]]
    pad_edges(pixels, 2, 3)
    expected = np.pad(np.array([[1, 2, 3], [4, 5, 6]]), ((0, 2), (0, 2)), mode="edge")
    np.testing.assert_array_equal(pixels[..., 0], expected)
