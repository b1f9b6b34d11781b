from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import srpipe
from srpipe.errors import InferenceError, ModelError, SettingsError
from srpipe.io.model_probe import probe_model
from srpipe.models.sample import make_picture, read_middle
from srpipe.models.seams import (
    Difference,
    GridDifference,
    classify,
    crop_to_measure,
    measure_seams,
)
from srpipe.plan.geometry import Size
from tests.conftest import PHOTOGRAPH, photograph_pixels, read_pixels, write_pixels
from tests.onnx_models import conv_model, elementwise_model, save


def global_model(path: Path, share: float = 0.5) -> Path:
    """Adds a share of the whole input's mean to each pixel, as channel attention does in its way."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Mul", ["mean", "share"], ["part"]),
        helper.make_node("Add", ["input", "part"], ["output"]),
    ]
    weights = [numpy_helper.from_array(np.array(share, np.float32), "share")]
    return save(path, nodes, weights, ["n", 3, "h", "w"])


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"layers": 5},
        {"layout": "NHWC", "channels": 1},
        {"dtype": "float16"},
        {"batch": 2},
        {"multiple": 4, "layers": 1, "scale": 1},
    ],
    ids=str,
)
def test_a_convolution_net_is_exact(tmp_path: Path, facts: dict[str, Any]) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", **facts))
    report = measure_seams(info, make_picture(Size(160, 160), 3), tile_size=64)
    assert report.seam_class == "exact"
    assert report.tile == Size(64, 64)
    assert report.crop == Size(128 - report.overlap_px, 128 - report.overlap_px)
    assert report.grid.away.largest_levels <= 0.01


def test_too_little_overlap_is_blended(tmp_path: Path) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", layers=5))
    report = measure_seams(info, make_picture(Size(160, 160), 3), tile_size=64, overlap=2)
    assert report.seam_class == "blended"
    for grid in (report.grid, report.shifted):
        assert grid.at_seams.largest_levels > 0.5
        assert grid.away.mean_levels < grid.at_seams.mean_levels / 20
    assert report.grid != report.shifted
    assert report.overlap_px == 2


def test_global_statistics_are_discouraged(tmp_path: Path) -> None:
    info = probe_model(global_model(tmp_path / "m.onnx"))
    report = measure_seams(info, make_picture(Size(200, 200), 3), tile_size=80)
    assert report.seam_class == "discouraged"
    assert report.grid.away.mean_levels > 1
    assert report.metadata() == {
        "seam_class": "discouraged",
        "seam_max_levels": f"{report.largest_levels:.2f}",
        "seam_tile": "80x80, overlap 39",
    }


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("overlap", [0, 3])
def test_the_figures_are_those_of_enhance(tmp_path: Path, bands: int, overlap: int) -> None:
    model = conv_model(tmp_path / "m.onnx", layers=4)
    side = 2 * 64 - overlap
    shift = (64 - overlap) // 2
    pixels = photograph_pixels(side + shift, side + shift, bands)
    report = measure_seams(probe_model(model), pixels, tile_size=64, overlap=overlap)
    assert report.crop == Size(side, side)
    for grid, corner in ((report.grid, 0), (report.shifted, shift)):
        crop = pixels[corner : corner + side, corner : corner + side].astype(np.uint16) * 257
        source = write_pixels(tmp_path / f"crop{corner}.tif", crop)
        results = []
        for name, tile, shared in (("tiled", 64, overlap), ("whole", side, 0)):
            target = tmp_path / f"{name}{corner}.tif"
            srpipe.enhance(
                source, target, model=model, tile_size=tile, overlap=shared, edges="none"
            )
            results.append(read_pixels(target).astype(int))
        difference = np.abs(results[0] - results[1]).max(axis=2) / 257
        assert grid.at_seams.largest_levels == difference.max() > 0.5
        # Colours that bleed under alpha come from as far again as the model sees.
        assert grid.away.largest_levels <= (0.05 if bands in (2, 4) else 0)


def test_a_small_picture_is_mirrored(tmp_path: Path, x2_model: Path) -> None:
    report = measure_seams(probe_model(x2_model), photograph_pixels(9, 14), tile_size=32)
    assert report.seam_class == "exact"
    assert report.crop.width > 32


def test_the_models_own_tile_is_the_default(tmp_path: Path) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", metadata={"tile_size": "40"}))
    assert crop_to_measure(info, None) == Size(100, 100)
    assert measure_seams(info, photograph_pixels(100, 100)).tile == Size(40, 40)


def test_one_size_has_no_whole_result(tmp_path: Path) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", height=32, width=48))
    with pytest.raises(ModelError, match="only a size of 48x32"):
        measure_seams(info, photograph_pixels(40, 40))


def test_bad_settings(tmp_path: Path) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", multiple=4))
    with pytest.raises(SettingsError, match="not a multiple of 4"):
        measure_seams(info, photograph_pixels(40, 40), tile_size=30)
    with pytest.raises(SettingsError, match="too large to measure seams"):
        measure_seams(info, photograph_pixels(40, 40), tile_size=8000)


def test_infinity_is_an_error(tmp_path: Path) -> None:
    info = probe_model(elementwise_model(tmp_path / "log.onnx", "Log"))
    with pytest.raises(InferenceError, match="NaN or infinity"):
        measure_seams(info, np.zeros((40, 40, 3), np.uint8), tile_size=16)


@pytest.mark.parametrize(
    ("seams", "away", "expected"),
    [
        ((0.0, 0.0), (0.0, 0.0), "exact"),
        ((0.5, 0.1), (0.5, 0.1), "exact"),
        ((0.6, 0.1), (0.0, 0.0), "blended"),
        ((9.0, 1.0), (3.0, 0.1), "blended"),
        ((9.0, 1.0), (9.0, 0.51), "discouraged"),
        ((9.0, 4.0), (9.0, 0.6), "discouraged"),
        ((0.4, 0.0), (0.6, 0.1), "discouraged"),
    ],
)
def test_classes(seams: tuple[float, float], away: tuple[float, float], expected: str) -> None:
    grid = GridDifference(Difference(*seams), Difference(*away))
    nothing = GridDifference(Difference(0, 0), Difference(0, 0))
    assert classify(grid) == expected
    if expected != "discouraged":
        assert classify(nothing, grid) == classify(grid, nothing) == expected


def test_the_made_picture_varies_from_tile_to_tile() -> None:
    picture = make_picture(Size(120, 90), 4)
    assert picture.shape == (90, 120, 4)
    np.testing.assert_array_equal(picture, make_picture(Size(120, 90), 4))
    quarters = [picture[y : y + 45, x : x + 60] for y in (0, 45) for x in (0, 60)]
    means = [quarter.mean() for quarter in quarters]
    assert max(means) - min(means) > 20
    assert all(quarter.std() > 15 for quarter in quarters)


def test_the_middle_of_a_photograph() -> None:
    whole = read_pixels(PHOTOGRAPH)
    height, width = whole.shape[:2]
    top, left = (height - 50) // 2, (width - 70) // 2
    middle = read_middle(str(PHOTOGRAPH), Size(70, 50))
    np.testing.assert_array_equal(middle, whole[top : top + 50, left : left + 70])
    assert read_middle(str(PHOTOGRAPH), Size(9, 10_000)).shape == (height, 9, 3)
