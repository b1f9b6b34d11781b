"""Every kind of model people have, on real files, from end to end, against the naive oracle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import srpipe
from srpipe.api import prepare
from srpipe.cli.main import main
from srpipe.io.model_probe import probe_model
from srpipe.settings import Settings, parse_value_range
from tests import naive
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.ecosystem_models import (
    channel_attention_model,
    in_bgr,
    in_other_numbers,
    window_attention_model,
    with_baked_batch,
)
from tests.onnx_models import conv_model, elementwise_model
from tests.processes import run_srpipe
from tests.tiff_files import write_band_tiff


def enhanced(source: Path, model: Path, suffix: str = ".v", **options: Any) -> np.ndarray:
    output = source.with_name(f"out{suffix}")
    srpipe.enhance(source, output, model=model, overwrite=True, **options)
    return read_pixels(output)


@pytest.fixture(scope="module")
def plain(model_folder: Path) -> Path:
    """What every kind of model below computes, in its own way."""
    return conv_model(model_folder / "plain.onnx")


@pytest.fixture(scope="module")
def whole(plain: Path) -> np.ndarray:
    """The crop that all of them get, through the plain model at once."""
    result = naive.model_output(str(plain), photograph_pixels(300, 420))
    return naive.to_integers(result, np.dtype(np.uint8))


@pytest.fixture
def crop(tmp_path: Path) -> Path:
    """420x300 RGB."""
    return write_pixels(tmp_path / "crop.png", photograph_pixels(300, 420))


@pytest.mark.parametrize(
    ("dims", "worst"),
    [
        ({"batch": 1, "height": 256, "width": 256}, 1),
        ({"batch": 1, "height": 256, "width": 256, "layout": "NHWC"}, 1),
        ({"layout": "NHWC"}, 1),
        ({"dtype": "float16"}, 2),
        ({"batch": 4, "height": 128, "width": 192, "layout": "NHWC", "dtype": "float16"}, 2),
    ],
    ids=str,
)
def test_fixed_sizes_layouts_and_types(
    crop: Path, whole: np.ndarray, dims: dict[str, Any], worst: int
) -> None:
    model = conv_model(crop.with_name("m.onnx"), **dims)
    result = enhanced(crop, model)
    assert np.abs(result.astype(int) - whole).max() <= worst


def test_batch_baked_into_a_reshape(crop: Path, whole: np.ndarray, plain: Path) -> None:
    model = with_baked_batch(plain, crop.with_name("m.onnx"))
    assert probe_model(model).batch == 1
    result = enhanced(crop, model, tile_size=128)
    assert np.abs(result.astype(int) - whole).max() <= 1
    with pytest.raises(srpipe.SettingsError, match="takes only batches of 1"):
        enhanced(crop, model, batch_size=4)


@pytest.mark.parametrize("numbers", ["0,255", "255", "-1,1", "-0.5,0.5"])
@pytest.mark.parametrize("by", ["metadata", "setting"])
def test_value_range_of_a_model(
    crop: Path, whole: np.ndarray, plain: Path, numbers: str, by: str
) -> None:
    value_range = parse_value_range(numbers)
    model = in_other_numbers(plain, crop.with_name("m.onnx"), value_range)
    if by == "metadata":
        _tell(model, value_range=numbers)
    result = enhanced(crop, model, value_range=value_range if by == "setting" else None)
    assert np.abs(result.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("by", ["metadata", "setting"])
def test_channel_order(crop: Path, whole: np.ndarray, plain: Path, by: str) -> None:
    model = in_bgr(plain, crop.with_name("m.onnx"))
    assert np.abs(enhanced(crop, model).astype(int) - whole).max() > 1
    if by == "metadata":
        _tell(model, color_order="bgr")
    result = enhanced(crop, model, channel_order="bgr" if by == "setting" else "auto")
    assert np.abs(result.astype(int) - whole).max() <= 1


def test_metadata_can_be_overruled(crop: Path, whole: np.ndarray, plain: Path) -> None:
    model = in_bgr(plain, crop.with_name("m.onnx"))
    model = in_other_numbers(model, model, (-1, 1))
    _tell(model, value_range="255", color_order="rgb")
    result = enhanced(crop, model, value_range=(-1, 1), channel_order="bgr")
    assert np.abs(result.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("value_range", [(0, 255), (-1, 1)])
def test_luma_only(tmp_path: Path, bands: int, value_range: tuple[float, float]) -> None:
    """Chroma and alpha are what they are without a range, and what the model makes of luma too."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(70, 90, bands))
    plain = conv_model(tmp_path / "plain.onnx", channels=1)
    model = in_other_numbers(plain, tmp_path / "m.onnx", value_range)
    expected = enhanced(source, plain, tile_size=64).astype(int)
    result = enhanced(source, model, tile_size=64, value_range=value_range)
    assert result.shape == (140, 180, bands)
    assert np.abs(result - expected).max() <= 1


