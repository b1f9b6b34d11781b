"""Slabs: they cover all rows once, and compute what their pixels are made of, and little more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from srpipe.errors import SettingsError
from srpipe.plan.geometry import Size
from srpipe.plan.slabs import cut, default_slabs, redundancy, slab_plan
from tests.factories import make_test_plan

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@SHARED
@given(
    height=st.integers(60, 900),
    count=st.integers(1, 12),
    scale=st.integers(1, 4),
    tile=st.integers(8, 80),
    overlap=st.integers(0, 30),
    region=st.none() | st.tuples(st.integers(0, 50), st.integers(0, 50)),
    edges=st.sampled_from(["none", "reflect", "wrap"]),
    batch=st.integers(1, 5),
    exact=st.booleans(),
    output=st.sampled_from(["a.png", "a.tif", "a.tif[tile,tile_height=16]", "a.zarr[chunk=64]"]),
)
def test_every_row_is_given_once_and_made_of_all_its_tiles(
    tmp_path: Path, height: int, count: int, scale: int, tile: int, overlap: int,
    region: tuple[int, int] | None, edges: Any, batch: int, exact: bool, output: str,
) -> None:  # fmt: skip
    assume(2 * overlap < tile)
    part = None if region is None else (3, region[0], 60, height - sum(region))
    assume(part is None or part[3] > 0)
    plan = make_test_plan(
        tmp_path, image={"size": Size(90, height)}, model={"scale": scale, "batch_exact": exact},
        output=output, tile_size=tile, overlap=overlap, region=part, edges=edges, batch_size=batch,
    )  # fmt: skip
    try:
        whole = cut(plan, count)
    except SettingsError as error:
        assume(False)
        raise AssertionError from error
    assert len(whole.slabs) == count
    y, crop, n_columns = plan.grid.y, plan.frame.crop, plan.grid.x.n_tiles
    next_px = 0
    for slab in whole.slabs:
        assert slab.top_px == next_px
        assert slab.height_px > 0
        next_px += slab.height_px
        begin, end = crop.top + slab.top_px, crop.top + slab.top_px + slab.height_px
        needed = {
            i for i in range(y.n_tiles)
            if y.starts_px[i] < end and y.starts_px[i] + y.covered_px(i) > begin
        }  # fmt: skip
        computed = range(*slab.rows)
        assert needed <= set(computed)
        if exact or batch == 1:
            assert needed == set(computed)
        else:
            assert slab.rows[0] * n_columns % plan.batch_size == 0
            last = slab.rows[1] * n_columns
            assert last % plan.batch_size == 0 or slab.rows[1] == y.n_tiles
        own = slab_plan(plan, whole, slab, str(tmp_path))
        assert own.grid.n_tiles == slab.n_tiles
        # Its tiles lie where those of the whole lie.
        first = slab.rows[0] * n_columns
        for tile_index in range(own.grid.n_tiles):
            assert own.source_of(tile_index) == plan.source_of(first + tile_index)
        place, mine = plan.frame.in_image(crop), own.frame.in_image(own.frame.crop)
        assert (mine.left, mine.width) == (place.left, place.width)
        assert (mine.top, mine.height) == (place.top + slab.top_px, slab.height_px)
    assert next_px == crop.height
    assert redundancy(plan, whole.slabs) >= plan.redundancy - 1e-9


@pytest.mark.parametrize(
    ("output", "part", "step"),
    [
        ("a.tif", "encoded", 128),
        ("a.tif[tile,tile_height=64,compression=none]", "encoded", 64),
        ("a.tif[compression=lzw]", "pixels", 1),
        ("a.tif[tile,pyramid]", "pixels", 1),
        ("a.tif[tile,properties]", "pixels", 1),
        ("a.zarr", "encoded", 1024),
        ("a.zarr[chunk=512,compression=none]", "encoded", 1024),
        ("a.zarr[levels=1]", "encoded", 256),
        ("a.png", "pixels", 1),
        ("a.dzi", "pixels", 1),
    ],
)
def test_parts_are_whole_rows_of_what_their_format_has(
    tmp_path: Path, output: str, part: str, step: int
) -> None:
    plan = make_test_plan(tmp_path, image={"size": Size(3000, 9000)}, output=output)
    whole = cut(plan, 7)
    assert whole.part == part
    assert all(slab.top_px * plan.scale % step == 0 for slab in whole.slabs)
    # One row of tiles is computed twice at each line.
    assert sum(slab.n_tiles for slab in whole.slabs) == (
        (plan.grid.y.n_tiles + 6) * plan.grid.x.n_tiles
    )


def test_what_is_resized_or_on_another_disk_is_joined_from_pixels(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, image={"size": Size(3000, 9000)}, outscale=1.5)
    assert cut(plan, 3).part == "pixels"
    plan = make_test_plan(tmp_path, image={"size": Size(3000, 9000)}, output="a.zarr")
    assert cut(plan, 3, same_disk=False).part == "pixels"


def test_a_last_part_that_libvips_would_fill_up_otherwise(tmp_path: Path) -> None:
    """The last row of a TIFF's tiles is filled up with what libvips' buffers hold."""
    plan = make_test_plan(tmp_path, image={"size": Size(300, 1050)}, tile_size=64, overlap=4)
    n_rows = plan.grid.y.n_tiles
    counts = [count for count in range(1, n_rows) if _cut_or_none(plan, count) is not None]
    assert {cut(plan, count).part for count in counts} == {"encoded", "pixels"}
    for count in counts:
        whole = cut(plan, count)
        last_px = whole.slabs[-1].height_px * plan.scale
        assert whole.part == "pixels" or last_px >= 3 * 128 or last_px % 128 == 0


def _cut_or_none(plan: Any, count: int) -> Any:
    try:
        return cut(plan, count)
    except SettingsError:
        return None


def test_too_many_slabs_are_refused(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, output="a.png", tile_size=64, overlap=4)
    assert len(cut(plan, plan.grid.y.n_tiles).slabs) == plan.grid.y.n_tiles
    with pytest.raises(SettingsError, match=r"has 4 rows of tiles, too few for 5 slabs"):
        cut(plan, plan.grid.y.n_tiles + 1)


@given(n_rows=st.integers(1, 100_000), at_once=st.integers(1, 1000))
def test_the_usual_number_keeps_all_slots_busy_and_few_rows_twice(
    n_rows: int, at_once: int
) -> None:
    count = default_slabs(n_rows, at_once)
    assert 1 <= count <= max(1, n_rows)
    # Fewer than all slots only where a slab would compute hardly more than rows of its neighbours.
    assert count >= min(at_once, n_rows // 2) or count == 1
    assert count == at_once or count % at_once == 0 or count < at_once
    if count > at_once:
        assert count - 1 <= n_rows / 12
