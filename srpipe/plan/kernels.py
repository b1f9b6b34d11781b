"""The only numba code: one tile's weighted planes into seams and final pixels.

A tile's result splits, on each axis, into the pixels that no later tile covers (final) and the rest,
whose partial sums travel on in a seam. Seams are assigned, never added to in place, so repeating a
tile rewrites the same bytes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

f4 = numba.float32
Float32 = npt.NDArray[np.float32]


def _signature(pixel: Any) -> Any:
    plane, weight, seam = f4[:, :, ::1], f4[::1], f4[:, :, :]
    integer = numba.int64
    return integer(
        *(plane, weight, weight, integer, integer, seam, seam, seam, seam, pixel[:, :, :]),
        numba.float64,
    )


def _compile(function: Any) -> Any:
    signatures = [_signature(numba.uint8), _signature(numba.uint16)]
    try:
        return numba.njit(signatures, cache=True, nogil=True)(function)
    except RuntimeError:  # a read-only install and no home: nowhere to keep the compiled code
        return numba.njit(signatures, nogil=True)(function)


@_compile
def blend_tile(
    planes: Float32,
    weights_x: Float32,
    weights_y: Float32,
    final_width: int,
    final_height: int,
    left: Float32,
    right: Float32,
    top: Float32,
    bottom: Float32,
    pixels: npt.NDArray[Any],
    white: float,
) -> int:
    """Blend one tile, all lengths in output pixels.

    Args:
        planes: (bands, >= height, >= width) the result, 0 to 1.
        weights_x, weights_y: its weights; their lengths are the tile's covered width and height.
        final_width, final_height: how much of the tile no later tile covers.
        left: (bands, height, shared width) partial sums from the tile to the left; read.
        right: (bands, height, width - final_width) partial sums for the tile to the right; written.
        top: (bands, shared height, final_width) partial sums from the row above; read.
        bottom: (bands, height - final_height, final_width) partial sums for the row below; written.
        pixels: (final_height, final_width, bands) unsigned integers; written, rounded half up.
        white: the integer that 1.0 becomes.

    Returns:
        How many samples of the tile were NaN or infinite.
    """
    bands = planes.shape[0]
    width = weights_x.shape[0]
    shared_width = left.shape[2]
    shared_height = top.shape[1]
    highest = np.float32(white)
    half = np.float32(0.5)
    broken = 0
    for y in range(weights_y.shape[0]):
        weight_y = weights_y[y]
        for band in range(bands):
            for x in range(width):
                value = planes[band, y, x]
                broken += not np.isfinite(value)
                value *= weights_x[x]
                if x < shared_width:
                    value += left[band, y, x]
                if x >= final_width:
                    right[band, y, x - final_width] = value
                    continue
                value *= weight_y
                if y < shared_height:
                    value += top[band, y, x]
                if y >= final_height:
                    bottom[band, y - final_height, x] = value
                    continue
                value = value * highest + half
                value = max(np.float32(0), min(value, highest))
                pixels[y, x, band] = pixels.dtype.type(value)
    return broken
