"""The files of a canvas in the job's folder: final pixels, and the seams' partial sums."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.io.space import reserve_file
from srpipe.plan.job import Plan
from srpipe.plan.memory import count

PIXELS_FILE = "pixels.raw"
SEAMS_FILE = "seams.raw"


def reserve_canvas(plan: Plan) -> None:
    """Create the files of a canvas in the job folder, with all their space taken.

    Raises:
        SpaceError: too little disk.
    """
    reserve_file(os.path.join(plan.job_dir, PIXELS_FILE), plan.pixels_bytes)
    reserve_file(os.path.join(plan.job_dir, SEAMS_FILE), plan.seam_shapes.n_bytes)


def open_pixels(plan: Plan, mode: Any) -> npt.NDArray[Any]:
    """The final pixels, (height, width, bands) in the input's depth; mode as numpy.memmap's."""
    size = plan.output_size
    shape = (size.height, size.width, plan.image.bands)
    path = Path(plan.job_dir, PIXELS_FILE)
    return np.memmap(path, plan.image.numpy_dtype, mode, shape=shape)


def open_seams(plan: Plan) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Row and column seams, float32 in the shapes of ``plan.seam_shapes``."""
    shapes = plan.seam_shapes
    flat = np.memmap(Path(plan.job_dir, SEAMS_FILE), np.float32, "r+")
    rows, columns = count(shapes.rows), count(shapes.columns)
    return (
        np.asarray(flat[:rows]).reshape(shapes.rows),
        np.asarray(flat[rows : rows + columns]).reshape(shapes.columns),
    )
