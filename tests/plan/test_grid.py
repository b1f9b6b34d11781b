from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.plan.grid import AxisGrid, Grid, plan_axis
from tests.naive import covering


@st.composite
def axis_requests(draw: st.DrawFn) -> dict[str, int]:
    """Arguments of plan_axis as the plan makes them: the tile a multiple, the overlap under half."""
    multiple = draw(st.sampled_from([1, 2, 4, 8, 16, 64, 3, 7]))
    tile = multiple * draw(st.integers(1, max(1, 320 // multiple)))
    largest = min((tile - 1) // 2, tile - multiple)
    overlap = draw(st.integers(0, max(0, largest)))
    least = multiple * draw(st.integers(1, tile // multiple))
    if draw(st.booleans()):
        least = tile  # the model fixes the size
    length = draw(st.integers(1, 3000))
    return {
        "length_px": length, "tile_px": tile, "overlap_px": overlap,
        "multiple_px": multiple, "least_px": least,
    }  # fmt: skip


@given(axis_requests())
def test_axis_covers_every_pixel_on_the_lattice_without_duplicates(request: dict[str, int]) -> None:
    axis = plan_axis(**request)
    starts, tile, multiple = axis.starts_px, axis.tile_px, request["multiple_px"]
    assert covering(axis).any(axis=0).all()
    assert starts[0] == 0
    assert all(a < b for a, b in itertools.pairwise(starts))
    assert all(start % multiple == 0 for start in starts)
    assert tile % multiple == 0
    assert request["least_px"] <= tile <= request["tile_px"]
    assert all(start < request["length_px"] for start in starts)


@given(axis_requests())
def test_neighbours_overlap_at_least_as_asked(request: dict[str, int]) -> None:
    axis = plan_axis(**request)
    for i in range(1, axis.n_tiles):
        assert axis.shared_before_px(i) >= request["overlap_px"]
    assert axis.n_tiles == 1 or axis.overlap_px >= request["overlap_px"]


@given(axis_requests())
def test_no_fewer_tiles_would_do(request: dict[str, int]) -> None:
    axis = plan_axis(**request)
    multiple = request["multiple_px"]
    stride = (request["tile_px"] - request["overlap_px"]) // multiple * multiple
    reach_of_fewer = (axis.n_tiles - 2) * stride + request["tile_px"]
    assert axis.n_tiles == 1 or reach_of_fewer < request["length_px"]


@given(axis_requests())
def test_only_the_last_tile_hangs_over_and_less_than_the_multiple(request: dict[str, int]) -> None:
    axis = plan_axis(**request)
    for i in range(axis.n_tiles - 1):
        assert axis.covered_px(i) == axis.tile_px
    if axis.n_tiles > 1:
        assert axis.tile_px - axis.covered_px(axis.n_tiles - 1) < request["multiple_px"]


@given(axis_requests())
def test_final_parts_partition_the_axis(request: dict[str, int]) -> None:
    axis = plan_axis(**request)
    position = 0
    for i in range(axis.n_tiles):
        assert axis.starts_px[i] == position
        position += axis.final_px(i)
    assert position == axis.length_px


def test_textbook_duplicate_is_not_made() -> None:
    axis = plan_axis(448, 256, 64, 1, least_px=1)
    assert axis.starts_px == (0, 192)
    assert axis.tile_px == 256


def test_free_tile_shrinks_to_what_covers() -> None:
    assert plan_axis(260, 256, 16, 1, least_px=1).tile_px == 138
    assert plan_axis(1, 256, 16, 1, least_px=1).tile_px == 1
    assert plan_axis(1, 256, 16, 8, least_px=16).tile_px == 16


def test_fixed_tile_is_spread_evenly() -> None:
    axis = plan_axis(500, 128, 16, 1, least_px=128)
    assert axis.starts_px == (0, 93, 186, 279, 372)


def test_no_stride_is_an_error() -> None:
    with pytest.raises(ValueError, match="no stride"):
        plan_axis(100, 64, 32, 64, least_px=64)


@given(axis_requests(), st.integers(1, 70), st.booleans())
def test_what_an_image_is_continued_by_is_covered_at_little_cost(
    request: dict[str, int], margin: int, may_grow: bool
) -> None:
    multiple, length, wanted = (request[key] for key in ("multiple_px", "length_px", "tile_px"))
    margin = -(-margin // multiple) * multiple
    plain = plan_axis(**request)
    axis = plan_axis(**request, margin_px=margin, may_grow=may_grow)
    assert axis.margin_px == margin
    assert axis.starts_px[0] == 0
    assert axis.length_px == axis.starts_px[-1] + axis.tile_px
    assert axis.length_px >= length + 2 * margin
    assert covering(axis).any(axis=0).all()
    assert all(start % multiple == 0 for start in axis.starts_px)
    for i in range(1, axis.n_tiles):
        assert axis.shared_before_px(i) >= request["overlap_px"]
    free = may_grow and request["least_px"] < wanted
    assert request["least_px"] <= axis.tile_px <= (wanted * 3 // 2 if free else wanted)
    if axis.tile_px > wanted:
        assert axis.n_tiles == plain.n_tiles


def test_an_image_that_fits_exactly_gets_no_more_tiles() -> None:
    exact = plan_axis(2032, 256, 16, 1, least_px=1)
    continued = plan_axis(2032, 256, 16, 1, least_px=1, margin_px=6, may_grow=True)
    assert exact.n_tiles == continued.n_tiles == 9
    assert continued.tile_px * continued.n_tiles <= exact.tile_px * exact.n_tiles + 12 + 9
    fixed = plan_axis(256, 256, 16, 1, least_px=256, margin_px=6, may_grow=True)
    assert (fixed.n_tiles, fixed.tile_px) == (2, 256)


def test_raster_order() -> None:
    grid = Grid(AxisGrid(100, 60, (0, 40)), AxisGrid(50, 50, (0,)))
    tiles = list(grid.tiles())
    assert [(t.index, t.column, t.row) for t in tiles] == [(0, 0, 0), (1, 1, 0)]
    assert str(tiles[1].source) == "60x50 at (40, 0)"
    assert grid.model_pixels == 6000
