"""The files of a canvas in the job's folder: final pixels, and the seams' partial sums."""

from __future__ import annotations

import mmap
import operator
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.io import disk
from srpipe.io.checkpoint import CHECKPOINT_FILES, Checkpoint, checkpoint_bytes
from srpipe.io.processor import available_cores
from srpipe.io.small_files import open_regular
from srpipe.io.space import reserve_file
from srpipe.plan.job import Plan
from srpipe.plan.memory import count

PIXELS_FILE = "pixels.raw"
SEAMS_FILE = "seams.raw"


def reserve_canvas(plan: Plan) -> None:
    """Create the files of a canvas and its checkpoints in the job folder, with all their space taken
    and on the disk.

    Raises:
        SpaceError: too little disk.
    """
    grid = plan.grid
    record_bytes = checkpoint_bytes(grid.x.n_tiles, grid.y.n_tiles, fills=plan.on_error == "fill")
    sizes = {PIXELS_FILE: plan.pixels_bytes, SEAMS_FILE: plan.seam_shapes.n_bytes}
    for name, n_bytes in (sizes | dict.fromkeys(CHECKPOINT_FILES, record_bytes)).items():
        path = Path(plan.job_dir, name)
        reserve_file(os.fspath(path), n_bytes)
        disk.sync_file(path)


class CanvasFiles:
    """Maps of the pixels and seams of a job."""

    def __init__(self, plan: Plan, *, writable: bool) -> None:
        """Map the files that :func:`reserve_canvas` made.

        Raises:
            OSError: one is missing.
            ValueError: one is too short.
        """
        self._pixels_map = _map(Path(plan.job_dir, PIXELS_FILE), writable=writable)
        self._seams_map = _map(Path(plan.job_dir, SEAMS_FILE), writable=writable)
        size, shapes = plan.canvas_size, plan.seam_shapes
        pixel = np.dtype(plan.written.numpy_dtype)
        n_samples = size.pixels * plan.image.bands
        self.pixels: npt.NDArray[Any] = np.frombuffer(self._pixels_map, pixel, n_samples).reshape(
            size.height, size.width, plan.image.bands
        )
        """(height, width, bands) in the output's depth."""
        rows, columns = count(shapes.rows), count(shapes.columns)
        seams = np.frombuffer(self._seams_map, np.float32, rows + columns)
        self.row_seams: npt.NDArray[np.float32] = seams[:rows].reshape(shapes.rows)
        self.column_seams: npt.NDArray[np.float32] = seams[rows:].reshape(shapes.columns)
        self._plan = plan
        self._known_crcs: dict[tuple[int, int], int] = {}
        """Of pixels, by row and columns, as they were when they were checked."""

    def flush(self) -> None:
        """Bring all that was written to the disk."""
        disk.flush_map(self._pixels_map)
        disk.flush_map(self._seams_map)

    def below_crc(self, row: int, column: int) -> int:
        """CRC-32 of what the tile in ``row`` and ``column`` leaves for the row below it."""
        grid, scale = self._plan.grid, self._plan.scale
        left = grid.x.starts_px[column] * scale
        inside = slice(left, left + grid.x.final_px(column) * scale)
        return _crc(self.row_seams[row % 2][:, :, inside])

    def left_crc(self, column: int) -> int:
        """CRC-32 of the seam to the left of the tile in ``column``."""
        return _crc(self.column_seams[column - 1])

    def pixels_crc(self, row: int, column: int, before: int = 0) -> int:
        """CRC-32 of what the tile in ``row`` and ``column`` has stored.

        Args:
            row, column: of the tile.
            before: CRC-32 that it goes on from.
        """
        grid, scale = self._plan.grid, self._plan.scale
        left, top = grid.x.starts_px[column] * scale, grid.y.starts_px[row] * scale
        right = left + grid.x.final_px(column) * scale
        bottom = top + grid.y.final_px(row) * scale
        return _crc(self.pixels[top:bottom, left:right], before)

    def agrees_with(self, checkpoint: Checkpoint) -> bool:
        """Whether seams and pixels are those that ``checkpoint`` speaks of."""
        grid = self._plan.grid
        row, column = divmod(checkpoint.next_tile, grid.x.n_tiles)
        possible = (
            0 <= checkpoint.next_tile <= grid.n_tiles
            and len(checkpoint.below_crc) == column
            and len(checkpoint.above_crc) == (grid.x.n_tiles if row else 0)
            and len(checkpoint.pixels_crcs) == row
        )
        return possible and self._seams_agree(checkpoint) and self._pixels_agree(checkpoint)

    def _pixels_agree(self, checkpoint: Checkpoint) -> bool:
        row, column = divmod(checkpoint.next_tile, self._plan.grid.x.n_tiles)
        if self._row_crc(row, column) != checkpoint.pixels_crc:
            return False
        # All cores, for a disk may be faster than one.
        with ThreadPoolExecutor(available_cores()) as pool:
            try:
                found = pool.map(self._row_crc, range(row))
                return all(map(operator.eq, found, checkpoint.pixels_crcs))
            finally:
                pool.shutdown(cancel_futures=True)

    def _row_crc(self, row: int, columns: int | None = None) -> int:
        """CRC-32 of what the first tiles of a row, or all, have stored."""
        columns = self._plan.grid.x.n_tiles if columns is None else columns
        known = self._known_crcs
        if (row, columns) not in known:
            crc = 0
            for column in range(columns):
                crc = self.pixels_crc(row, column, crc)
            known[row, columns] = crc
        return known[row, columns]

    def _seams_agree(self, checkpoint: Checkpoint) -> bool:
        row, column = divmod(checkpoint.next_tile, self._plan.grid.x.n_tiles)
        return (
            all(self.below_crc(row, c) == checkpoint.below_crc[c] for c in range(column))
            and all(
                self.below_crc(row - 1, c) == checkpoint.above_crc[c]
                for c in range(column, len(checkpoint.above_crc))
            )
            and (not column or self.left_crc(column) == checkpoint.left_crc)
        )


def _map(path: Path, *, writable: bool) -> mmap.mmap:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    descriptor = open_regular(path, os.O_RDWR if writable else os.O_RDONLY, follow=False)
    try:
        return mmap.mmap(descriptor, 0, access=access)
    finally:
        os.close(descriptor)


def _crc(values: npt.NDArray[Any], before: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data, before)
