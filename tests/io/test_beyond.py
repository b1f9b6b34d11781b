"""What lies beyond an image's border, read from real files in raster order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srpipe.errors import ReadError
from srpipe.io.beyond import FrameReader
from srpipe.io.source import read_image_info
from srpipe.plan.frame import Frame, frame_grid
from srpipe.plan.geometry import Size
from srpipe.plan.grid import Grid, plan_axis
from srpipe.plan.image_info import ImageInfo
from srpipe.settings import Edges
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.plan.test_frame import CONTINUED


def framed(
    info: ImageInfo, tile: int, margin: int, edges: Edges, multiple: int = 1
) -> tuple[Grid, Frame]:
    axes = [
        plan_axis(
            length, tile, min(margin, tile // 2 - 1), multiple, least_px=tile, margin_px=margin
        )
        for length in (info.size.width, info.size.height)
    ]
    return frame_grid(Grid(*axes), info.size, None, edges)


def assert_padded(path: Path, tile: int, margin: int, edges: Edges, multiple: int = 1) -> None:
    info = read_image_info(path)
    grid, frame = framed(info, tile, margin, edges, multiple)
    mode: Any = {"replicate": "edge"}.get(edges, edges)
    around = [
        (axis.margin_px, axis.length_px - axis.margin_px - length)
        for axis, length in (
            (frame.whole.y, info.size.height),
            (frame.whole.x, info.size.width),
        )
    ] + [(0, 0)]
    expected = np.pad(read_pixels(path), around, mode=mode)
    reader = FrameReader(info, frame, fill=False, whole_so_far=True)
    out = np.empty((tile, tile, info.bands), info.numpy_dtype)
    for part in grid.tiles():
        rect = part.source
        assert reader.read(rect, out)
        assert (rect.height, rect.width) == (tile, tile)
        rect = frame.in_image(rect)
        top, left = rect.top + around[0][0], rect.left + around[1][0]
        rows, columns = slice(top, top + rect.height), slice(left, None)
        np.testing.assert_array_equal(
            out[: rect.height, : rect.width], expected[rows, columns][:, : rect.width]
        )


@pytest.mark.parametrize("edges", CONTINUED)
@pytest.mark.parametrize("name", ["strips.tif", "tiles.tif", "whole.png", "lossy.jpg", "all.webp"])
def test_tiles_are_those_of_the_padded_image(tmp_path: Path, name: str, edges: Edges) -> None:
    options = {"tile": True, "tile_width": 64, "tile_height": 64} if name == "tiles.tif" else {}
    path = write_pixels(tmp_path / name, photograph_pixels(700, 150), **options)
    assert_padded(path, 96, 40, edges)
    assert_padded(path, 256, 64, edges, multiple=64)  # the last tiles hang over by more


@pytest.mark.parametrize("edges", CONTINUED)
@pytest.mark.parametrize("size", [Size(1, 1), Size(3, 50), Size(50, 2)])
def test_margins_wider_than_the_image(tmp_path: Path, size: Size, edges: Edges) -> None:
    path = write_pixels(tmp_path / "s.tif", photograph_pixels(size.height, size.width, 2, "uint16"))
    assert_padded(path, 32, 15, edges)
    assert_padded(path, 64, 64, edges, multiple=32)


def test_a_file_that_breaks_off(tmp_path: Path) -> None:
    """Its last rows are needed for the first tile already."""
    path = write_pixels(tmp_path / "cut.png", photograph_pixels(300, 100))
    path.write_bytes(path.read_bytes()[:40_000])
    info = read_image_info(path)
    grid, frame = framed(info, 64, 16, "wrap")
    out = np.empty((64, 64, 3), np.uint8)
    first = grid.at(0).source
    with pytest.raises(ReadError, match="rows 284 to 299 of 300"):
        FrameReader(info, frame, fill=False, whole_so_far=True).read(first, out)
    filling = FrameReader(info, frame, fill=True, whole_so_far=True)
    assert not filling.read(first, out)
    inside = grid.x.n_tiles + 1
    assert filling.read(grid.at(inside).source, out)
