"""What arrays of pixels are called, and which types they have."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

PixelDtype = Literal["uint8", "uint16", "int16", "float32"]
Pixels = (
    npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int16] | npt.NDArray[np.float32]
)
Planes = npt.NDArray[np.float32]


def in_unit(pixels: Pixels) -> Planes:
    """Pixels as numbers from 0 to 1 over the range of their type; 0 for NaN."""
    lowest, highest = limits(pixels.dtype.name)  # type: ignore[arg-type]
    unit: Planes = (pixels.astype(np.float32) - np.float32(lowest)) / np.float32(highest - lowest)
    return np.nan_to_num(unit, nan=0.0, posinf=1.0, neginf=0.0)


def limits(dtype: PixelDtype) -> tuple[float, float]:
    """The smallest and largest integer of a type; of floats what is black and white by default."""
    if dtype == "float32":
        return 0.0, 1.0
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)
