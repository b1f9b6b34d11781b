"""The only numba code: one tile's weighted planes into seams and final pixels.

A tile's result splits, on each axis, into the pixels that no later tile covers (final) and the rest,
whose partial sums travel on in a seam. Seams are assigned, never added to in place, so repeating a
tile rewrites the same bytes.

A row at a time is summed up in a line of its own, which stays in the processor's nearest cache, and
stored from there. Loops are kept so simple that the compiler turns them into vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

f4, i4, i8 = numba.float32, numba.int32, numba.int64
Float32 = npt.NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

# The exponent of a float32 with all bits set: infinity, or not a number.
_EXPONENT = np.int32(0x7F800000)


def _store_signature(pixel: Any) -> Any:
    return numba.void(f4[:, ::1], pixel[::1], i4, numba.float64)


def _blend_signature(pixel: Any) -> Any:
    seam = f4[:, :, :]
    return i8(
        *(f4[:, :, ::1], i4[:, :, ::1], f4[::1], f4[::1], i8, i8, seam, seam, seam, seam),
        *(pixel[::1], i8, i8, i4, numba.float64),
    )


def _compile(signature: Callable[[Any], Any]) -> Callable[[Function], Function]:
    signatures = [signature(pixel) for pixel in (numba.uint8, numba.uint16, numba.int16, f4)]

    def compile_it(function: Function) -> Function:
        try:
            return cast(Function, numba.njit(signatures, cache=True, nogil=True)(function))
        except RuntimeError:  # a read-only install and no home: nowhere to keep the compiled code
            return cast(Function, numba.njit(signatures, nogil=True)(function))

    return compile_it


@_compile(_store_signature)
def store_row(lines: Float32, pixels: npt.NDArray[Any], lowest: int, span: float) -> None:
    """Round a row of planes half up and store it band by band; or store it as it is.

    Args:
        lines: (bands, width), 0 to 1; numbers of any size where they are stored as they are.
        pixels: (width * bands,); written.
        lowest: the integer that 0.0 becomes.
        span: how much larger the integer is that 1.0 becomes; 0: store floats as they are.
    """
    bands, width = lines.shape
    if span == 0:
        for band in range(bands):
            line = lines[band]
            for x in range(width):
                pixels[bands * x + band] = line[x]
        return
    highest, half, zero = np.float32(span), np.float32(0.5), np.float32(0)
    if bands == 3:  # by far the most usual, and only a constant step is turned into vectors
        red, green, blue = lines[0], lines[1], lines[2]
        for x in range(width):
            value = max(zero, min(red[x] * highest + half, highest))
            pixels[3 * x] = pixels.dtype.type(np.int32(value))
            value = max(zero, min(green[x] * highest + half, highest))
            pixels[3 * x + 1] = pixels.dtype.type(np.int32(value))
            value = max(zero, min(blue[x] * highest + half, highest))
            pixels[3 * x + 2] = pixels.dtype.type(np.int32(value))
    else:
        for band in range(bands):
            line = lines[band]
            for x in range(width):
                value = max(zero, min(line[x] * highest + half, highest))
                pixels[bands * x + band] = pixels.dtype.type(np.int32(value))
    if lowest:  # what was beyond a signed type has wrapped around, and does so again
        for i in range(bands * width):
            pixels[i] = pixels.dtype.type(np.int32(pixels[i]) + lowest)


@_compile(_blend_signature)
def blend_tile(
    planes: Float32,
    bits: npt.NDArray[np.int32],
    weights_x: Float32,
    weights_y: Float32,
    final_width: int,
    final_height: int,
    left: Float32,
    right: Float32,
    top: Float32,
    bottom: Float32,
    pixels: npt.NDArray[Any],
    first: int,
    step: int,
    lowest: int,
    span: float,
) -> int:
    """Blend one tile, all lengths in output pixels.

    Args:
        planes: (bands, >= height, >= width) the result, as :func:`store_row` takes it.
        bits: the same memory, as integers.
        weights_x, weights_y: its weights; their lengths are the tile's covered width and height.
        final_width, final_height: how much of the tile no later tile covers.
        left: (bands, height, shared width) partial sums from the tile to the left; read.
        right: (bands, height, width - final_width) partial sums for the tile to the right; written.
        top: (bands, shared height, final_width) partial sums from the row above; read.
        bottom: (bands, height - final_height, final_width) partial sums for the row below; written.
        pixels: all pixels of the image, flat; written.
        first: where the tile begins in ``pixels``.
        step: samples in a row of the image.
        lowest, span: how numbers become pixels, as for :func:`store_row`.

    Returns:
        How many samples of the tile were NaN or infinite.
    """
    bands = planes.shape[0]
    width = weights_x.shape[0]
    shared_width, shared_height = left.shape[2], top.shape[1]
    lines = np.empty((bands, final_width), np.float32)
    row = np.empty(width, np.float32)
    broken = 0
    for y in range(weights_y.shape[0]):
        weight_y = weights_y[y]
        for band in range(bands):
            values, exponents, line = planes[band, y], bits[band, y], lines[band]
            for x in range(width):
                broken += (exponents[x] & _EXPONENT) == _EXPONENT
                row[x] = values[x] * weights_x[x]
            for x in range(shared_width):
                row[x] += left[band, y, x]
            for x in range(final_width, width):
                right[band, y, x - final_width] = row[x]
            for x in range(final_width):
                line[x] = row[x] * weight_y
            if y < shared_height:
                for x in range(final_width):
                    line[x] += top[band, y, x]
            if y >= final_height:
                for x in range(final_width):
                    bottom[band, y - final_height, x] = line[x]
        if y < final_height:
            begin = first + y * step
            store_row(lines, pixels[begin : begin + final_width * bands], lowest, span)
    return broken
