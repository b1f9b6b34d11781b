"""Floats, signed integers and no-data from end to end, against the model run on the whole picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import pyvips
import tifffile

import srpipe
from srpipe.errors import InferenceError, InputError, OutputError, ReadError, SettingsError
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import conv_model, elementwise_model

NODATA = 42113
BORDER = 16
TILES = {"tile_size": 48, "overlap": 12, "edges": "reflect", "overwrite": True}


def write(path: Path, pixels: np.ndarray, nodata: str | None = None, **options: Any) -> Path:
    """A TIFF by tifffile, of (height, width, bands); three bands are RGB, four RGB and alpha."""
    bands = pixels.shape[2]
    facts: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
    if bands in (3, 4):
        facts = {"photometric": "rgb", "extrasamples": ["unassalpha"] * (bands - 3)}
    if nodata is not None:
        facts["extratags"] = [(NODATA, 2, 0, nodata, True)]
    tifffile.imwrite(path, pixels if bands > 1 else pixels[..., 0], **(facts | options))
    return path


def read(path: Path, page: int = 0) -> np.ndarray:
    """(height, width, bands) by tifffile."""
    with tifffile.TiffFile(path) as tiff:
        pixels = tiff.pages[page].asarray()
    return pixels.reshape(*pixels.shape[:2], -1)


def nodata_of(path: Path) -> str | None:
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].tags.valueof(NODATA)


def whole(model: Path, pixels: np.ndarray, black: float, white: float) -> np.ndarray:
    """What the model makes of all pixels, mirrored beyond the border, in float64."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    padded = np.pad(pixels, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="reflect")
    unit = (padded.astype(np.float64) - black) / (white - black)
    batch = np.ascontiguousarray(unit.transpose(2, 0, 1)[np.newaxis], np.float32)
    (result,) = session.run(None, {session.get_inputs()[0].name: batch})
    border = BORDER * result.shape[2] // padded.shape[0]
    inside = result[0, :, border:-border, border:-border].transpose(1, 2, 0)
    return inside.astype(np.float64) * (white - black) + black


def nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = (
        np.floor((np.arange(n) + 0.5) * values.shape[axis] / n).astype(int)
        for axis, n in enumerate((height, width))
    )
    return values[np.ix_(rows, columns)]


def elevations(height: int = 90, width: int = 110) -> np.ndarray:
    """From 0 to 2550, as a DEM in meters."""
    return photograph_pixels(height, width, 1).astype(np.float32) * 10


