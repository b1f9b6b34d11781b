"""Tiles of the same pixels are computed once, and the output is the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import srpipe
from srpipe.settings import Engine
from tests.conftest import photograph_pixels, write_pixels
from tests.nets_of_companions import companion_model
from tests.onnx_models import conv_model, elementwise_model
from tests.test_resume import StopAt


def page(height: int, width: int, bands: int = 3, dtype: str = "uint8") -> np.ndarray:
    """White, with a photograph and lines as of text on it; its border is white."""
    white = np.iinfo(dtype).max
    pixels = np.full((height, width, bands), white, dtype)
    pixels[70:190, 90:250] = photograph_pixels(120, 160, bands, dtype)
    for top in range(260, 330, 7):
        pixels[top : top + 3, 100 : 200 + 11 * (top % 5)] = white // 8
    return pixels


def texture(height: int, width: int, period_px: int) -> np.ndarray:
    """A photograph's corner, repeated."""
    cell = photograph_pixels(period_px, period_px)
    times = (-(-height // period_px), -(-width // period_px), 1)
    return np.tile(cell, times)[:height, :width]


def both(source: Path, model: Path, **options: Any) -> tuple[srpipe.Report, bytes]:
    """Enhance with and without reuse; the outputs must be the same."""
    output = source.parent / "out.v"
    options = {"tile_size": 48, "overlap": 8, "overwrite": True, "model": model} | options
    plain = srpipe.enhance(source, output, reuse=False, **options)
    expected = output.read_bytes()
    report = srpipe.enhance(source, output, **options)
    assert output.read_bytes() == expected
    assert plain.reused_tiles == 0
    assert plain.tiles == report.tiles
    return report, expected


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_background_is_computed_once(tmp_path: Path, x2_model: Path, batch_size: int) -> None:
    source, output = write_pixels(tmp_path / "page.tif", page(400, 500)), tmp_path / "local.v"
    report, expected = both(source, x2_model, batch_size=batch_size, engine="serial")
    assert report.reused_tiles > 0.4 * report.tiles
    report = srpipe.enhance(
        source, output, model=x2_model, tile_size=48, overlap=8, batch_size=batch_size, workers=2
    )
    assert report.engine == "local"
    assert report.reused_tiles > 0.4 * report.tiles
    assert output.read_bytes() == expected


def test_an_even_image_takes_one_tile(tmp_path: Path, x2_model: Path) -> None:
    """The tiles at the border are padded: they are the same too, whatever the size."""
    source = write_pixels(tmp_path / "white.tif", np.full((301, 205, 3), 200, np.uint8))
    report, _ = both(source, x2_model, engine="serial")
    assert report.reused_tiles == report.tiles - 1


def test_a_texture_whose_period_divides_the_stride(tmp_path: Path, x2_model: Path) -> None:
    source = write_pixels(tmp_path / "texture.tif", texture(408, 408, 20))
    report, _ = both(source, x2_model, engine="serial", tile_size=48, overlap=8, edges="none")
    assert (report.stride.width, report.stride.height) == (40, 40)
    assert report.reused_tiles == report.tiles - 1


def test_a_photograph_has_no_tile_twice(tmp_path: Path, x2_model: Path, photograph: Path) -> None:
    report, _ = both(photograph, x2_model, engine="serial")
    assert report.reused_tiles == 0


@pytest.mark.parametrize(("engine", "bands", "dtype"), [
    ("serial", 1, "uint8"), ("serial", 2, "uint16"), ("serial", 3, "uint16"),
    ("serial", 4, "uint8"), ("local", 4, "uint16"),
])  # fmt: skip
def test_bands_and_depths(
    tmp_path: Path, x2_model: Path, engine: Engine, bands: int, dtype: str
) -> None:
    source = write_pixels(tmp_path / "page.tif", page(360, 300, bands, dtype))
    report, _ = both(source, x2_model, engine=engine, batch_size=3, workers=1)
    assert report.reused_tiles > 0.2 * report.tiles


def test_chroma_beside_a_model_of_one_channel(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "page.tif", page(360, 300))
    model = conv_model(tmp_path / "grey.onnx", channels=1)
    report, _ = both(source, model, engine="serial", batch_size=3)
    assert report.reused_tiles > 0.2 * report.tiles


def test_alpha_that_differs_makes_tiles_differ(tmp_path: Path, x2_model: Path) -> None:
    pixels = np.full((200, 200, 4), 255, np.uint8)
    pixels[..., 3] = photograph_pixels(200, 200, 1)[..., 0]
    source = write_pixels(tmp_path / "page.tif", pixels)
    report, _ = both(source, x2_model, engine="serial")
    assert report.reused_tiles == 0


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_whose_results_depend_on_companions(tmp_path: Path, batch_size: int) -> None:
    source = write_pixels(tmp_path / "page.tif", page(400, 300))
    model = companion_model(tmp_path / "companions.onnx")
    assert not srpipe.probe_model(model).batch_exact
    report, _ = both(source, model, engine="serial", batch_size=batch_size)
    assert (report.reused_tiles > 0) == (batch_size == 1)


@pytest.mark.parametrize(("engine", "batch_size"), [("serial", 1), ("serial", 3), ("local", 2)])
def test_resuming_gives_the_same_file(
    tmp_path: Path, x2_model: Path, engine: Engine, batch_size: int
) -> None:
    source = write_pixels(tmp_path / "page.tif", page(400, 500))
    options: dict[str, Any] = {"engine": engine, "batch_size": batch_size, "workers": 1}
    _, expected = both(source, x2_model, **options)
    output = tmp_path / "out.v"
    output.unlink()
    for reuse, times, at in ((True, 1, 20), (False, 2, 55), (True, 2, 90)):
        watch = StopAt(at, times)
        with pytest.raises(srpipe.Interrupted):
            srpipe.enhance(
                source, output, model=x2_model, tile_size=48, overlap=8, reuse=reuse,
                progress=watch, stop=watch.stop, checkpoint_every_s=0, **options,
            )  # fmt: skip
    watch = StopAt(10_000)
    report = srpipe.enhance(
        source, output, model=x2_model, tile_size=48, overlap=8, progress=watch, **options
    )
    assert watch.first_tile >= 50
    assert report.resumed_tiles == watch.first_tile
    assert output.read_bytes() == expected


def test_filled_tiles_repeat_too(tmp_path: Path, x2_model: Path) -> None:
    """What libvips makes of a file that breaks off is the model's input like any other."""
    source = write_pixels(tmp_path / "cut.png", page(400, 300))
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    report, _ = both(source, x2_model, engine="serial", on_error="fill")
    assert report.filled
    assert report.reused_tiles > 0


def test_a_broken_result_names_the_first_tile_that_has_it(tmp_path: Path) -> None:
    pixels = page(200, 300)
    pixels[:, 260:] = 0  # its logarithm is infinite
    source = write_pixels(tmp_path / "page.tif", pixels)
    model = elementwise_model(tmp_path / "log.onnx", "Log")
    messages = []
    for reuse in (True, False):
        with pytest.raises(srpipe.InferenceError, match="of tile 6") as caught:
            srpipe.enhance(
                source, tmp_path / "out.tif", model=model, tile_size=48, overlap=8, reuse=reuse,
                engine="serial", fresh=True,
            )  # fmt: skip
        messages.append(str(caught.value).partition(":")[0])
    assert messages[0] == messages[1]


def test_the_command_says_how_many_repeat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from srpipe.progress import summary

    source = write_pixels(tmp_path / "white.tif", np.full((100, 300, 3), 255, np.uint8))
    report = srpipe.enhance(
        source, tmp_path / "o.v", model=conv_model(tmp_path / "m.onnx"), tile_size=64, overlap=4
    )
    assert f"{report.reused_tiles} of them repeated" in summary(report)
