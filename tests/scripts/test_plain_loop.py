"""The plain loop against an oracle that says the same pixel by pixel, in float64."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks.compact import CompactSettings, build_compact
from benchmarks.plain_loop import enhance_pixels, enhance_plainly, tile_starts


def uneven_model(batch: np.ndarray) -> np.ndarray:
    """Enlarges by two, and gives what depends on the place in the tile: seams matter."""
    height, width = batch.shape[2:]
    slope = np.linspace(0.5, 1, 2 * width) * np.linspace(1, 0.7, 2 * height)[:, None]
    return (batch.repeat(2, axis=2).repeat(2, axis=3) * slope).astype(np.float32)


def mean_of_tiles(pixels: np.ndarray, tile_px: int, overlap_px: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    sums = np.zeros((2 * height, 2 * width, 3))
    counts = np.zeros((2 * height, 2 * width, 1))
    stride = tile_px - overlap_px
    for y in range(0, height, stride):
        for x in range(0, width, stride):
            top = y if y + tile_px <= height else max(height - tile_px, 0)
            left = x if x + tile_px <= width else max(width - tile_px, 0)
            tile = pixels[top : top + tile_px, left : left + tile_px]
            result = uneven_model(tile.transpose(2, 0, 1)[None] / 255.0)[0]
            for j in range(result.shape[1]):
                for i in range(result.shape[2]):
                    sums[2 * top + j, 2 * left + i] += result[:, j, i]
                    counts[2 * top + j, 2 * left + i] += 1
    return sums / counts * 255


@pytest.mark.parametrize(("height", "width"), [(20, 31), (16, 16), (10, 40)])
def test_loop_is_the_mean_of_all_tiles(height: int, width: int):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    expected = mean_of_tiles(pixels, 16, 4)
    result = enhance_pixels(pixels, uneven_model, 16, 4)
    assert result.shape == (2 * height, 2 * width, 3)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result, expected, atol=0.501)


@pytest.mark.parametrize(
    ("length_px", "starts_px"),
    [
        (100, [0]),
        (192, [0]),
        (256, [0, 0]),
        (448, [0, 192, 192]),
        (500, [0, 192, 244]),
    ],
)
def test_tiles_of_the_loop_may_repeat(length_px: int, starts_px: list[int]):
    assert tile_starts(length_px, 256, 64) == starts_px


def test_from_file_to_file(tmp_path: Path):
    model = build_compact(tmp_path / "tiny.onnx", CompactSettings(features=8, convolutions=1))
    source, output = tmp_path / "in.png", tmp_path / "out.tif"
    pyvips.Image.gaussnoise(40, 30).bandjoin(
        [pyvips.Image.gaussnoise(40, 30), pyvips.Image.gaussnoise(40, 30)]
    ).cast("uchar").copy(interpretation="srgb").write_to_file(str(source))
    enhance_plainly(str(source), str(output), str(model))
    image = pyvips.Image.new_from_file(str(output))
    assert (image.width, image.height, image.bands, image.format) == (80, 60, 3, "uchar")
