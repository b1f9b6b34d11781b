"""The memory-mapped pixels and seams of a job, and the tiles blended into them."""

from __future__ import annotations

import numpy as np

from srpipe.errors import CoverageError, InferenceError
from srpipe.io.canvas_files import open_pixels, open_seams
from srpipe.plan.colour import Planes
from srpipe.plan.job import Plan
from srpipe.plan.kernels import blend_tile
from srpipe.plan.window import Weights, axis_weights


class Canvas:
    """Takes results in raster order, blends their seams, rounds once and stores.

    Only seams are float; a pixel that one tile covers is rounded and stored at once.
    """

    def __init__(self, plan: Plan) -> None:
        """Open the files that :func:`srpipe.io.canvas_files.reserve_canvas` made."""
        self._plan = plan
        self._pixels = open_pixels(plan, "r+")
        self._row_seams, self._column_seams = open_seams(plan)
        self._no_seam = np.zeros(
            (plan.image.bands, plan.grid.tile.height * plan.scale, 0), np.float32
        )
        self._weights: dict[tuple[str, int], Weights] = {}
        self._next_tile = 0
        self.stored_px = 0
        """Output pixels stored so far."""

    @property
    def finished_rows_px(self) -> int:
        """Output rows from the top that no later tile changes."""
        grid = self._plan.grid
        row = self._next_tile // grid.x.n_tiles
        if row == grid.y.n_tiles:
            return self._plan.output_size.height
        return grid.y.starts_px[row] * self._plan.scale

    def add(self, index: int, planes: Planes) -> None:
        """Blend one tile.

        Args:
            index: its place in raster order; must be the next one.
            planes: (bands, tile height, tile width) float32 in [0, 1], output pixels.

        Raises:
            CoverageError: the tile is not the next one.
            InferenceError: it holds NaN or infinity.
        """
        if index != self._next_tile:
            raise CoverageError(f"tile {index} came when tile {self._next_tile} was due.")
        grid, scale = self._plan.grid, self._plan.scale
        tile = grid.at(index)
        column, row = tile.column, tile.row
        left, top = tile.source.left * scale, tile.source.top * scale
        width, height = tile.source.width * scale, tile.source.height * scale
        final_width, final_height = grid.x.final_px(column) * scale, grid.y.final_px(row) * scale
        shared_width = grid.x.shared_before_px(column) * scale
        shared_height = grid.y.shared_before_px(row) * scale
        inside = slice(left, left + final_width)
        broken = blend_tile(
            planes,
            self._axis_weights("x", column),
            self._axis_weights("y", row),
            final_width,
            final_height,
            self._column_seams[column - 1][:, :height, :shared_width] if column else self._no_seam,
            self._column_seams[column][:, :height, : width - final_width]
            if column + 1 < grid.x.n_tiles
            else self._no_seam,
            self._row_seams[(row + 1) % 2][:, :shared_height, inside],
            self._row_seams[row % 2][:, : height - final_height, inside],
            self._pixels[top : top + final_height, inside],
            float(np.iinfo(self._pixels.dtype).max),
        )
        if broken:
            raise InferenceError(
                f"model {self._plan.model.name} gave NaN or infinity in {broken} values of tile "
                f"{index} ({tile.source} of {self._plan.image.path}): "
                + (
                    "half precision overflows there; use a float32 model."
                    if self._plan.model.dtype == "float16"
                    else "the model file is broken, or wants another value range."
                )
            )
        self._next_tile += 1
        # What was really stored, not what the grid promises: a gap must not go unseen.
        self.stored_px += min(final_width, width) * min(final_height, height)

    def _axis_weights(self, axis: str, index: int) -> Weights:
        key = (axis, index)
        if key not in self._weights:
            if axis == "y":
                self._weights = {k: w for k, w in self._weights.items() if k[0] == "x"}
            grid = self._plan.grid.x if axis == "x" else self._plan.grid.y
            trim_px = self._plan.trim_px[0 if axis == "x" else 1]
            self._weights[key] = axis_weights(
                grid, index, self._plan.blend, trim_px, self._plan.scale
            )
        return self._weights[key]