def reflectance(height: int, width: int, bands: int) -> np.ndarray:
    """A satellite's bands: 0 to 10000, and clouds beyond that."""
    grey = photograph_pixels(height, width, 1).astype(np.uint16)
    values = np.concatenate([(grey * (30 + 3 * i) + 100 * i) for i in range(bands)], axis=2)
    values[5:20, 5:30] = 10_000
    values[30:40, 40:60] = 16_000
    values[50:52, 50:60] = 65_535
    return values


@pytest.mark.parametrize(
    ("bands", "layout", "value_range", "suffix"),
    [
        (2, "NCHW", (0, 1), ".tif"),
        (4, "NCHW", (0, 1), ".tif"),
        (4, "NHWC", (-1, 1), ".tif"),
        (4, "NCHW", (0, 255), ".v"),
        (12, "NHWC", (0, 10_000), ".tif"),
    ],
)
def test_a_satellites_bands_are_kept_to_the_last_bit(
    tmp_path: Path, bands: int, layout: str, value_range: tuple[float, float], suffix: str
) -> None:
    pixels = reflectance(100, 130, bands)
    source = write_band_tiff(tmp_path / "in.tif", pixels)
    model = _identity(tmp_path / "m.onnx", bands, layout)
    result = enhanced(
        source, model, suffix, tile_size=64, overlap=16, white=10_000, value_range=value_range
    )
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_four_bands_that_are_no_alpha(tmp_path: Path, engine: Any) -> None:
    pixels = reflectance(150, 170, 4)
    source = write_band_tiff(tmp_path / "s2.tif", pixels)
    told = {"pixel_white": "10000"}
    model = conv_model(tmp_path / "m.onnx", channels=4, metadata=told)
    whole = naive.model_output(str(model), pixels, white=10_000)
    expected = naive.to_integers(whole, pixels.dtype, white=10_000)
    result = enhanced(source, model, ".tif", tile_size=64, overlap=12, engine=engine)
    assert np.abs(result.astype(int) - expected).max() <= 1
    assert result[0, 0].max() < 10_000 < result.max()
    # What was written is what was read: four bands of data, which the same model takes again.
    again = srpipe.read_image_info(tmp_path / "out.tif")
    assert (again.bands, again.dtype, again.kind) == (4, "uint16", "data, no alpha")


def test_white_is_one_in_the_models_numbers(tmp_path: Path) -> None:
    pixels = reflectance(60, 70, 3)
    source = write_band_tiff(tmp_path / "s2.tif", pixels)
    model = elementwise_model(tmp_path / "m.onnx", "Min", 1.0)
    np.testing.assert_array_equal(enhanced(source, model, white=10_000), pixels.clip(0, 10_000))
    np.testing.assert_array_equal(enhanced(source, model), pixels)


def test_a_model_of_four_channels_sees_alpha_as_a_channel(tmp_path: Path) -> None:
    pixels = photograph_pixels(90, 80, 4)
    source = write_pixels(tmp_path / "rgba.png", pixels)
    model = conv_model(tmp_path / "m.onnx", channels=4)
    expected = naive.to_integers(naive.model_output(str(model), pixels), pixels.dtype)
    result = enhanced(source, model, ".png", tile_size=64)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_bands_and_channels_that_do_not_fit(tmp_path: Path, plain: Path) -> None:
    source = write_band_tiff(tmp_path / "s2.tif", reflectance(60, 70, 4))
    with pytest.raises(srpipe.InputError, match=r"4 bands \(data, no alpha\).*model plain of 3 ch"):
        enhanced(source, plain)
    model = _identity(tmp_path / "five.onnx", 5, "NCHW")
    with pytest.raises(srpipe.InputError, match="takes only 5 bands"):
        enhanced(source, model)
    four = _identity(tmp_path / "four.onnx", 4, "NCHW")
    with pytest.raises(srpipe.OutputError, match=r"PNG holds only grey or RGB: .*\.tif"):
        enhanced(source, four, ".png")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".onnx", ".onnx", ".tif"]


def test_window_attention_is_exact_on_its_lattice(tmp_path: Path) -> None:
    pixels = photograph_pixels(320, 448)
    source = write_pixels(tmp_path / "in.tif", pixels)
    model = window_attention_model(tmp_path / "m.onnx")
    whole = naive.to_integers(naive.model_output(str(model), pixels), pixels.dtype).astype(int)
    sizes = {"tile_size": 256, "overlap": 96}  # rounded up to the lattice: 128
    # An edge of a tile spoils the windows at it, and no more: told so, srpipe leaves them out.
    _tell(model, receptive_radius_px="64")
    plan = prepare(str(source), str(tmp_path / "o.v"), Settings(model=str(model), **sizes))
    assert plan.model.multiple_px == 64
    assert all(start % 64 == 0 for start in (*plan.grid.x.starts_px, *plan.grid.y.starts_px))
    assert plan.grid.n_tiles > 1
    assert np.abs(enhanced(source, model, **sizes) - whole).max() <= 1
    # The same pixels off the lattice come out otherwise, everywhere.
    off = naive.model_output(str(model), pixels[:, 32 : 32 + 384])
    off = naive.to_integers(off, pixels.dtype).astype(int)
    assert np.abs(off - whole[:, 32 : 32 + 384])[64:-64, 64:-64].mean() > 1


