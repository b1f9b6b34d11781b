"""What the model sees beyond the border: textures stay tileable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import srpipe
from srpipe.models.zoo import bundled_models
from srpipe.prepare import prepare
from srpipe.settings import Edges, Engine, Settings
from tests import naive
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import conv_model, save
from tests.plan.test_frame import CONTINUED
from tests.test_resume import StopAt


def enhanced(source: Path, output: Path, model: Path, **options: Any) -> np.ndarray:
    options = {"tile_size": 48, "overlap": 12} | options
    srpipe.enhance(source, output, model=model, overwrite=True, **options)
    return read_pixels(output)


def whole(model: Path, pixels: np.ndarray) -> np.ndarray:
    """Bare ONNX Runtime on the whole picture as it is."""
    return naive.to_integers(naive.model_output(str(model), pixels, edge_px=0), pixels.dtype)


def texture(height: int, width: int) -> np.ndarray:
    """Noise smoothed around the border: it has no seam when it is tiled."""
    noise = np.random.default_rng(3).normal(size=(height, width, 3))
    for axis in (0, 1):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4))
    return (128 + 4 * noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Six pixels of radius: its own padding shows at the border."""
    return conv_model(tmp_path / "m.onnx", layers=6)


@pytest.mark.parametrize("edges", CONTINUED)
def test_the_result_is_that_of_the_image_continued(
    tmp_path: Path, model: Path, edges: Edges
) -> None:
    pixels = photograph_pixels(130, 170)
    source = write_pixels(tmp_path / "in.tif", pixels)
    found = enhanced(source, tmp_path / "out.v", model, edges=edges)
    mode: Any = {"replicate": "edge"}.get(edges, edges)
    padded = np.pad(pixels, [(12, 12), (12, 12), (0, 0)], mode=mode)
    expected = whole(model, padded)[24:-24, 24:-24]
    assert np.abs(found.astype(int) - expected).max() <= 1
    alone = enhanced(source, tmp_path / "alone.v", model, edges="none")
    assert np.abs(alone.astype(int) - whole(model, pixels)).max() <= 1
    assert np.abs(alone.astype(int) - expected).max() > 1


