"""A part of an image, byte for byte that of the whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import srpipe
from srpipe.settings import Engine
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.nets_of_companions import companion_model
from tests.onnx_models import conv_model
from tests.test_resume import StopAt

Region = tuple[int, int, int, int]
OPTIONS: dict[str, Any] = {"tile_size": 48, "overlap": 12}


def part(pixels: np.ndarray, region: Region, scale: int = 2) -> np.ndarray:
    left, top, width, height = (scale * n for n in region)
    return pixels[top : top + height, left : left + width]


def enhanced(source: Path, output: Path, **options: Any) -> tuple[srpipe.Report, np.ndarray]:
    report = srpipe.enhance(source, output, overwrite=True, **(OPTIONS | options))
    return report, read_pixels(output)


@pytest.fixture
def whole(tmp_path: Path, photograph: Path, x2_model: Path) -> np.ndarray:
    return enhanced(photograph, tmp_path / "whole.v", model=x2_model)[1]


@pytest.mark.parametrize("region", [
    (0, 0, 300, 200), (0, 0, 1, 1), (299, 199, 1, 1), (100, 50, 60, 70), (36, 36, 12, 12),
    (47, 47, 2, 2), (0, 150, 300, 50), (130, 0, 7, 200),
])  # fmt: skip
def test_its_pixels_are_those_of_the_whole(
    tmp_path: Path, photograph: Path, x2_model: Path, whole: np.ndarray, region: Region
) -> None:
    report, found = enhanced(photograph, tmp_path / "part.v", model=x2_model, region=region)
    np.testing.assert_array_equal(found, part(whole, region))
    assert (report.input_size.width, report.input_size.height) == region[2:]
    assert report.output_size == report.input_size.scaled(2)


@pytest.mark.parametrize("options", [
    {"blend": "mean"}, {"blend": "crop", "batch_size": 3}, {"tile_size": 40, "overlap": 19},
    {"edges": "wrap"}, {"edges": "reflect"}, {"tile_size": None, "overlap": None},
], ids=str)  # fmt: skip
def test_whatever_the_grid(
    tmp_path: Path, photograph: Path, x2_model: Path, options: dict[str, Any]
) -> None:
    region = (70, 90, 110, 60)
    _, whole = enhanced(photograph, tmp_path / "whole.v", model=x2_model, **options)
    _, found = enhanced(photograph, tmp_path / "p.v", model=x2_model, region=region, **options)
    np.testing.assert_array_equal(found, part(whole, region))


@pytest.mark.parametrize("engine", ["serial", "threads", "local"])
def test_every_engine_and_alpha(tmp_path: Path, engine: Engine) -> None:
    model = conv_model(tmp_path / "x3.onnx", scale=3, multiple=4)
    source = write_pixels(tmp_path / "in.png", photograph_pixels(170, 210, 4, "uint16"))
    region = (33, 41, 101, 83)
    _, whole = enhanced(source, tmp_path / "whole.v", model=model)
    _, found = enhanced(source, tmp_path / "p.v", model=model, region=region, engine=engine)
    np.testing.assert_array_equal(found, part(whole, region, 3))


def test_only_tiles_that_touch_it_are_computed(
    tmp_path: Path, photograph: Path, x2_model: Path
) -> None:
    report, _ = enhanced(
        photograph, tmp_path / "o.v", model=x2_model, region=(50, 50, 5, 5), edges="none"
    )
    assert report.tiles == 1
    assert report.tile.width == 48


def test_the_grid_is_the_whole_image_s_where_it_is_chosen(tmp_path: Path, photograph: Path) -> None:
    """A part smaller than a tile is seen in a tile of the usual size."""
    options = {"tile_size": 128, "overlap": None, "model": "lite-x2"}
    _, whole = enhanced(photograph, tmp_path / "whole.v", **options)
    report, found = enhanced(photograph, tmp_path / "p.v", region=(140, 90, 9, 9), **options)
    np.testing.assert_array_equal(found, part(whole, (140, 90, 9, 9)))
    assert report.tile.width > 100


def test_a_model_whose_results_depend_on_companions(tmp_path: Path, photograph: Path) -> None:
    model = companion_model(tmp_path / "companions.onnx")
    region = (100, 100, 50, 50)
    options = {"model": model, "batch_size": 1}
    scale = srpipe.probe_model(model).scale
    _, whole = enhanced(photograph, tmp_path / "whole.v", **options)
    _, found = enhanced(photograph, tmp_path / "p.v", region=region, **options)
    np.testing.assert_array_equal(found, part(whole, region, scale))


def test_an_interrupted_part_goes_on_and_another_part_is_another_job(
    tmp_path: Path, photograph: Path, x2_model: Path, whole: np.ndarray
) -> None:
    region, output = (60, 30, 150, 140), tmp_path / "part.v"
    watch = StopAt(9)
    options = {"model": x2_model, "checkpoint_every_s": 0}
    with pytest.raises(srpipe.Interrupted, match="of 36 tiles"):
        enhanced(
            photograph, output, region=region, progress=watch, stop=watch.stop, engine="serial",
            **options,
        )  # fmt: skip
    with pytest.raises(srpipe.JobError, match=r"region: 150x140 at \(60, 30\), now not recorded"):
        enhanced(photograph, output, **options)
    with pytest.raises(srpipe.JobError, match=r"region: .*, now 150x140 at \(61, 30\)"):
        enhanced(photograph, output, region=(61, 30, 150, 140), **options)
    report, found = enhanced(photograph, output, region=region, **options)
    assert report.resumed_tiles >= 9
    np.testing.assert_array_equal(found, part(whole, region))


@pytest.mark.parametrize("region", [(0, 0, 301, 1), (300, 0, 1, 1), (0, 199, 1, 2)])
def test_a_region_beyond_the_image(tmp_path: Path, photograph: Path, region: Region) -> None:
    with pytest.raises(srpipe.SettingsError, match="beyond the image, which has 300x200 pixels"):
        srpipe.enhance(photograph, tmp_path / "o.tif", region=region)


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 5), (0, 0, 5.5, 5)])
def test_what_is_no_region(tmp_path: Path, photograph: Path, region: Any) -> None:
    with pytest.raises(srpipe.SettingsError, match="must be left, top, width and height"):
        srpipe.enhance(photograph, tmp_path / "o.tif", region=region)
