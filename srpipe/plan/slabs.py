"""Cuts a job into slabs: bands of rows that are computed apart, and joined without a seam.

A slab is a job for a region as wide as the whole: it takes the rows of tiles that touch it, and cuts
off what belongs to its neighbours. Where two slabs meet, the row of tiles at the line is computed
twice, so that each pixel is made of the same tiles under the same weights as in one piece.

    row 0 ─┬─────────┐
    row 1 ─┤ slab 0  │
    row 2 ─┼─────────┼ ◀ computed by both: below the line slab 1 has it, for the seam above row 3
    row 3 ─┤ slab 1  │
    row 4 ─┴─────────┘

A line lies where a row of tiles begins, or a little above it where the rows of a part must be whole
rows of the tiles or chunks that its file has: such parts are joined without being encoded again.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from srpipe.errors import SettingsError
from srpipe.plan.geometry import Rect
from srpipe.plan.grid import AxisGrid, Grid
from srpipe.plan.job import Part, Plan, ResolvedEngine, auto_engine
from srpipe.plan.output import OutputSpec, parse_output

# Found by scripts/simulate-cluster: where rows are plenty, six slabs for each slot even out nodes that
# differ, and nodes that fail; two or three only make the slow ones end with a whole slab more. Where
# rows are few, those that are computed twice cost more than that gains.
_SLABS_PER_SLOT = 6
_LEAST_ROWS = 16
# Options of tiled TIFFs that change nothing in how the rows of a file depend on one another.
_TIFF_OPTIONS = {
    "bigtiff", "compression", "keep", "level", "lossless", "predictor", "profile", "q", "rgbjpeg",
    "strip", "tile", "tile_height", "tile_width",
}  # fmt: skip
_TIFF_TILE_PX = 128
_BUFFERED = 3
_PIXELS: tuple[Part, str, str] = ("pixels", ".raw", "")
_ZARR_CHUNK_PX = 256


@dataclass(frozen=True, slots=True)
class Slab:
    """A band of rows of a job."""

    index: int
    top_px: int
    """Of the rows it gives, from the job's first on, input pixels."""
    height_px: int
    rows: tuple[int, int]
    """Rows of tiles of the job that it computes, [first, stop)."""
    n_tiles: int
    """Tiles that it computes."""

    @property
    def name(self) -> str:
        """Of its folder and files."""
        return slab_name(self.index)


def slab_name(index: int) -> str:
    """Of a slab's folder and files; people count from one."""
    return f"slab-{index + 1:04}"


@dataclass(frozen=True, slots=True)
class Cut:
    """A job in slabs."""

    slabs: tuple[Slab, ...]
    part: Part
    """What each gives."""
    suffix: str
    """Ending of a part's file."""
    options: str
    """How a part is saved."""