@pytest.mark.parametrize(("value", "dtype"), [(230, "uint8"), (0, "uint8"), (0, "uint16")])
@pytest.mark.parametrize("name", ["six layers", *sorted(bundled_models())])
def test_what_is_flat_stays_flat_up_to_the_border(
    tmp_path: Path, model: Path, name: str, value: int, dtype: str
) -> None:
    """As flat as the model leaves it in the middle of a large picture."""
    path = bundled_models().get(name, model)
    info = srpipe.probe_model(path)
    pixels = np.full((90, 130, 3), value, dtype)
    source = write_pixels(tmp_path / "flat.tif", pixels)
    found = enhanced(source, tmp_path / "out.v", path, tile_size=None, overlap=None)
    middle = naive.model_output(str(path), pixels)[: 8 * info.scale, : 8 * info.scale]
    levels = naive.to_integers(middle, found.dtype).astype(int)
    slack = 1 if dtype == "uint8" else 8
    assert found.min() >= levels.min() - slack
    assert found.max() <= levels.max() + slack


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (1, 40), (13, 2), (5, 5)])
@pytest.mark.parametrize(
    "kind", [{"layers": 6}, {"multiple": 16}, {"height": 64, "width": 64}], ids=str
)
def test_images_smaller_than_the_margin(
    tmp_path: Path, height: int, width: int, kind: dict[str, Any]
) -> None:
    model = conv_model(tmp_path / "m.onnx", **kind)
    pixels = photograph_pixels(height, width)
    source = write_pixels(tmp_path / "in.png", pixels)
    found = enhanced(source, tmp_path / "out.v", model, tile_size=None, overlap=None)
    free = conv_model(tmp_path / "free.onnx", layers=kind.get("layers", 2))
    any_size = model if "multiple" in kind else free
    expected = naive.to_integers(naive.model_output(str(any_size), pixels), pixels.dtype)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_part_sees_the_real_pixels_around_it(tmp_path: Path, model: Path) -> None:
    pixels = photograph_pixels(120, 150)
    source = write_pixels(tmp_path / "in.png", pixels)
    padded = np.pad(pixels, [(12, 12), (12, 12), (0, 0)], mode="reflect")
    expected = whole(model, padded)[24:-24, 24:-24]
    for left, top, width, height in ((0, 0, 20, 20), (40, 30, 50, 60), (100, 70, 50, 50)):
        region = (left, top, width, height)
        found = enhanced(source, tmp_path / "part.v", model, region=region)
        part = expected[2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
        assert np.abs(found.astype(int) - part).max() <= 1


def test_the_margin_is_as_small_as_may_be(tmp_path: Path, model: Path) -> None:
    source = write_pixels(tmp_path / "in.png", photograph_pixels(256, 256))
    plan = prepare(str(source), str(tmp_path / "o.v"), Settings(model=str(model)))
    assert plan.frame.margin.width == plan.model.halo_px == 6
    assert (plan.grid.n_tiles, plan.grid.tile.width) == (1, 268)
    assert plan.redundancy < 0.1
    asked = Settings(model=str(model), tile_size=256)
    plan = prepare(str(source), str(tmp_path / "o.v"), asked)
    assert plan.grid.tile.width <= 256  # never larger than it was asked for


@pytest.mark.parametrize("tile_size", [None, 64, 96])
def test_the_last_tile_is_filled_up_by_mirroring(tmp_path: Path, tile_size: int | None) -> None:
    """A model of blocks of eight pixels, which sees nothing beyond them."""
    scales = numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "scales")
    pool = helper.make_node("MaxPool", ["input"], ["blocks"], kernel_shape=[8, 8], strides=[8, 8])
    enlarge = helper.make_node("Resize", ["blocks", "", "scales"], ["output"], mode="nearest")
    blocks = save(tmp_path / "blocks.onnx", [pool, enlarge], [scales], ["n", 3, "h", "w"])
    pixels = photograph_pixels(150, 201)
    source = write_pixels(tmp_path / "in.png", pixels)
    srpipe.enhance(source, tmp_path / "o.v", model=blocks, tile_size=tile_size)
    filled = np.pad(pixels, ((0, 2), (0, 7), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(read_pixels(tmp_path / "o.v"), whole(blocks, filled)[:150, :201])


def test_a_texture_stays_tileable(tmp_path: Path, model: Path) -> None:
    pixels = texture(120, 150)
    source = write_pixels(tmp_path / "in.tif", pixels)
    rolled = write_pixels(tmp_path / "rolled.tif", np.roll(pixels, (60, 75), (0, 1)))
    found = enhanced(source, tmp_path / "out.v", model, edges="wrap")
    turned = enhanced(rolled, tmp_path / "turned.v", model, edges="wrap")
    difference = np.roll(found, (120, 150), (0, 1)).astype(int) - turned
    assert np.abs(difference).max() <= 1

    def steps(result: np.ndarray, axis: int) -> np.ndarray:
        """Mean step from each line to the next, the last one's to the first."""
        across = np.abs(np.roll(result, -1, axis).astype(float) - result)
        return across.mean(axis=(1 - axis, 2))

    for axis in (0, 1):
        inside = steps(found, axis)[1:-1:2]  # the steps between input pixels, as at the border
        assert inside.min() <= steps(found, axis)[-1] <= inside.max()


@pytest.mark.parametrize("engine", ["threads", "local"])
def test_engines_and_resume_agree(tmp_path: Path, model: Path, engine: Engine) -> None:
    source = write_pixels(tmp_path / "in.png", photograph_pixels(200, 150))
    expected = enhanced(source, tmp_path / "serial.v", model, edges="wrap", engine="serial")
    watch = StopAt(11)
    output = tmp_path / "out.v"
    with pytest.raises(srpipe.Interrupted):
        enhanced(
            source, output, model, edges="wrap", engine=engine, progress=watch, stop=watch.stop,
            checkpoint_every_s=0,
        )  # fmt: skip
    with pytest.raises(srpipe.JobError, match=r"edges: wrap, margin \dx\d, now reflect, margin"):
        enhanced(source, output, model, edges="reflect", engine=engine)
    found = enhanced(source, output, model, edges="wrap", engine=engine)
    np.testing.assert_array_equal(found, expected)


def test_a_model_with_a_lattice_and_a_fixed_size(tmp_path: Path) -> None:
    """The margin is a whole number of a lattice's blocks."""
    source = write_pixels(tmp_path / "in.tif", texture(96, 96))
    rolled = write_pixels(tmp_path / "rolled.tif", np.roll(texture(96, 96), (48, 48), (0, 1)))
    kinds: dict[str, dict[str, Any]] = {
        "lattice": {"multiple": 4, "layers": 1},
        "fixed": {"height": 64, "width": 64},
    }
    for name, kind in kinds.items():
        model = conv_model(tmp_path / f"{name}.onnx", **kind)
        found = enhanced(
            source, tmp_path / f"{name}.v", model, edges="wrap", tile_size=64, overlap=30
        )
        turned = enhanced(
            rolled, tmp_path / f"t-{name}.v", model, edges="wrap", tile_size=64, overlap=30
        )
        assert np.abs(np.roll(found, (96, 96), (0, 1)).astype(int) - turned).max() <= 1


def test_only_the_named_ways(tmp_path: Path, photograph: Path) -> None:
    with pytest.raises(srpipe.SettingsError, match="edges is 'mirror': it must be one of reflect"):
        srpipe.enhance(photograph, tmp_path / "o.tif", edges="mirror")  # type: ignore[arg-type]
