"""The memory-mapped pixels and seams of a job, and the tiles blended into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from srpipe.errors import CoverageError, InferenceError, ReadError, WriteError
from srpipe.io.canvas_files import CanvasFiles
from srpipe.io.checkpoint import Checkpoint, free_slot, save_checkpoint
from srpipe.plan.colour import Pixels, Planes
from srpipe.plan.job import Plan
from srpipe.plan.kernels import blend_tile
from srpipe.plan.nodata import keep_no_data
from srpipe.plan.window import Weights, axis_weights


class Canvas:
    """Takes results in raster order, blends their seams, rounds once and stores.

    Of integers only seams are float; a pixel that one tile covers is rounded and stored at once.
    """

    def __init__(self, plan: Plan, at: Checkpoint) -> None:
        """Open the files that :func:`srpipe.io.canvas_files.reserve_canvas` made.

        Args:
            plan: the job.
            at: how far the files are; what they hold beyond it will be written again.

        Raises:
            WriteError: they cannot be opened.
        """
        self._plan = plan
        try:
            self._files = CanvasFiles(plan, writable=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise WriteError(
                f"the pixels in {plan.job_dir} cannot be opened ({reason}): leave that folder alone."
            ) from None
        self._no_seam = np.zeros(
            (plan.image.bands, plan.grid.tile.height * plan.scale, 0), np.float32
        )
        written = plan.written
        lowest, highest = written.limits
        # Floats are stored as they are.
        self._rounding = (int(lowest), 0.0 if written.is_float else float(highest - lowest))
        self._no_data = plan.image.no_data, written.no_data
        self._weights: dict[tuple[str, int], Weights] = {}
        self._next_tile = at.next_tile
        self.stored_px = at.stored_px
        """Output pixels stored so far."""
        self._job = at.job
        self._above_crc, self._below_crc = at.above_crc, list(at.below_crc)
        self._row_stored_px = at.row_stored_px
        self._pixels_crcs, self._pixels_crc = list(at.pixels_crcs), at.pixels_crc
        self._slot = free_slot(Path(plan.job_dir), at)

    @property
    def finished_rows_px(self) -> int:
        """Output rows from the top that no later tile changes."""
        return self._plan.finished_rows_px(self._next_tile)

    def add(self, index: int, planes: Planes, source: Pixels | None = None) -> None:
        """Blend one tile.

        Args:
            index: its place in raster order; must be the next one.
            planes: (bands, tile height, tile width) float32 as :meth:`ColourPath.unpack` gives them.
            source: the tile's input pixels, for an image that may have no data somewhere.

        Raises:
            CoverageError: the tile is not the next one.
            InferenceError: it holds NaN or infinity.
            ReadError: its input does, and the output's type holds none.
        """
        if index != self._next_tile:
            raise CoverageError(f"tile {index} came when tile {self._next_tile} was due.")
        grid, scale = self._plan.grid, self._plan.scale
        tile = grid.at(index)
        column, row = tile.column, tile.row
        left, top = tile.source.left * scale, tile.source.top * scale
        width, height = tile.source.width * scale, tile.source.height * scale
        final_width = min(grid.x.final_px(column) * scale, width)
        final_height = min(grid.y.final_px(row) * scale, height)
        shared_width = grid.x.shared_before_px(column) * scale
        shared_height = grid.y.shared_before_px(row) * scale
        inside = slice(left, left + final_width)
        pixels = self._files.pixels
        _, image_width, bands = pixels.shape
        broken = blend_tile(
            planes,
            planes.view(np.int32),
            self._axis_weights("x", column),
            self._axis_weights("y", row),
            final_width,
            final_height,
            self._files.column_seams[column - 1][:, :height, :shared_width]
            if column
            else self._no_seam,
            self._files.column_seams[column][:, :height, : width - final_width]
            if column + 1 < grid.x.n_tiles
            else self._no_seam,
            self._files.row_seams[(row + 1) % 2][:, :shared_height, inside],
            self._files.row_seams[row % 2][:, : height - final_height, inside],
            pixels.reshape(-1),
            (top * image_width + left) * bands,
            image_width * bands,
            *self._rounding,
        )
        if broken:
            raise InferenceError(
                f"model {self._plan.model.name} gave NaN or infinity in {broken} values of tile "
                f"{index} ({self._plan.source_of(index)} of {self._plan.image.path}): "
                + (
                    "half precision overflows there; use a float32 model."
                    if self._plan.model.dtype == "float16"
                    else "the model file is broken, or wants another value range (--range)."
                )
            )
        if source is not None:
            self._keep_no_data(
                index, pixels[top : top + final_height, left : left + final_width], source
            )
        self._next_tile += 1
        # What was really stored, not what the grid promises: a gap must not go unseen.
        self.stored_px += final_width * final_height
        self._below_crc.append(self._files.below_crc(row, column))
        self._pixels_crc = self._files.pixels_crc(row, column, self._pixels_crc)
        if column + 1 == grid.x.n_tiles:
            self._pixels_crcs.append(self._pixels_crc)
            self._pixels_crc = 0
            self._above_crc, self._below_crc = tuple(self._below_crc), []
            self._row_stored_px = self.stored_px

    def _keep_no_data(self, index: int, pixels: Pixels, source: Pixels) -> None:
        before, after = self._no_data
        if before is None:
            return
        if not keep_no_data(pixels, source, self._plan.scale, before, after):
            raise ReadError(
                f"{self._plan.image.path} has NaN or infinity at {self._plan.source_of(index)}, which "
                "the integers of --depth do not hold: say with --nodata which value means no data, or "
                "leave --depth out."
            )

    def checkpoint(self, filled_tiles: tuple[int, ...]) -> None:
        """Bring pixels and seams to the disk, and then a record of how far they are.

        Args:
            filled_tiles: tiles whose input could not be read whole, blended or not.

        Raises:
            WriteError: the disk is full or broken; the last checkpoint is untouched.
        """
        column = self._next_tile % self._plan.grid.x.n_tiles
        checkpoint = Checkpoint(
            job=self._job,
            next_tile=self._next_tile,
            stored_px=self.stored_px,
            above_crc=self._above_crc,
            below_crc=tuple(self._below_crc),
            left_crc=self._files.left_crc(column) if column else None,
            row_stored_px=self._row_stored_px,
            pixels_crcs=tuple(self._pixels_crcs),
            pixels_crc=self._pixels_crc,
            filled_tiles=tuple(tile for tile in filled_tiles if tile < self._next_tile),
        )
        try:
            self._files.flush()
            save_checkpoint(Path(self._plan.job_dir), checkpoint, self._slot)
        except OSError as error:
            raise WriteError(
                f"the checkpoint in {self._plan.job_dir} cannot be written ({error.strerror}): "
                "check the disk and its free space."
            ) from None
        self._slot += 1

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
