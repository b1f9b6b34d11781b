"""Floats, signed integers and no-data from end to end, against the model run on the whole picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
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


def grown(place: np.ndarray, reach: int) -> np.ndarray:
    side = 2 * reach + 1
    return cv2.dilate(place.astype(np.uint8), np.ones((side, side))).astype(bool)


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
def test_bands_and_alpha(
    tmp_path: Path, x2_model: Path, five: Path, dtype: str, bands: int
) -> None:
    photograph = photograph_pixels(70, 90, 4).astype(np.float32) / 255
    photograph[..., 3] = np.maximum(photograph[..., 3], 0.1)  # nothing is transparent
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
    difference = np.abs(result[..., : seen.shape[2]] - expected)
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
    far = ~nearest(grown(place, 3), *result.shape[:2])
    expected = whole(grey, other, 0, white)
    if dtype != "float32":
        expected = np.clip(expected, lowest, highest)
    assert np.abs(result[far].astype(np.float64) - expected[far]).max() <= (
        5e-3 if dtype == "float32" else 2
    )


def test_a_picture_is_empty_where_all_colors_are(tmp_path: Path, x2_model: Path) -> None:
    pixels = np.maximum(photograph_pixels(80, 100), 1)
    pixels[:50, :40] = 0
    pixels[60:, 60:, 1] = 0  # no red is no hole
    source, output = write(tmp_path / "in.tif", pixels, "0"), tmp_path / "out.tif"
    srpipe.enhance(source, output, model=x2_model, **TILES)
    result = read(output)
    empty = (result == 0).all(axis=2)
    assert empty[:100, :80].all()
    assert empty.sum() == 100 * 80
    expected = np.floor(np.clip(whole(x2_model, pixels, 0, 255), 0, 255) + 0.5)
    assert np.abs(result - expected)[110:, 90:].max() <= 1
    # Valid black goes aside.
    black = np.zeros_like(pixels)
    black[30:] = 90
    black[70:] = (0, 0, 1)
    darker = elementwise_model(tmp_path / "darker.onnx", "Sub", 0.5)
    write(source, black, "0")
    srpipe.enhance(source, output, model=darker, **TILES)
    assert np.array_equal(np.unique(read(output)[:30]), [0])
    assert np.array_equal(np.unique(read(output)[30:]), [1])


def test_bands_of_data_are_empty_one_by_one(tmp_path: Path, five: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 9000, (70, 80, 5)).astype(np.uint16)
    place = rng.random((70, 80, 5)) < 0.2
    place[20:60, 20:60, 2] = True
    pixels[place] = 0
    source, output = write(tmp_path / "in.tif", pixels, "0"), tmp_path / "out.tif"
    srpipe.enhance(source, output, model=five, white=10_000, **TILES)
    assert np.array_equal(read(output) == 0, nearest(place, 140, 160))


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_nan_and_infinity_are_no_data(tmp_path: Path, x2_model: Path, bands: int) -> None:
    pixels = photograph_pixels(70, 90, bands).astype(np.float32) / 255
    pixels[5:20, 10:50] = np.nan
    pixels[30:33, 40, 0] = -np.inf
    pixels[50, 60:70, bands - 1] = np.nan
    pixels[60:65, 60:70] = -9999
    source, output = write(tmp_path / "in.tif", pixels, "-9999"), tmp_path / "out.tif"
    srpipe.enhance(source, output, model=x2_model, **TILES)
    result, at = read(output), nearest(pixels, 140, 180)
    where = ~np.isfinite(at) | (at == -9999)
    assert np.array_equal(result[where], at[where], equal_nan=True)
    assert np.isfinite(result[~where]).all()
    assert np.abs(result[~where]).max() < 2


def test_what_is_filled_in(tmp_path: Path, grey: Path) -> None:
    """Of one tile: the mean of the nearest, and beyond 16 pixels of all; computed one by one."""
    pixels, place = elevations(60, 70).astype(np.uint16), np.zeros((60, 70), bool)
    place[5:55, 10:60] = True
    pixels[place] = 0
    padded, empty = (np.pad(a, BORDER, mode="reflect") for a in (pixels[..., 0], place))
    filled = padded.astype(float)
    seen = ~empty
    for y, x in np.argwhere(empty):
        for r in (1, 2, 4, 8, 16, None):
            part = np.s_[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1] if r else np.s_[:]
            if seen[part].any():
                filled[y, x] = np.floor(padded[part][seen[part]].mean() + 0.5)
                break
    source, output = write(tmp_path / "in.tif", pixels, "0"), tmp_path / "out.tif"
    srpipe.enhance(
        source, output, model=grey, white=2550, tile_size=128, overlap=BORDER, edges="reflect"
    )
    session = ort.InferenceSession(str(grey), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": (filled[None, None] / 2550).astype(np.float32)})
    inside = expected[0, 0, 2 * BORDER : -2 * BORDER, 2 * BORDER : -2 * BORDER] * 2550
    valid = ~nearest(place, 120, 140)
    assert np.abs(read(output)[..., 0] - inside)[valid].max() <= 0.51


@pytest.mark.parametrize("outscale", [0.6, 1.0, 1.5, 2.7, 4.0])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_outscale(tmp_path: Path, grey: Path, dtype: str, outscale: float) -> None:
    pixels, place = (elevations() + 500).astype(dtype), holes()
    plain = tmp_path / "plain.tif"
    write(tmp_path / "in.tif", pixels)
    options = TILES | {"model": grey, "white": 3050, "outscale": outscale}
    srpipe.enhance(tmp_path / "in.tif", plain, **options)
    pixels[place] = 0
    source, output = write(tmp_path / "in.tif", pixels, "0"), tmp_path / "out.tif"
    srpipe.enhance(source, output, **options)
    result, expected = read(output).astype(float), read(plain).astype(float)
    at = nearest(place, *result.shape[:2])
    assert np.array_equal(result[..., 0] == 0, at)
    # No ringing: nothing valid is nearer to no-data than the least valid number.
    assert result[~at].min() > 400
    assert result[~at].max() < 3200
    far = ~nearest(grown(place, 8), *at.shape)
    assert far.any()
    assert np.abs(result - expected)[far].max() <= (1 if dtype == "uint16" else 0.01)


def test_regions_resumes_and_slabs_have_the_same_samples(
    tmp_path: Path, grey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, place = elevations(150, 130), holes(150, 130)
    pixels[place] = np.nan
    pixels[140:, 100:] = -9999
    source = write(tmp_path / "in.tif", pixels, "-9999")
    options = TILES | {"model": grey, "white": 2550}
    srpipe.enhance(source, tmp_path / "all.tif", **options)
    expected = read(tmp_path / "all.tif")
    srpipe.enhance(source, tmp_path / "part.tif", **options, region=(30, 20, 60, 70))
    assert np.array_equal(read(tmp_path / "part.tif"), expected[40:180, 60:180], equal_nan=True)
    for ending in (".tif", "-o.tif"):
        target = tmp_path / f"slabs{ending}"
        asked = options | ({} if ending == ".tif" else {"outscale": 1.5})
        for k in (1, 2):
            srpipe.enhance(source, target, **asked, slab=(k, 2))
        srpipe.assemble(target)
        if ending != ".tif":
            srpipe.enhance(source, tmp_path / "all-o.tif", **asked)
            expected = read(tmp_path / "all-o.tif")
        assert np.array_equal(read(target), expected, equal_nan=True)
        assert nodata_of(target) == "-9999"
    stop = srpipe.StopRequest()

    def stop_soon(event: srpipe.ProgressEvent) -> None:
        if event.tiles_done == 7:
            stop.request()

    target = tmp_path / "resumed.tif"
    with pytest.raises(srpipe.Interrupted):
        srpipe.enhance(source, target, **options, stop=stop, progress=stop_soon)
    report = srpipe.enhance(source, target, **options)
    assert report.resumed_tiles >= 7
    assert target.read_bytes() == (tmp_path / "all.tif").read_bytes()


def test_tiles_without_data_do_not_run(tmp_path: Path, x2_model: Path) -> None:
    pixels = photograph_pixels(150, 150)
    pixels[:100] = 255
    source, output = write(tmp_path / "in.tif", pixels, "255"), tmp_path / "out.tif"
    report = srpipe.enhance(source, output, model=x2_model, **TILES)
    assert report.skipped_tiles > 3
    assert (read(output)[:200] == 255).all()


def test_masks_and_background(tmp_path: Path, grey: Path) -> None:
    pixels, place = elevations(), holes()
    pixels[place] = np.nan
    source, output = write(tmp_path / "in.tif", pixels), tmp_path / "out.tif"
    mask = np.zeros((90, 110, 1), np.uint8)
    mask[:, 60:] = 255
    write_pixels(tmp_path / "mask.png", mask)
    options = TILES | {"model": grey, "white": 2550}
    srpipe.enhance(source, output, **options)
    expected = read(output)
    srpipe.enhance(source, output, **options, mask=tmp_path / "mask.png")
    result, at = read(output), nearest(place, 180, 220)
    assert np.array_equal(np.isnan(result[..., 0]), at)
    assert np.allclose(result[:, 160:], expected[:, 160:], atol=1e-3, equal_nan=True)
    assert np.nanmax(np.abs(result[:, :100] - expected[:, :100])) > 10
    assert np.nanmin(result) > -300
    assert np.nanmax(result) < 2900
    srpipe.enhance(source, output, **options, skip_background=True, background_levels=255)
    result = read(output)
    assert np.array_equal(np.isnan(result[..., 0]), at)
    assert np.nanmin(result) > -300
    assert np.nanmax(result) < 2900


@pytest.mark.parametrize(
    "ending", [".tif[tile,pyramid,tile_width=16,tile_height=16]", ".zarr[chunk=64]"]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_levels_do_not_mix_no_data_in(tmp_path: Path, grey: Path, dtype: str, ending: str) -> None:
    pixels = (elevations() / 20 + 100).astype(dtype)
    pixels[holes()] = 0
    source = write(tmp_path / "in.tif", pixels, "0")
    output = tmp_path / f"out{ending}"
    srpipe.enhance(source, output, model=grey, white=255, **TILES)
    if ending.startswith(".zarr"):
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(tmp_path / "out.zarr")
        levels = [group[name][:] for name in sorted(group.array_keys())]
        assert group["0"].fill_value == 0
    else:
        levels = [read(tmp_path / "out.tif", page) for page in range(3)]
    assert len(levels) > 2
    for level in levels:
        assert level.dtype == dtype
        assert set(np.unique(level < 90)) == {True, False}
        assert level[level != 0].min() > 90


def test_raw_pixels_say_what_they_are(tmp_path: Path, grey: Path) -> None:
    pixels = elevations()
    pixels[holes()] = -9999
    source, output = write(tmp_path / "in.tif", pixels, "-9999"), tmp_path / "out.raw"
    srpipe.enhance(source, output, model=grey, white=2550, **TILES)
    facts = json.loads((tmp_path / "out.raw.json").read_text())
    assert (facts["dtype"], facts["nodata"]) == ("float32", -9999)
    result = np.fromfile(output, np.float32).reshape(180, 220)
    srpipe.enhance(source, tmp_path / "out.tif", model=grey, white=2550, **TILES)
    assert np.array_equal(result, read(tmp_path / "out.tif")[..., 0])
    srpipe.enhance(source, tmp_path / "out.v", model=grey, white=2550, **TILES)
    assert np.array_equal(result, read_pixels(tmp_path / "out.v")[..., 0])


def test_alpha_of_floats_is_a_share(tmp_path: Path, x2_model: Path) -> None:
    pixels = photograph_pixels(60, 70, 4).astype(np.float32) * 10
    pixels[..., 3] = 0
    pixels[20:50, 20:60, 3] = 1
    source, output = write(tmp_path / "in.tif", pixels), tmp_path / "out.tif"
    options = TILES | {"model": x2_model, "black": -50, "white": 2550}
    srpipe.enhance(source, output, **options)
    alpha = read(output)[..., 3]
    assert (alpha.min(), alpha.max()) == (0, 1)
    srpipe.enhance(source, tmp_path / "out.png", **options, depth=8)
    assert np.abs(read_pixels(tmp_path / "out.png")[..., 3] - alpha * 255).max() <= 0.51


@pytest.mark.parametrize("outscale", [0.5, 1.0, 1.5])
def test_alpha_of_floats_stays_a_share_when_it_is_resized(
    tmp_path: Path, x2_model: Path, outscale: float
) -> None:
    pixels = np.dstack([photograph_pixels(60, 80) / 255, np.ones((60, 80))]).astype(np.float32)
    pixels[20:40, 30:50, 3] = 0
    source = write(tmp_path / "in.tif", pixels)
    srpipe.enhance(source, tmp_path / "o.tif", model=x2_model, outscale=outscale, **TILES)
    alpha = read(tmp_path / "o.tif")[..., 3]
    assert (alpha.min(), alpha.max()) == (0, 1)


@pytest.mark.parametrize("depth", [8, 16])
def test_floats_become_integers_where_asked_for(tmp_path: Path, grey: Path, depth: int) -> None:
    pixels, place = elevations() + 100, holes()
    highest = 2**depth - 1
    source = write(tmp_path / "in.tif", pixels)
    options = TILES | {"model": grey, "black": 100, "white": 2650, "depth": depth}
    srpipe.enhance(source, tmp_path / "out.png", **options)
    expected = np.clip((whole(grey, pixels, 100, 2650) - 100) / 2550, 0, 1) * highest
    assert np.abs(read_pixels(tmp_path / "out.png") - expected).max() <= 0.51
    pixels[place] = np.nan
    pixels[70:, 90:] = -9999
    place[70:, 90:] = True
    write(source, pixels, "-9999")
    srpipe.enhance(source, tmp_path / "out.tif", **options)
    assert np.array_equal(read(tmp_path / "out.tif")[..., 0] == 0, nearest(place, 180, 220))
    assert nodata_of(tmp_path / "out.tif") == "0"
    with pytest.raises(ReadError, match=r"NaN or infinity at .*--nodata"):
        srpipe.enhance(source, tmp_path / "out.tif", **options, nodata="none")
    write(source, np.full((9, 9, 1), 3, np.uint16), "65535")
    srpipe.enhance(source, tmp_path / "out.tif", model=grey, depth=8, overwrite=True)
    assert nodata_of(tmp_path / "out.tif") == "255"


def test_the_tag_is_not_believed(tmp_path: Path, x2_model: Path) -> None:
    pixels = photograph_pixels(40, 50)
    source, output = write(tmp_path / "in.tif", pixels, "-9999"), tmp_path / "out.tif"
    assert srpipe.read_image_info(source).nodata is None  # 8 bits do not hold it
    srpipe.enhance(source, output, model=x2_model, **TILES)
    assert nodata_of(output) == "-9999"
    plain = read(output)
    write(source, pixels, "90")
    assert srpipe.read_image_info(source).nodata == 90
    srpipe.enhance(source, output, model=x2_model, nodata="none", **TILES)
    assert nodata_of(output) is None
    assert np.array_equal(read(output), plain)
    with pytest.raises(SettingsError, match=r"--nodata 300 is not possible: .* holds 0 to 255"):
        srpipe.enhance(source, output, model=x2_model, nodata=300, **TILES)


def test_half_floats_are_read_as_floats(tmp_path: Path, grey: Path) -> None:
    pixels = (elevations() / 2550).astype(np.float16)
    source, output = write(tmp_path / "in.tif", pixels), tmp_path / "out.tif"
    srpipe.enhance(source, output, model=grey, **TILES)
    assert read(output).dtype == np.float32
    np.testing.assert_allclose(read(output), whole(grey, pixels, 0, 1), atol=3e-6)


def test_what_is_refused(tmp_path: Path, x2_model: Path, grey: Path) -> None:
    source = write(tmp_path / "in.tif", elevations())
    for ending in (".png", ".jpg", ".webp", ".dzi"):
        with pytest.raises(OutputError, match=r"float numbers, .* as .tif, .*--depth 8"):
            srpipe.enhance(source, tmp_path / f"out{ending}", model=grey)
    write(source, elevations().astype(np.int16))
    with pytest.raises(OutputError, match="signed numbers of 16 bits"):
        srpipe.enhance(source, tmp_path / "out.png", model=grey)
    with pytest.raises(SettingsError, match="--white 40000 is not possible"):
        srpipe.enhance(source, tmp_path / "out.tif", model=grey, white=40000)
    with pytest.raises(SettingsError, match="white must be the larger"):
        srpipe.enhance(source, tmp_path / "out.tif", model=grey, white=5, black=6)
    write(source, photograph_pixels(40, 40), "0")
    with pytest.raises(OutputError, match="would not keep 0, which means no data"):
        srpipe.enhance(source, f"{tmp_path}/out.tif[compression=jpeg]", model=x2_model)
    write(source, elevations().astype(np.float64))
    with pytest.raises(InputError, match=r"float64.*float32"):
        srpipe.enhance(source, tmp_path / "out.tif", model=grey)
    image = pyvips.Image.new_from_array(photograph_pixels(20, 20).astype(np.float32) / 255)
    image.copy(interpretation="xyz").tiffsave(str(source))
    with pytest.raises(InputError, match=r"color space|colour space xyz, which is not RGB"):
        srpipe.enhance(source, tmp_path / "out.tif", model=x2_model)


def test_results_that_are_no_numbers_are_errors(tmp_path: Path) -> None:
    model = elementwise_model(tmp_path / "log.onnx", "Log")
    source = write(tmp_path / "in.tif", photograph_pixels(40, 40).astype(np.float32) - 100)
    with pytest.raises(InferenceError, match="gave NaN or infinity"):
        srpipe.enhance(source, tmp_path / "out.tif", model=model, white=100)


@pytest.mark.parametrize("tiles", [{}, {"tile": (32, 48), "compression": "deflate"}])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_gdals_internal_mask(
    tmp_path: Path, grey: Path, dtype: str, tiles: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    pixels = (elevations() / 20 + 100).astype(dtype)
    place = holes()
    with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
        tiff.write(
            np.where(place, 0, pixels[..., 0]).astype(dtype), photometric="minisblack", **tiles
        )
        tiff.write(~place, photometric=4, subfiletype=4, **tiles)
    options = TILES | {"model": grey, "black": 0, "white": 255}
    said = {} if dtype == "float32" else {"nodata": 7}
    source, output = tmp_path / "in.tif", tmp_path / "out.tif"
    srpipe.enhance(source, output, **options, **said)
    assert "what it masks becomes " + ("NaN" if dtype == "float32" else "7") in caplog.text
    result = read(output)
    plain = pixels.copy()
    plain[place] = np.nan if dtype == "float32" else 7
    write(tmp_path / "plain.tif", plain, None if dtype == "float32" else "7")
    srpipe.enhance(tmp_path / "plain.tif", output, **options)
    assert np.array_equal(result, read(output), equal_nan=True)
    empty = np.isnan(result) if dtype == "float32" else result == 7
    assert np.array_equal(empty[..., 0], nearest(place, 180, 220))
    caplog.clear()
    srpipe.enhance(source, output, **options, nodata="none")
    assert "which is left out" in caplog.text
    assert np.isfinite(read(output)).all()


def test_no_data_of_a_file_in_which_white_is_zero(tmp_path: Path, grey: Path) -> None:
    pixels = np.maximum(elevations() / 10, 1).astype(np.uint8)
    place = holes()
    pixels[place] = 0
    source = write(tmp_path / "in.tif", pixels, "0", photometric="miniswhite")
    output = tmp_path / "out.tif"
    srpipe.enhance(source, output, model=grey, **TILES)
    # It is written with black as zero.
    assert nodata_of(output) == "255"
    assert np.array_equal(read(output)[..., 0] == 255, nearest(place, 180, 220))


def test_a_forecast_speaks_of_no_sample(
    tmp_path: Path, grey: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "in.tif", elevations())
    report = srpipe.estimate(source, tmp_path / "out.tif", model=grey, sample_s=0.1)
    assert report.output_bytes > 0
    assert not caplog.messages
