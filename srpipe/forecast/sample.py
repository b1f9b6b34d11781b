"""A small picture made of tiles of a large one, and a small plan for it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from srpipe.io.identity import identify_file
from srpipe.io.tile_reader import TileReader
from srpipe.io.vips import FORMATS, pyvips
from srpipe.plan.colour import Pixels
from srpipe.plan.frame import frame_grid
from srpipe.plan.geometry import Rect, Size
from srpipe.plan.grid import AxisGrid, Grid
from srpipe.plan.job import Plan


@dataclass
class Cells:
    """Tiles of a picture, in the order in which they were read."""

    pixels: list[Pixels] = field(default_factory=list)
    read_px: int = 0
    """Pixels of the picture that were decoded for the time below."""
    read_s: float = 0.0

    @property
    def s_per_px(self) -> float:
        """Seconds that decoding takes for a pixel."""
        return self.read_s / max(self.read_px, 1)


def read_cells(plan: Plan, wanted: int, limit_s: float) -> Cells:
    """Read tiles spread over the picture, from top to bottom, until time is up; one at least.

    The reader cannot leap in most formats: it decodes what lies between. So every row of tiles is
    touched, and how far it came in its time tells how long the whole will take.

    Raises:
        ReadError: the file cannot be read.
    """
    reader = TileReader(plan.image, fill=plan.on_error == "fill")
    cells = Cells()
    grid, width_px = plan.grid, plan.image.size.width
    row_of_cells = min(grid.x.n_tiles, math.ceil(math.sqrt(wanted)))
    n_rows = min(grid.y.n_tiles, math.ceil(wanted / row_of_cells))
    chosen_rows = {round(i * (grid.y.n_tiles - 1) / max(n_rows - 1, 1)) for i in range(n_rows)}
    began_s = time.perf_counter()
    for row in range(grid.y.n_tiles):
        # The first row is read as a job reads it, whole.
        columns = range(grid.x.n_tiles) if row == 0 else _spread(grid.x.n_tiles, row_of_cells)
        for column in columns if row in chosen_rows else (0,):
            rect = plan.source_of(row * grid.x.n_tiles + column)
            pixels = _read(reader, plan, rect)
            if row in chosen_rows and column in _spread(grid.x.n_tiles, row_of_cells):
                cells.pixels.append(pixels)
        cells.read_s = time.perf_counter() - began_s
        cells.read_px = width_px * (grid.y.starts_px[row] + grid.y.covered_px(row))
        if len(cells.pixels) >= wanted or cells.read_s > limit_s:
            break
    return cells


def _spread(n: int, wanted: int) -> list[int]:
    return sorted({round(i * (n - 1) / max(wanted - 1, 1)) for i in range(wanted)})


def _read(reader: TileReader, plan: Plan, rect: Rect) -> Pixels:
    out = np.zeros((rect.height, rect.width, plan.image.bands), plan.image.numpy_dtype)
    reader.read(rect, out)
    return out


def sample_grid(grid: Grid, n_tiles: int) -> Grid:
    """A grid of about so many tiles, one at least, that are laid as those of another."""
    columns = min(grid.x.n_tiles, max(1, math.isqrt(n_tiles)))
    rows = min(grid.y.n_tiles, max(1, n_tiles // columns))
    return Grid(_first(grid.x, columns), _first(grid.y, rows))


def _first(axis: AxisGrid, n: int) -> AxisGrid:
    starts_px = axis.starts_px[:n]
    return AxisGrid(min(axis.length_px, starts_px[-1] + axis.tile_px), axis.tile_px, starts_px)


def sample_plan(plan: Plan, cells: Cells, n_tiles: int, folder: Path) -> Plan:
    """The plan of a job like that of ``plan`` on at most so many tiles, with all files in ``folder``.

    Its picture is written to the folder, made of cells side by side, each of them once.
    """
    grid = sample_grid(plan.grid, min(n_tiles, len(cells.pixels)))
    size = Size(grid.x.length_px, grid.y.length_px)
    canvas = np.zeros((size.height, size.width, plan.image.bands), plan.image.numpy_dtype)
    for cell, (top, left) in zip(cells.pixels, _places(size, plan.grid.tile), strict=False):
        part = canvas[top : top + cell.shape[0], left : left + cell.shape[1]]
        part[:] = cell[: part.shape[0], : part.shape[1]]
    path = os.fspath(folder / "sample.tif")
    image = pyvips.Image.new_from_memory(
        canvas.tobytes(), size.width, size.height, plan.image.bands, FORMATS[plan.image.dtype]
    )
    image.copy(interpretation=plan.image.interpretation).tiffsave(path)
    grid, frame = frame_grid(grid, size, None, "none")
    return replace(
        plan,
        image=replace(
            plan.image,
            path=path,
            size=size,
            loader="tiffload_source",
            decoded_whole=False,
            icc_bytes=0,
            pages=1,
            identity=identify_file(path),
        ),
        output=replace(
            plan.output, path=os.fspath(folder / f"result{Path(plan.output.path).suffix}")
        ),
        grid=grid,
        frame=frame,
        mask=None,
        job_dir=os.fspath(folder / "job"),
        overwrite=True,
        fresh=True,
    )


def _places(size: Size, tile: Size) -> Iterator[tuple[int, int]]:
    for top in range(0, size.height, tile.height):
        for left in range(0, size.width, tile.width):
            yield top, left