def test_global_pooling_changes_with_the_tile(tmp_path: Path) -> None:
    """Channel attention weighs by means over the tile: no overlap makes tiles equal the whole."""
    pixels = photograph_pixels(300, 420)
    source = write_pixels(tmp_path / "in.tif", pixels)
    model = channel_attention_model(tmp_path / "m.onnx")
    assert probe_model(model).radius_px is None
    whole = naive.to_integers(naive.model_output(str(model), pixels, edge_px=0), pixels.dtype)
    whole = whole.astype(int)
    one_tile = enhanced(source, model, tile_size=448, edges="none")
    assert np.abs(one_tile - whole).max() <= 1
    error = {
        tile_size: np.abs(
            enhanced(source, model, tile_size=tile_size, overlap=32, edges="none") - whole
        )
        for tile_size in (128, 256)
    }
    assert 0.5 < error[256].mean() < error[128].mean() < 4
    assert error[128].max() < 48


def test_a_blend_softens_the_seams_of_global_pooling(tmp_path: Path) -> None:
    """The jump from one pixel to the next, where a hard cut is, against the same place blended."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(256, 448))
    model = channel_attention_model(tmp_path / "m.onnx")
    settings = Settings(model=str(model), tile_size=256, edges="none")
    plan = prepare(str(source), str(tmp_path / "o.v"), settings)
    assert plan.grid.x.n_tiles == 2
    middle = (plan.grid.x.starts_px[1] + plan.grid.tile.width) // 2
    jumps = {}
    for blend in ("crop", "feather"):
        result = enhanced(source, model, tile_size=256, blend=blend, edges="none").astype(int)
        jumps[blend] = np.abs(result[:, middle] - result[:, middle - 1]).mean()
    whole = naive.model_output(str(model), read_pixels(source), edge_px=0) * 255
    natural = np.abs(whole[:, middle] - whole[:, middle - 1]).mean()
    assert jumps["feather"] - natural < 0.5 * (jumps["crop"] - natural)


def test_command_line(tmp_path: Path, plain: Path) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(60, 80))
    model = in_other_numbers(in_bgr(plain, tmp_path / "m.onnx"), tmp_path / "m.onnx", (-1, 1))
    output = tmp_path / "o.v"
    arguments = ["enhance", source, output, "-m", model, "--white", "250", "--channel-order", "bgr"]
    done = run_srpipe(*arguments, "--range", "-1,1")
    assert done.returncode == 0, done.stderr
    model_range = {"value_range": (-1, 1), "white": 250, "channel_order": "bgr"}
    np.testing.assert_array_equal(read_pixels(output), enhanced(source, model, **model_range))


def test_a_range_turned_round_is_one_line(
    tmp_path: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(60, 80))
    request = ["enhance", str(source), str(tmp_path / "o.v"), "-m", str(plain)]
    for numbers in ("1,-1", "-1", "-1,-2,-3"):
        assert main([*request, "--range", numbers]) == 2
        said = capsys.readouterr().err
        assert said.startswith("srpipe: value range ")
        assert len(said.splitlines()) == 1


def test_inspect_says_what_bands_and_channels_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def inspected(*arguments: object) -> str:
        assert main(["inspect", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    image = write_band_tiff(tmp_path / "s2.tif", reflectance(60, 70, 4))
    assert "4 (data, no alpha, grey16)" in inspected(image)
    model = _identity(tmp_path / "four.onnx", 4, "NCHW")
    _tell(model, value_range="-1,1", pixel_white="10000")
    assert "4 (bands as they are, -1 to 1, white at 10000)" in inspected(model)
    facts = json.loads(inspected(model, "--json"))
    assert (facts["channels"], facts["value_range"], facts["white"]) == (4, [-1.0, 1.0], 10_000)


def test_a_plan_survives_json(tmp_path: Path) -> None:
    source = write_band_tiff(tmp_path / "s2.tif", reflectance(60, 70, 4))
    model = _identity(tmp_path / "four.onnx", 4, "NCHW")
    settings = Settings(model=str(model), white=10_000, value_range=(-1, 1))
    plan = asdict(prepare(str(source), str(tmp_path / "o.tif"), settings))
    assert json.loads(json.dumps(plan, default=list))["model"]["value_range"] == [-1, 1]


def _identity(path: Path, channels: int, layout: str) -> Path:
    """A model that changes nothing."""
    conv_model(path, scale=1, channels=channels, layers=1, layout=layout)
    model = onnx.load(path)
    for weights in model.graph.initializer:
        if weights.name in ("w0", "b0"):
            zeros = np.zeros(list(weights.dims), np.float32)
            weights.CopyFrom(onnx.numpy_helper.from_array(zeros, weights.name))
    onnx.save(model, path)
    return path


def _tell(path: Path, **metadata: str) -> None:
    """Set the file's key-value pairs."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