def default_slabs(n_rows: int, at_once: int) -> int:
    """How many slabs a job is cut into, if nobody says.

    Args:
        n_rows: rows of tiles.
        at_once: slabs that can be computed at the same time.
    """
    if at_once > 1 and n_rows >= _LEAST_ROWS * _SLABS_PER_SLOT * at_once:
        return _SLABS_PER_SLOT * at_once
    return max(1, min(at_once, n_rows // 2))


def cut(plan: Plan, count: int, *, same_disk: bool = True) -> Cut:
    """Cut a job into slabs.

    Args:
        plan: of the whole.
        count: how many.
        same_disk: whether a part can be moved to where the output is written by renaming it.

    Raises:
        SettingsError: the job has too few rows for so many.
    """
    part, suffix, options, step_px = _part(plan, count, same_disk=same_disk)
    lines = _lines(plan, count, step_px)
    last_px = (lines[-1] - lines[-2]) * plan.scale
    # What fills libvips' last row of tiles up is what it has in its buffers of rows before.
    filled_up = suffix == ".tif" and last_px < _BUFFERED * step_px and last_px % step_px
    if filled_up or not _are_apart(lines):
        part, suffix, options = _PIXELS
        lines = _lines(plan, count, 1)
    if not _are_apart(lines):
        raise SettingsError(
            f"{plan.image.path} has {plan.grid.y.n_tiles} row{'s' * (plan.grid.y.n_tiles > 1)} of "
            f"tiles, too few for {count} slabs: use fewer."
        )
    return Cut(
        tuple(
            _slab(plan, index, top, stop - top)
            for index, (top, stop) in enumerate(itertools.pairwise(lines))
        ),
        part,
        suffix,
        options,
    )


def _lines(plan: Plan, count: int, step_px: int) -> list[int]:
    """Where slabs begin, and the last ends, from the job's first row on, input pixels.

    Args:
        plan: of the whole.
        count: of the slabs.
        step_px: output rows of a part are a multiple of it.
    """
    y, crop = plan.grid.y, plan.frame.crop
    multiple_px = step_px // math.gcd(step_px, plan.scale)
    rows_px = [y.starts_px[k * y.n_tiles // count] - crop.top for k in range(1, count)]
    return [0, *(row_px // multiple_px * multiple_px for row_px in rows_px), crop.height]


def _are_apart(lines: list[int]) -> bool:
    return all(below > above for above, below in itertools.pairwise(lines))


def _slab(plan: Plan, index: int, top_px: int, height_px: int) -> Slab:
    y, n_columns = plan.grid.y, plan.grid.x.n_tiles
    begin, end = plan.frame.crop.top + top_px, plan.frame.crop.top + top_px + height_px
    first = bisect_right(y.starts_px, begin - y.tile_px)
    stop = bisect_left(y.starts_px, end)
    if not plan.model.batch_exact and plan.batch_size > 1:
        # A tile's companions in its batch must be those it has in one piece.
        period = plan.batch_size // math.gcd(plan.batch_size, n_columns)
        first -= first % period
        stop = min(y.n_tiles, -(-stop // period) * period)
    return Slab(index, top_px, height_px, (first, stop), (stop - first) * n_columns)


def _part(plan: Plan, count: int, *, same_disk: bool) -> tuple[Part, str, str, int]:
    """What parts are, their ending and options, and what their rows must be a multiple of."""
    spec = plan.output
    options = {key.replace("-", "_").lower(): value for key, value in spec.parsed.items()}
    if plan.outscale is None and spec.format.name == "TIFF" and _is_tiled(options):
        step_px = int(options.get("tile_height", _TIFF_TILE_PX))
        return "encoded", ".tif", spec.options, step_px
    if plan.outscale is None and spec.format.name == "Zarr" and same_disk and not plan.turned:
        chunk_px = int(options.get("chunk", _ZARR_CHUNK_PX))
        shared_px = plan.cropped_size.height // count // 2
        levels = 1
        while chunk_px << levels <= shared_px:
            levels += 1
        most = int(options.get("levels", levels))
        kept = [f"{key}={value}" for key, value in options.items() if key != "levels"]
        levels = min(levels, most)
        return (
            "encoded", ".zarr", ",".join([*kept, f"levels={levels}"]), chunk_px << (levels - 1),
        )  # fmt: skip
    return *_PIXELS, 1


def _is_tiled(options: dict[str, str]) -> bool:
    known = options.keys() <= _TIFF_OPTIONS
    return known and options.get("tile") in ("", "true", "1")


def slab_plan(
    plan: Plan, cut: Cut, slab: Slab, folder: str, engine: ResolvedEngine | None = None
) -> Plan:
    """The plan of one slab.

    Args:
        plan: of the whole.
        cut: the whole in slabs.
        slab: one of them.
        folder: where its job folder and its part are.
        engine: how it runs; None: by the number of its tiles.
    """
    x, y = plan.grid.x, plan.grid.y
    first, stop = slab.rows
    origin_px = y.starts_px[first]
    end_px = y.starts_px[stop - 1] + y.covered_px(stop - 1)
    starts_px = tuple(start - origin_px for start in y.starts_px[first:stop])
    grid = Grid(x, AxisGrid(end_px - origin_px, y.tile_px, starts_px))
    top_px = plan.frame.crop.top + slab.top_px - origin_px
    crop = Rect(plan.frame.crop.left, top_px, plan.frame.crop.width, slab.height_px)
    n_batches = -(-grid.n_tiles // plan.batch_size)
    workers = min(plan.workers, n_batches)
    return replace(
        plan,
        grid=grid,
        frame=replace(plan.frame, top=plan.frame.top + origin_px, crop=crop),
        output=part_output(cut, slab, folder),
        job_dir=f"{folder}/{slab.name}",
        overwrite=True,
        fresh=False,
        outscale=None,
        workers=workers,
        engine=engine or auto_engine(grid.n_tiles, workers),
        part=cut.part,
    )


def part_output(cut: Cut, slab: Slab, folder: str) -> OutputSpec:
    """Where a slab's part goes, and how it is saved."""
    return parse_output(f"{folder}/{slab.name}{cut.suffix}[{cut.options}]")


def redundancy(plan: Plan, slabs: Sequence[Slab]) -> float:
    """Share of the model's work beyond one computation per input pixel."""
    computed = sum(slab.n_tiles for slab in slabs) * plan.grid.tile.pixels
    return computed / plan.input_size.pixels - 1
