"""Bicubic resampling with antialiasing, as MATLAB's ``imresize`` does it.

Published PSNR figures of super-resolution networks rest on this very function: bicubic kernel of
Keys ("Cubic convolution interpolation for digital image processing", 1981) with a = -0.5, widened
by the scale when shrinking, and a border continued symmetrically.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_KEYS_A = -0.5
_KERNEL_WIDTH = 4.0

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


def cubic_kernel(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic kernel at `distance` (in samples, any shape)."""
    x = np.abs(distance)
    near = (_KEYS_A + 2) * x**3 - (_KEYS_A + 3) * x**2 + 1
    far = _KEYS_A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def axis_weights(
    length_px: int, scale: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Which input samples make each output sample of one axis, and with what weight.

    Returns `(indices, weights)`, both of shape `(ceil(length_px * scale), taps)`. Every row of the
    weights sums to one. Samples beyond the border are mirrored, the edge sample repeated.
    """
    out_length_px = math.ceil(length_px * scale)
    stretch = max(1.0, 1.0 / scale)
    width = _KERNEL_WIDTH * stretch
    centre = (np.arange(out_length_px) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2).astype(np.intp)
    positions = first[:, None] + np.arange(math.ceil(width) + 2)[None, :]
    weights = cubic_kernel((centre[:, None] - positions) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0, axis=0)
    positions, weights = positions[:, used], weights[:, used]
    folded = np.mod(positions, 2 * length_px)
    indices = np.where(folded < length_px, folded, 2 * length_px - 1 - folded)
    return indices, weights


def imresize(image: npt.NDArray[Any], scale: float) -> FloatArray:
    """Resize `image` (height, width, channels; any real type) by `scale`, without clipping.

    The output has `ceil(height * scale)` rows and `ceil(width * scale)` columns, in the units of
    the input, as float32.
    """
    result = np.asarray(image, dtype=np.float32)
    for axis in (0, 1):
        indices, weights = axis_weights(result.shape[axis], scale)
        shape = [1] * result.ndim
        shape[axis] = indices.shape[0]
        total = np.zeros(
            (*result.shape[:axis], indices.shape[0], *result.shape[axis + 1 :]), np.float32
        )
        for tap in range(indices.shape[1]):
            weight = weights[:, tap].astype(np.float32).reshape(shape)
            total += np.take(result, indices[:, tap], axis=axis) * weight
        result = total
    return result


def to_bytes(image: npt.NDArray[Any]) -> ByteArray:
    """Round `image` (0..255, any shape) half up and clip it to eight bits, as MATLAB's uint8()."""
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)
