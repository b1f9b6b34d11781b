"""What the model sees beyond the border: textures stay tileable."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import srpipe
from srpipe.settings import Edges, Engine
from tests import naive
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.test_resume import StopAt


def enhanced(source: Path, output: Path, model: Path, **options: Any) -> np.ndarray:
    options = {"tile_size": 48, "overlap": 12} | options
    srpipe.enhance(source, output, model=model, overwrite=True, **options)
    return read_pixels(output)


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


@pytest.mark.parametrize("edges", get_args(Edges))
def test_the_result_is_that_of_the_image_continued(
    tmp_path: Path, model: Path, edges: Edges
) -> None:
    pixels = photograph_pixels(130, 170)
    source = write_pixels(tmp_path / "in.tif", pixels)
    found = enhanced(source, tmp_path / "out.v", model, edges=edges)
    mode: Any = {"replicate": "edge"}.get(edges, edges)
    padded = np.pad(pixels, [(12, 12), (12, 12), (0, 0)], mode=mode)
    expected = naive.to_integers(naive.model_output(str(model), padded), pixels.dtype)
    expected = expected[24:-24, 24:-24]
    assert np.abs(found.astype(int) - expected).max() <= 1
    alone = enhanced(source, tmp_path / "alone.v", model)
    assert np.abs(alone.astype(int) - expected).max() > 1  # the border is another's


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
    with pytest.raises(srpipe.JobError, match="edges: wrap, margin 12x12, now reflect, margin"):
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
