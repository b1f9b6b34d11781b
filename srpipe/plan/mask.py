"""What of an image the model is used for: a mask, and tiles that are left out as background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srpipe.plan.colour import Pixels, Planes
from srpipe.plan.geometry import Rect, Size

Grey = npt.NDArray[np.uint8]

# Pixels looked at before all of them are: most tiles are no background, and soon show it.
_SAMPLE_STEP_PX = 16
_WHITE = 255


@dataclass(frozen=True, slots=True)
class MaskInfo:
    """A mask's file."""

    path: str
    sha256: str
    """Of its content."""
    share: float
    """Of the image that it enhances."""


def white_level(dtype: str, highest: float) -> float | None:
    """Which value of a mask is white: 1, 255, or the highest of its type.

    Args:
        dtype: numpy's name of its type.
        highest: of its values.

    Returns:
        None where nothing is known to be white in numbers as high as these.
    """
    whites = [1.0, 255.0, 65535.0]
    if dtype.startswith("float"):  # resizing overshoots
        return next((white for white in whites if highest <= 2 * white), None)
    most = min(65535.0, float(np.iinfo(dtype).max))
    return next((w for w in (*whites[:2], most) if round(highest) <= w <= most), None)


class Mask:
    """How much of the model's result is taken at each pixel: all of it where the mask is white.

    The mask lies over the whole image; between its pixels it is interpolated, linearly.
    """

    def __init__(self, values: Grey, size: Size) -> None:
        """Lay a mask over an image.

        Args:
            values: (height, width), 0 to 255.
            size: of the image.
        """
        self._values = values
        self._size = size

    def share(self, rect: Rect) -> float:
        """How much of a rectangle of the image is enhanced, from 0 to 1."""
        return float(self._around(rect).mean(dtype=np.float64)) / _WHITE

    def is_black(self, rect: Rect) -> bool:
        """Whether nothing is taken of the model's result in a rectangle of the image."""
        return not self._around(rect).any()

    def is_white(self, rect: Rect) -> bool:
        """Whether nothing but the model's result is taken in a rectangle of the image."""
        return bool((self._around(rect) == _WHITE).all())

    def weights(self, rect: Rect, scale: int) -> Planes:
        """Shares of the model's result.

        Args:
            rect: of the image; beyond its border the mask is as at its border.
            scale: output pixels per input pixel.

        Returns:
            (height, width) float32 in [0, 1], output pixels.
        """
        height, width = self._values.shape
        y, down = _places(rect.top, rect.height, self._size.height, height, scale)
        x, right = _places(rect.left, rect.width, self._size.width, width, scale)
        top, left = int(y[0]), int(x[0])
        part = self._values[top : int(y[-1]) + 2, left : int(x[-1]) + 2].astype(np.float32)
        y, x = y - top, x - left
        y_next, x_next = np.minimum(y + 1, len(part) - 1), np.minimum(x + 1, part.shape[1] - 1)
        lines = part[y] + (part[y_next] - part[y]) * down[:, np.newaxis]
        mixed = lines[:, x] + (lines[:, x_next] - lines[:, x]) * right
        return mixed / np.float32(_WHITE)

    def _around(self, rect: Rect) -> Grey:
        """All of its pixels that have a part in a rectangle."""
        height, width = self._values.shape
        rows = _around(rect.top, rect.height, self._size.height, height)
        return self._values[rows, _around(rect.left, rect.width, self._size.width, width)]


def _around(start: int, length: int, image_px: int, mask_px: int) -> slice:
    """The mask's pixels that any point of a stretch of an axis lies between."""
    ends = np.array([start, start + length]) * (mask_px / image_px) - 0.5
    first, last = np.clip(ends, 0, mask_px - 1).astype(np.int64)
    return slice(int(first), int(last) + 2)


def _places(
    start: int, length: int, image_px: int, mask_px: int, scale: int
) -> tuple[npt.NDArray[np.int64], Planes]:
    """For each output pixel of an axis the mask's pixel before it, and how far it is to the next."""
    centres = (start + (np.arange(length * scale) + 0.5) / scale) * (mask_px / image_px) - 0.5
    centres = np.clip(centres, 0, mask_px - 1)
    before = centres.astype(np.int64)
    return before, (centres - before).astype(np.float32)


def is_even(pixels: Pixels, range_levels: float) -> bool:
    """Whether no band's values lie further apart than ``range_levels``.

    Args:
        pixels: (height, width, bands).
        range_levels: in the pixels' own numbers.
    """
    bands = pixels.shape[2]
    for step in (_SAMPLE_STEP_PX, 1):
        # Whole rows at once: numpy compares them fast, and three bands slowly.
        rows = pixels[::step, ::step]
        rows = rows.reshape(len(rows), -1)
        highest = rows.max(axis=0).reshape(-1, bands).max(axis=0).astype(np.float64)
        lowest = rows.min(axis=0).reshape(-1, bands).min(axis=0)
        if (highest - lowest > range_levels).any():
            return False
    return True