def holes(height: int = 90, width: int = 110, seed: int = 0) -> np.ndarray:
    """A large hole, a small one, and single pixels."""
    place = np.random.default_rng(seed).random((height, width)) < 0.01
    place[: height // 2, : width // 3] = True
    place[height // 2 + 5 : height // 2 + 9, width // 2 : width // 2 + 6] = True
    return place


@pytest.fixture(scope="module")
def grey(model_folder: Path) -> Path:
    return conv_model(model_folder / "grey-x2.onnx", channels=1)


@pytest.fixture(scope="module")
def five(model_folder: Path) -> Path:
    return conv_model(model_folder / "five-x2.onnx", channels=5)


def test_floats_are_neither_rounded_nor_clipped(
    tmp_path: Path, x2_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = photograph_pixels(80, 100).astype(np.float32) / 200 - np.float32(0.1)
    source, output = write(tmp_path / "in.tif", pixels), tmp_path / "out.tif"
    srpipe.enhance(source, output, model=x2_model, **TILES)
    share = 100 * np.mean((pixels < 0) | (pixels > 1))
    assert [m for m in caplog.messages if f"{share:.3g}% of the values of {source}" in m]
    result = read(output)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, whole(x2_model, pixels, 0, 1), atol=3e-6)
    assert result.min() < 0
    assert result.max() > 1
    with tifffile.TiffFile(output) as tiff:
        assert tiff.pages[0].tags.valueof("SampleFormat") == (3, 3, 3)
    files = {output.read_bytes()}
    for changes in (
        {"engine": "serial"}, {"engine": "local", "workers": 2}, {"batch_size": 3}, {"reuse": False},
    ):  # fmt: skip
        srpipe.enhance(source, output, model=x2_model, **(TILES | changes))
        files.add(output.read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("told", ["options", "metadata"])
def test_a_dem_keeps_its_meters(
    tmp_path: Path, grey: Path, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = elevations() + 300
    source, output = write(tmp_path / "in.tif", pixels), tmp_path / "out.tif"
    model, options = grey, {"black": 300, "white": 2850.0}
    if told == "metadata":
        told_by = {"pixel_black": "300", "pixel_white": "2850"}
        model, options = conv_model(tmp_path / "m.onnx", channels=1, metadata=told_by), {}
    srpipe.enhance(source, output, model=model, **TILES, **options)
    assert not caplog.messages
    result = read(output)
    np.testing.assert_allclose(result, whole(grey, pixels, 300, 2850), atol=5e-3)
    assert result.max() > 2500
    caplog.clear()
    srpipe.enhance(source, output, model=grey, **TILES)
    assert "100% of the values" in caplog.messages[0]
    assert "--white" in caplog.messages[0]


def test_signed_integers(tmp_path: Path, grey: Path) -> None:
    pixels = (photograph_pixels(90, 110, 1).astype(np.int32) * 257 - 32768).astype(np.int16)
    source, output = write(tmp_path / "in.tif", pixels), tmp_path / "out.tif"
    srpipe.enhance(source, output, model=grey, **TILES)
    expected = whole(grey, pixels, -32768, 32767)
    result = read(output)
    assert result.dtype == np.int16
    rounded = np.floor(np.clip(expected, -32768, 32767) + 0.5)
    assert np.abs(result - rounded).max() <= 1
    assert np.mean(result != rounded) < 0.01
    srpipe.enhance(source, tmp_path / "int.tif", model=grey, transfer="integer", **TILES)
    assert np.array_equal(read(tmp_path / "int.tif"), result)
    # A DEM in meters: the model sees 0 to 1000.
    pixels = (pixels.astype(np.int32) // 50).astype(np.int16)
    write(source, pixels)
    srpipe.enhance(source, output, model=grey, black=-1000, white=1000, **TILES)
    rounded = np.floor(whole(grey, pixels, -1000, 1000) + 0.5)
    assert np.abs(read(output) - rounded).max() <= 1
    assert np.mean(read(output) != rounded) < 0.01


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("bands", [3, 4, 5])
def test_bands_and_alpha(tmp_path: Path, x2_model: Path, five: Path, dtype: str, bands: int) -> None:
    photograph = photograph_pixels(70, 90, 4).astype(np.float32) / 255
    pixels = np.dstack([photograph, photograph[..., 1:2]])[..., :bands]
    if dtype == "int16":
        pixels = (pixels * 65535 - 32768).astype(np.int16)
    source, output = write(tmp_path / "in.tif", pixels), tmp_path / "out.tif"
    model = five if bands == 5 else x2_model
    srpipe.enhance(source, output, model=model, **TILES)
    limits = (0, 1) if dtype == "float32" else (-32768, 32767)
    seen = pixels if bands == 5 else pixels[..., :3]
    expected, result = whole(model, seen, *limits), read(output)
    assert result.dtype == pixels.dtype
    assert result.shape == (140, 180, bands)
    if dtype == "int16":
        expected = np.clip(expected, *limits)
    clear = (
        np.ones((140, 180), bool) if bands != 4
        # Where nothing is transparent nearby.
        else nearest(pixels[..., 3] > limits[0] + 0.2 * (limits[1] - limits[0]), 140, 180)
    )  # fmt: skip
    difference = np.abs(result[..., : seen.shape[2]] - expected)[clear]
    assert difference.max() <= (1 if dtype == "int16" else 3e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("value", ["lowest", "-9999", "0", "highest", "nan"])
def test_no_data_stays_and_reaches_nobody(
    tmp_path: Path, grey: Path, dtype: str, value: str
) -> None:
    """The result is that of the picture in which no-data is another number, but for that number."""
    limits = (-3.0e38, 3.4028234663852886e38) if dtype == "float32" else None
    lowest, highest = limits or (np.iinfo(dtype).min, np.iinfo(dtype).max)
    said = {"lowest": f"{lowest:.17g}", "highest": f"{highest:.17g}"}.get(value, value)
    if dtype != "float32" and not (said != "nan" and lowest <= float(said) <= highest):
        return
    pixels, place = elevations().astype(np.float64), holes()
    pixels = (pixels / 2550 * 255).astype(dtype) if dtype == "uint8" else pixels.astype(dtype)
    white = 255 if dtype == "uint8" else 2550
    other = np.where(place[..., np.newaxis], pixels.max() // 2, pixels).astype(dtype)
    empty = np.array(float(said)).astype(dtype)
    pixels[pixels == empty] = empty + 1 if value in ("lowest", "0") else empty - 1
    pixels[place] = empty
    source, output = write(tmp_path / "in.tif", pixels, said), tmp_path / "out.tif"
    srpipe.enhance(source, output, model=grey, black=0, white=white, **TILES)
    result = read(output)
    at = nearest(place, *result.shape[:2])
    same = np.isnan(result) if value == "nan" else result == empty
    assert np.array_equal(same[..., 0], at)
    assert nodata_of(output) == said
    # Another number for no-data, told by the option.
    change = np.array(77 if said != "77" else 78).astype(dtype)
    pixels[pixels == change] = change + np.array(1, dtype)
    write(source, pixels, said)
    srpipe.enhance(source, output, model=grey, black=0, white=white, **TILES)
    result = read(output)
    pixels[place] = change
    write(source, pixels)
    srpipe.enhance(source, output, model=grey, black=0, white=white, nodata=77, **TILES)
    again = read(output)
    assert nodata_of(output) == "77"
    assert np.array_equal(again[..., 0] == 77, at)
    moved = (result == change) | (again == empty)
    assert np.array_equal(result[~at & ~moved[..., 0]], again[~at & ~moved[..., 0]])
    # Far from holes it is the picture's own result.
    near = np.pad(place, 3)
    near = np.max([np.roll(near, (y, x), (0, 1)) for y in range(-3, 4) for x in range(-3, 4)], axis=0)
    far = ~nearest(near[3:-3, 3:-3], *result.shape[:2])
    expected = whole(grey, other, 0, white)
    if dtype != "float32":
        expected = np.clip(expected, lowest, highest)
    assert np.abs(result[far].astype(np.float64) - expected[far]).max() <= (
        5e-3 if dtype == "float32" else 2
    )
