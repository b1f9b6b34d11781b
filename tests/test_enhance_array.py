"""Arrays in, arrays out, with the pixels that files would have."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import srpipe
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import conv_model

SETTINGS = {"tile_size": 48, "overlap": 8}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_the_pixels_are_those_of_files(
    tmp_path: Path, x2_model: Path, scratch: Path, dtype: str, bands: int
) -> None:
    pixels = photograph_pixels(70, 90, bands, dtype)
    source = write_pixels(tmp_path / "in.tif", pixels)
    srpipe.enhance(source, tmp_path / "out.tif", model=x2_model, **SETTINGS)
    expected = read_pixels(tmp_path / "out.tif")
    result = srpipe.enhance_array(pixels, model=x2_model, **SETTINGS)
    assert result.dtype == dtype
    assert result.shape == (140, 180, bands)
    assert np.array_equal(result, expected.reshape(result.shape))
    assert not list(scratch.iterdir())


def test_two_axes_stay_two(x2_model: Path) -> None:
    pixels = photograph_pixels(40, 30, 1)[..., 0]
    with srpipe.Enhancer(x2_model, **SETTINGS) as enhancer:
        # Any layout in memory will do.
        results = [
            enhancer.enhance_array(array)
            for array in (pixels, np.asfortranarray(pixels), pixels[::-1][::-1], pixels.tolist())
            if isinstance(array, np.ndarray)
        ]
    assert all(result.shape == (80, 60) for result in results)
    assert all(np.array_equal(result, results[0]) for result in results)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "big endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "Fortran's order": np.asfortranarray,
    "negative strides": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "every other": lambda array: np.repeat(np.repeat(array, 2, 0), 2, 1)[::2, ::2],
    "bands first": lambda array: np.ascontiguousarray(np.moveaxis(array, -1, 0)).transpose(1, 2, 0),
    "readonly": lambda array: np.lib.stride_tricks.as_strided(array.copy(), writeable=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_layout_in_memory_does_not_matter(x2_model: Path, dtype: str, layout: str) -> None:
    pixels = photograph_pixels(50, 60, 3, "uint16")
    pixels = pixels if dtype == "uint16" else pixels.astype(np.float32) / 65535
    array = LAYOUTS[layout](pixels)
    before = array.copy()
    result = srpipe.enhance_array(array, model=x2_model, **SETTINGS)
    np.testing.assert_array_equal(result, srpipe.enhance_array(pixels, model=x2_model, **SETTINGS))
    np.testing.assert_array_equal(array, before)
    assert result.dtype == dtype
    one = srpipe.enhance_array(array[..., :1], model=x2_model, **SETTINGS)
    assert one.shape == (100, 120, 1)
    two = srpipe.enhance_array(array[..., 0], model=x2_model, **SETTINGS)
    np.testing.assert_array_equal(one[..., 0], two)


@pytest.mark.parametrize("bands", [1, 3])
def test_floats_are_not_clipped(tmp_path: Path, x2_model: Path, bands: int) -> None:
    pixels = photograph_pixels(50, 60, bands).astype(np.float32) / 64 - 1
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb" if bands == 3 else None)
    srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.tif", model=x2_model, **SETTINGS)
    expected = tifffile.imread(tmp_path / "out.tif").reshape(100, 120, bands)
    result = srpipe.enhance_array(pixels, model=x2_model, **SETTINGS)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32
    assert result.max() > 1.2
    assert result.min() < -0.1


@pytest.mark.parametrize("dtype", ["float64", ">f8", "float16"])
def test_other_floats_are_said_to_become_float32(
    x2_model: Path, caplog: pytest.LogCaptureFixture, dtype: str
) -> None:
    pixels = (photograph_pixels(50, 60) / 255).astype(dtype)
    result = srpipe.enhance_array(pixels, model=x2_model, **SETTINGS)
    assert "it is computed, and returned, as float32" in caplog.text
    expected = srpipe.enhance_array(pixels.astype(np.float32), model=x2_model, **SETTINGS)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_what_is_masked_is_no_data(x2_model: Path, dtype: str, bands: int) -> None:
    pixels = photograph_pixels(60, 70, bands).astype(dtype)
    pixels = np.minimum(pixels, 254) if dtype == "uint8" else pixels
    if dtype.startswith("float"):
        pixels /= 255
    holes = np.zeros(pixels.shape, bool)
    holes[20:30, 10:50, 0] = True
    wild = np.where(holes, 77777 if dtype.startswith("float") else 99, pixels).astype(dtype)
    result = srpipe.enhance_array(
        np.ma.MaskedArray(wild, holes, fill_value=7), model=x2_model, **SETTINGS
    )
    assert isinstance(result, np.ma.MaskedArray)
    colors = bands - (bands in (2, 4))
    expected = np.zeros(result.shape, bool)
    expected[40:60, 20:100, :colors] = True
    np.testing.assert_array_equal(np.ma.getmaskarray(result), expected)
    assert result.fill_value == (7 if dtype != "float64" else 1e20)
    # What is below the mask reaches nobody: whatever it is, all else comes out the same.
    tame = np.ma.MaskedArray(pixels, holes)
    again = srpipe.enhance_array(tame, model=x2_model, **SETTINGS)
    np.testing.assert_array_equal(result.filled(0), again.filled(0))
    # Far from the holes it is what it would be without.
    whole = srpipe.enhance_array(pixels, model=x2_model, **SETTINGS)
    np.testing.assert_allclose(result.data[80:], whole[80:], atol=1)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_what_is_masked_stays_so_in_another_depth(x2_model: Path, dtype: str, depth: int) -> None:
    pixels = photograph_pixels(60, 70, 1)[..., 0].astype(dtype)
    pixels[0, :2] = 0, 1
    holes = np.zeros(pixels.shape, bool)
    holes[20:30, 10:50] = True
    result = srpipe.enhance_array(
        np.ma.MaskedArray(pixels, holes), model=x2_model, depth=depth, **SETTINGS
    )
    assert result.dtype == ("int16" if (dtype, depth) == ("int16", 16) else f"uint{depth}")
    expected = np.zeros(result.shape, bool)
    expected[40:60, 20:100] = True
    np.testing.assert_array_equal(np.ma.getmaskarray(result), expected)


def test_a_masked_array_without_a_mask(x2_model: Path) -> None:
    pixels = photograph_pixels(50, 60, 1)[..., 0]
    result = srpipe.enhance_array(np.ma.MaskedArray(pixels), model=x2_model, **SETTINGS)
    assert isinstance(result, np.ma.MaskedArray)
    assert not np.ma.is_masked(result)
    np.testing.assert_array_equal(result, srpipe.enhance_array(pixels, model=x2_model, **SETTINGS))


def test_no_value_is_left_for_no_data(x2_model: Path) -> None:
    pixels = np.arange(260).astype(np.uint8).reshape(13, 20)
    holes = np.arange(260).reshape(13, 20) >= 256
    with pytest.raises(srpipe.InputError, match="uses all values of uint8"):
        srpipe.enhance_array(np.ma.MaskedArray(pixels, holes), model=x2_model, **SETTINGS)


def test_masks_as_arrays(tmp_path: Path, x2_model: Path) -> None:
    pixels = photograph_pixels(60, 70)
    white = np.zeros((60, 70), bool)
    white[:, 40:] = True
    mask = write_pixels(tmp_path / "mask.png", (white * np.uint8(255))[..., np.newaxis])
    expected = srpipe.enhance_array(pixels, mask=mask, model=x2_model, **SETTINGS)
    assert not np.array_equal(expected, srpipe.enhance_array(pixels, model=x2_model, **SETTINGS))
    arrays = [white.astype(t) for t in (bool, "u1", ">u2", "i4", "i8", "f2", "f4", "f8")]
    arrays += [white * np.uint8(255), white[..., np.newaxis], white.tolist()]
    arrays += [np.ma.MaskedArray(np.ones((60, 70), np.uint8), ~white)]
    with srpipe.Enhancer(x2_model, **SETTINGS) as enhancer:
        for array in arrays:
            np.testing.assert_array_equal(enhancer.enhance_array(pixels, mask=array), expected)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4), np.int64), "is of int64: it must be of uint8, uint16, int16 or float32"),
        (np.zeros((4, 4), bool), r"is of bool: .*array\.astype\(np\.uint8\) \* 255"),
        (np.zeros((4, 4), np.complex64), "is of complex64"),
        (np.full((4, 4), 1e300), "numbers that float32 does not"),
        (np.zeros(5, np.uint8), r"has the shape \(5,\)"),
        (np.zeros((0, 4, 3), np.uint8), "has the shape"),
        (np.zeros((2, 3, 4, 3), np.uint8), "has the shape"),
        (np.array([["a"]]), "is of <U1"),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(srpipe.InputError, match=said):
        srpipe.enhance_array(array)


@pytest.mark.parametrize(
    ("array", "settings", "said"),
    [
        (np.zeros((9, 9, 5), np.uint8), {}, "the array"),
        (np.zeros((9, 9), np.uint8), {"mask": np.zeros((9, 9))}, "^the mask enhances nothing"),
        (np.zeros((9, 9), np.uint8), {"mask": np.ones((9, 4))}, "^the mask has 4x9 pixels"),
        (np.zeros((9, 9), np.uint8), {"mask": np.array("x")}, "^the mask has the shape"),
        (np.zeros((9, 9), np.uint8), {"region": (5, 5, 9, 9)}, "region"),
        (np.zeros((9, 9), np.uint8), {"model": "nonsuch"}, "no model 'nonsuch'"),
    ],
)
def test_no_message_names_a_file_that_nobody_made(
    x2_model: Path, scratch: Path, array: np.ndarray, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(srpipe.RequestError, match=said) as caught:
        srpipe.enhance_array(array, **{"model": x2_model} | settings)
    assert str(scratch / "srpipe-") not in str(caught.value)


def test_nor_does_what_is_logged(
    tmp_path: Path, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    three = conv_model(tmp_path / "three.onnx")
    pixels = photograph_pixels(50, 60)
    pixels = np.dstack([pixels, pixels[..., 0]]).astype(np.float32) * 3
    with caplog.at_level("DEBUG", "srpipe"):
        srpipe.enhance_array(pixels, model=three, mask=np.ones((50, 60)), **SETTINGS)
    assert "The mask enhances 100.0% of the image" in caplog.text
    assert str(scratch) not in caplog.text


def test_nor_does_an_interruption(x2_model: Path) -> None:
    stop = srpipe.StopRequest()
    with pytest.raises(srpipe.Interrupted, match=r"^interrupted\.$"):
        srpipe.enhance_array(
            photograph_pixels(230, 310), model=x2_model, stop=stop, engine="serial",
            progress=lambda event: stop.request() if event.tiles_done == 9 else None, **SETTINGS,
        )  # fmt: skip


def test_settings_that_are_for_files(x2_model: Path) -> None:
    with pytest.raises(srpipe.SettingsError, match="job_dir is for files"):
        srpipe.enhance_array(np.zeros((8, 8), np.uint8), model=x2_model, job_dir="somewhere")


def test_nothing_stays_of_one_that_was_stopped(x2_model: Path, scratch: Path) -> None:
    stop = srpipe.StopRequest()
    stop.request()
    with pytest.raises(srpipe.Interrupted):
        srpipe.enhance_array(photograph_pixels(99, 99), model=x2_model, stop=stop, **SETTINGS)
    assert not list(scratch.iterdir())
