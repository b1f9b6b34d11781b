"""Arrays in, arrays out, with the pixels that files would have."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import srpipe
from tests.conftest import photograph_pixels, read_pixels, write_pixels

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


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4), np.float64), "is of float64"),
        (np.zeros(5, np.uint8), r"has the shape \(5,\)"),
        (np.zeros((0, 4, 3), np.uint8), "has the shape"),
        (np.zeros((2, 3, 4, 3), np.uint8), "has the shape"),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(srpipe.InputError, match=said):
        srpipe.enhance_array(array)


def test_settings_that_are_for_files(x2_model: Path) -> None:
    with pytest.raises(srpipe.SettingsError, match="job_dir is for files"):
        srpipe.enhance_array(np.zeros((8, 8), np.uint8), model=x2_model, job_dir="somewhere")


def test_nothing_stays_of_one_that_was_stopped(x2_model: Path, scratch: Path) -> None:
    stop = srpipe.StopRequest()
    stop.request()
    with pytest.raises(srpipe.Interrupted):
        srpipe.enhance_array(photograph_pixels(99, 99), model=x2_model, stop=stop, **SETTINGS)
    assert not list(scratch.iterdir())
