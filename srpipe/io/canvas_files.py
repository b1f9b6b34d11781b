"""The files of a canvas in the job's folder: final pixels, and the seams' partial sums."""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.io import disk
from srpipe.io.checkpoint import Checkpoint
from srpipe.io.space import reserve_file
from srpipe.plan.job import Plan
from srpipe.plan.memory import count

PIXELS_FILE = "pixels.raw"
SEAMS_FILE = "seams.raw"


def reserve_canvas(plan: Plan) -> None:
    """Create the files of a canvas in the job folder, with all their space taken and on the disk.

    Raises:
        SpaceError: too little disk.
    """
    for name, n_bytes in ((PIXELS_FILE, plan.pixels_bytes), (SEAMS_FILE, plan.seam_shapes.n_bytes)):
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
        pixel = np.dtype(plan.image.numpy_dtype)
        n_samples = size.pixels * plan.image.bands
        self.pixels: npt.NDArray[Any] = np.frombuffer(self._pixels_map, pixel, n_samples).reshape(
            size.height, size.width, plan.image.bands
        )
        """(height, width, bands) in the input's depth."""
        rows, columns = count(shapes.rows), count(shapes.columns)
        seams = np.frombuffer(self._seams_map, np.float32, rows + columns)
        self.row_seams: npt.NDArray[np.float32] = seams[:rows].reshape(shapes.rows)
        self.column_seams: npt.NDArray[np.float32] = seams[rows:].reshape(shapes.columns)
        self._plan = plan

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

    def agrees_with(self, checkpoint: Checkpoint) -> bool:
        """Whether the seams are those that ``checkpoint`` speaks of."""
        row, column = divmod(checkpoint.next_tile, self._plan.grid.x.n_tiles)
        return (
            len(checkpoint.below_crc) == column
            and all(self.below_crc(row, c) == checkpoint.below_crc[c] for c in range(column))
            and all(
                self.below_crc(row - 1, c) == checkpoint.above_crc[c]
                for c in range(column, len(checkpoint.above_crc))
            )
            and (not column or self.left_crc(column) == checkpoint.left_crc)
        )


def _map(path: Path, *, writable: bool) -> mmap.mmap:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    with path.open("r+b" if writable else "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


def _crc(values: npt.NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)
