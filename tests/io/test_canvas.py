"""The accumulator's arithmetic against the float64 oracle, with the JIT on and off."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srpipe.errors import CoverageError, InferenceError
from srpipe.io import canvas as canvas_module
from srpipe.io.canvas import Canvas
from srpipe.io.canvas_files import CanvasFiles, reserve_canvas
from srpipe.io.checkpoint import Checkpoint, load_checkpoints
from srpipe.plan import kernels
from srpipe.plan.geometry import Size
from srpipe.plan.grid import AxisGrid, Grid
from srpipe.plan.job import Plan
from srpipe.plan.window import axis_weights
from srpipe.settings import Blend
from tests import naive
from tests.factories import make_test_plan

BEGINNING = Checkpoint(job="", next_tile=0, stored_px=0)
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def random_tiles(plan: Plan, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    height, width = plan.grid.tile.height * plan.scale, plan.grid.tile.width * plan.scale
    shape = (plan.image.bands, height, width)
    # Beyond [0, 1] on purpose: the end must clip.
    return [rng.random(shape, np.float32) * 1.2 - 0.1 for _ in range(plan.grid.n_tiles)]


def blend_all(plan: Plan, tiles: list[np.ndarray]) -> np.ndarray:
    reserve_canvas(plan)
    canvas = Canvas(plan, BEGINNING)
    for i, planes in enumerate(tiles):
        canvas.add(i, planes)
    assert canvas.finished_rows_px == plan.canvas_size.height
    assert canvas.stored_px == plan.canvas_size.pixels
    return np.array(CanvasFiles(plan, writable=False).pixels)


def oracle(plan: Plan, tiles: list[np.ndarray]) -> np.ndarray:
    grid, scale = plan.grid, plan.scale
    wx = [
        axis_weights(grid.x, i, plan.blend, plan.trim_px[0], scale) for i in range(grid.x.n_tiles)
    ]
    wy = [
        axis_weights(grid.y, i, plan.blend, plan.trim_px[1], scale) for i in range(grid.y.n_tiles)
    ]
    planes = naive.weighted_sum(grid, tiles, wx, wy, scale)
    return naive.to_integers(planes.transpose(1, 2, 0), np.dtype(plan.image.numpy_dtype))


def assert_same_but_for_rounding(actual: np.ndarray, expected: np.ndarray) -> None:
    if actual.dtype == np.float32:
        np.testing.assert_allclose(actual, expected, atol=1e-6)
        return
    difference = np.abs(actual.astype(np.int64) - expected.astype(np.int64))
    assert difference.max(initial=0) <= 1
    # float32 resolves 1/256 of a 16-bit level: of sums of four, some fall beyond a half.
    share = 0.05 if actual.dtype.itemsize == 2 else 0.01
    assert np.count_nonzero(difference) <= max(3, share * difference.size)


@shared_folder
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    bands=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    scale=st.integers(1, 3),
    blend=st.sampled_from(get_args(Blend)),
    tile=st.integers(2, 40),
    fixed=st.booleans(),
    overlap_share=st.floats(0, 0.49),
)
def test_canvas_equals_float64_oracle(
    tmp_path: Path,
    width: int,
    height: int,
    bands: int,
    dtype: str,
    scale: int,
    blend: Blend,
    tile: int,
    fixed: bool,
    overlap_share: float,
) -> None:
    model: dict[str, Any] = {"scale": scale, "channels": 1 if bands < 3 else 3}
    if fixed:
        model |= {"height_px": tile, "width_px": tile}
    plan = make_test_plan(
        tmp_path,
        image={"size": Size(width, height), "bands": bands, "dtype": dtype},
        model=model,
        blend=blend,
        tile_size=tile,
        overlap=min(int(tile * overlap_share), (tile - 1) // 2),
    )
    tiles = random_tiles(plan)
    assert_same_but_for_rounding(blend_all(plan, tiles), oracle(plan, tiles))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [3, 4])
def test_kernel_without_jit_gives_the_same_bytes(
    tmp_path: Path, dtype: str, bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_test_plan(
        tmp_path,
        image={"size": Size(50, 31), "dtype": dtype, "bands": bands},
        model={"scale": 1},
        tile_size=20,
        overlap=7,
    )
    tiles = random_tiles(plan)
    compiled = blend_all(plan, tiles)
    monkeypatch.setattr(canvas_module, "blend_tile", kernels.blend_tile.py_func)
    monkeypatch.setattr(kernels, "store_row", kernels.store_row.py_func)
    np.testing.assert_array_equal(blend_all(plan, tiles), compiled)


@shared_folder
@given(seed=st.integers(0, 2**32), overlap=st.integers(0, 20), fixed=st.booleans())
def test_going_on_from_any_checkpoint_gives_the_same_bytes(
    tmp_path: Path, seed: int, overlap: int, fixed: bool
) -> None:
    """Tiles beyond a checkpoint may have been blended, up to the next checkpoint of their row."""
    model = {"height_px": 64, "width_px": 64} if fixed else {}
    plan = make_test_plan(
        tmp_path, image={"size": Size(230, 170)}, model=model, tile_size=64, overlap=overlap
    )
    tiles = random_tiles(plan)
    once = blend_all(plan, tiles)
    for checkpoint_file in Path(plan.job_dir).glob("checkpoint*"):
        checkpoint_file.unlink()
    reserve_canvas(plan)
    CanvasFiles(plan, writable=True).pixels[...] = 99
    CanvasFiles(plan, writable=True).row_seams[...] = np.nan
    chance = random.Random(seed)
    n, in_row, at = plan.grid.n_tiles, plan.grid.x.n_tiles, BEGINNING
    while at.next_tile < n:
        canvas = Canvas(plan, at)
        for index in range(at.next_tile, n):
            canvas.add(index, tiles[index])
            if chance.random() < 0.4 or (index + 1) % in_row == 0:
                canvas.checkpoint(())
            if chance.random() < 0.2:
                break
        found = next(load_checkpoints(Path(plan.job_dir), ""), BEGINNING)
        assert CanvasFiles(plan, writable=False).agrees_with(found)
        assert CanvasFiles(plan, writable=False).agrees_with(found.at_row_start())
        at = found if chance.random() < 0.7 else found.at_row_start()
        assert at.stored_px <= plan.canvas_size.pixels
    np.testing.assert_array_equal(CanvasFiles(plan, writable=False).pixels, once)
    assert canvas.stored_px == plan.canvas_size.pixels


def test_a_checkpoint_tells_of_filled_tiles_up_to_where_it_is(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, tile_size=64, overlap=16)
    tiles = random_tiles(plan)
    reserve_canvas(plan)
    canvas = Canvas(plan, BEGINNING)
    for index in range(3):
        canvas.add(index, tiles[index])
    canvas.checkpoint((0, 2, 3))
    (at,) = load_checkpoints(Path(plan.job_dir), "")
    assert at.filled_tiles == (0, 2)


def test_a_damaged_seam_does_not_agree_with_its_checkpoint(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, tile_size=64, overlap=16)
    tiles = random_tiles(plan)
    reserve_canvas(plan)
    canvas = Canvas(plan, BEGINNING)
    for index in range(plan.grid.x.n_tiles + 2):
        canvas.add(index, tiles[index])
    canvas.checkpoint(())
    (at,) = load_checkpoints(Path(plan.job_dir), "")
    files = CanvasFiles(plan, writable=True)
    second = plan.grid.x.starts_px[2] * plan.scale
    for strip, left, mid_row, row_start in (
        (1, 0, False, True),  # below, done: lost when the row begins again
        (1, second, True, True),  # below, not yet written
        (0, 0, True, False),  # above, read already: needed only to begin the row again
        (0, second, False, False),  # above, still to be read
    ):
        whole = files.row_seams[strip, 0, 0, left].copy()
        files.row_seams[strip, 0, 0, left] = whole + 1
        assert files.agrees_with(at) is mid_row
        assert files.agrees_with(at.at_row_start()) is row_start
        files.row_seams[strip, 0, 0, left] = whole
    assert files.agrees_with(at)
    files.column_seams[1, 0, 0, 0] += 1
    assert not files.agrees_with(at)
    assert files.agrees_with(at.at_row_start())


def test_finished_rows_never_change_again(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, tile_size=64, overlap=16)
    reserve_canvas(plan)
    canvas = Canvas(plan, BEGINNING)
    pixels = CanvasFiles(plan, writable=False).pixels
    frozen = np.zeros((0,))
    for i, planes in enumerate(random_tiles(plan)):
        canvas.add(i, planes)
        np.testing.assert_array_equal(pixels[: len(frozen)], frozen.reshape(len(frozen), 600, 3))
        frozen = np.array(pixels[: canvas.finished_rows_px])
    assert len(frozen) == 400


def test_tile_out_of_turn_is_refused(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, tile_size=64)
    reserve_canvas(plan)
    with pytest.raises(CoverageError, match="tile 1 came when tile 0 was due"):
        Canvas(plan, BEGINNING).add(1, random_tiles(plan)[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_the_tile(tmp_path: Path, value: float) -> None:
    plan = make_test_plan(tmp_path, tile_size=64, overlap=16, model={"dtype": "float16"})
    reserve_canvas(plan)
    canvas = Canvas(plan, BEGINNING)
    tiles = random_tiles(plan)
    canvas.add(0, tiles[0])
    tiles[1][0, 3, 4] = value
    with pytest.raises(InferenceError, match=r"1 values of tile 1 .*use a float32 model"):
        canvas.add(1, tiles[1])


def test_a_gap_in_the_grid_does_not_go_unseen(tmp_path: Path) -> None:
    plan = make_test_plan(tmp_path, image={"size": Size(300, 50)}, model={"scale": 1})
    gap = Grid(AxisGrid(300, 100, (0, 110, 200)), AxisGrid(50, 50, (0,)))
    plan = dataclasses.replace(plan, grid=gap)
    reserve_canvas(plan)
    canvas = Canvas(plan, BEGINNING)
    for i, planes in enumerate(random_tiles(plan)):
        canvas.add(i, planes)
    assert canvas.stored_px < plan.canvas_size.pixels
