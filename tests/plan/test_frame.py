"""A region has the tiles and weights of the whole grid; an axis goes on beyond its border."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.errors import SettingsError
from srpipe.plan.frame import continued, frame_grid
from srpipe.plan.geometry import Rect, Size
from srpipe.plan.grid import AxisGrid, Grid, plan_axis
from srpipe.plan.window import axis_weights
from srpipe.settings import Blend, Edges
from tests import naive

CONTINUED: tuple[Edges, ...] = ("reflect", "replicate", "wrap")


@given(
    length=st.integers(1, 200),
    tile=st.integers(4, 40),
    overlap=st.integers(0, 19),
    multiple=st.sampled_from([1, 2, 4]),
    margin=st.integers(0, 20),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    blend=st.sampled_from(get_args(Blend)),
    trim=st.integers(0, 5),
)
def test_every_pixel_of_a_region_has_the_tiles_and_weights_of_the_whole(
    length: int, tile: int, overlap: int, multiple: int, margin: int,
    part: tuple[float, float], blend: Blend, trim: int,
) -> None:  # fmt: skip
    tile = tile // multiple * multiple
    overlap = min(overlap, (tile - 1) // 2, tile - multiple)
    margin = margin // multiple * multiple
    whole = plan_axis(length, tile, overlap, multiple, least_px=1, margin_px=margin)
    begin = int(part[0] * (length - 1))
    n = 1 + int(part[1] * (length - begin - 1))
    grid, frame = frame_grid(
        Grid(whole, whole), Size(length, length), (begin, begin, n, n), "wrap" if margin else "none"
    )
    assert (grid.x, frame.left, frame.crop.left) == (grid.y, frame.top, frame.crop.top)
    first = frame.left + margin
    touched = naive.covering(whole)[:, begin + margin : begin + margin + n].any(axis=1)
    starts = np.array(whole.starts_px)[touched]
    assert (starts - first).tolist() == list(grid.x.starts_px)
    assert grid.x.starts_px[0] == 0
    assert frame.crop == Rect(begin + margin - first, begin + margin - first, n, n)

    def weights(axis: AxisGrid, at: int) -> list[list[float]]:
        found = []
        for i, start in enumerate(axis.starts_px):
            line = np.zeros(axis.length_px, np.float32)
            line[start : start + axis.covered_px(i)] = axis_weights(axis, i, blend, trim, 1)
            if (line := line[at : at + n]).any():
                found.append(line.tolist())
        return found

    assert weights(grid.x, frame.crop.left) == weights(whole, begin + margin)


@pytest.mark.parametrize("region", [(0, 0, 31, 1), (29, 0, 2, 1), (0, 20, 1, 1), (30, 0, 1, 1)])
def test_a_region_beyond_the_image_is_refused(region: tuple[int, int, int, int]) -> None:
    axes = (plan_axis(length, 16, 4, 1, least_px=1) for length in (30, 20))
    with pytest.raises(SettingsError, match="beyond the image, which has 30x20 pixels"):
        frame_grid(Grid(*axes), Size(30, 20), region, "none")


@pytest.mark.parametrize("edges", CONTINUED)
@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_an_axis_goes_on_as_numpy_pads(edges: Edges, length: int) -> None:
    mode = {"replicate": "edge"}.get(edges, edges)
    expected = np.pad(np.arange(length), 25, mode=mode)  # type: ignore[call-overload]
    found = continued(np.arange(-25, length + 25), length, edges)
    np.testing.assert_array_equal(found, expected)
