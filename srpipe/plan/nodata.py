"""Which samples of an image hold nothing, and how they stay so.

A value says it, GDAL's tag or an option tells which, and in floats NaN and infinity say it too. In a
picture, grey or RGB, a pixel is empty where all its colors have the value, since one may have it by
chance (gdalwarp takes them so); in data each band is by itself, as GDAL has it. NaN and infinity are
always by themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.plan.alpha_fill import Holes
from srpipe.plan.pixels import PixelDtype, Pixels, limits


@dataclass(frozen=True, slots=True, kw_only=True)
class NoData:
    """What is empty in an image."""

    value: float | None
    """Of its type; None: no value means it."""
    together: int
    """So many bands, from the first, are empty only where all of them have the value."""
    alpha: int | None
    """The band that is alpha, in which the value is a share unless it is negative."""
    dtype: PixelDtype

    def find(self, pixels: Pixels) -> Holes | None:
        """Which of (height, width, bands) samples are empty; None: none is."""
        holes = self.find_value(pixels)
        if self.dtype == "float32":
            broken = ~np.isfinite(pixels)
            if broken.any():
                return broken if holes is None else holes | broken
        return holes

    def find_value(self, pixels: npt.NDArray[Any]) -> Holes | None:
        """Which of (height, width, bands) samples have the value; None: none has."""
        if self.value is None:
            return None
        holes: Holes = pixels == pixels.dtype.type(self.value)
        if not holes.any():
            return None
        if self.together > 1:
            colors = holes[..., : self.together]
            colors[...] = colors.all(axis=-1, keepdims=True)
        if self.alpha is not None and self.value >= 0:
            holes[..., self.alpha] = False
        return holes if holes.any() else None

    @property
    def beside(self) -> float:
        """What samples become that would have the value, but are not empty: the number next to it."""
        assert self.value is not None
        if self.dtype == "float32":
            towards = np.float32(1 if self.value == 0 else 0)
            return float(np.nextafter(np.float32(self.value), towards))
        return self.value + (1 if self.value == limits(self.dtype)[0] else -1)


def read_value(value: float | None, dtype: PixelDtype) -> float | None:
    """A no-data value as images of a type have it; None: none of their samples can be it, or it is NaN,
    which needs no value.
    """
    if value is None or math.isnan(value):
        return None
    if dtype == "float32":
        with np.errstate(over="ignore"):
            number = float(np.float32(value))
        return number if math.isfinite(number) else None
    lowest, highest = limits(dtype)
    return int(value) if lowest <= value <= highest and value == int(value) else None


def converted_value(value: float, before: PixelDtype, after: PixelDtype) -> float:
    """The no-data value of an image in another type: the same if that holds it, the largest for the
    largest, or else the smallest.
    """
    same = read_value(value, after)
    if same is not None:
        return same
    lowest, highest = limits(after)
    return highest if value == limits(before)[1] else lowest


def keep_no_data(
    pixels: npt.NDArray[Any], source: Pixels, scale: int, before: NoData, after: NoData | None
) -> bool:
    """Make samples of a result empty whose source is, and no others.

    Args:
        pixels: (height, width, bands), the result; changed.
        source: what it was made of, (height / scale, width / scale, bands) or more.
        scale: output pixels per input pixel.
        before: what is empty in ``source``.
        after: what is empty in ``pixels``; None: nothing can be.

    Returns:
        Whether it could be done: a type without NaN needs a value.
    """
    taken = after.find_value(pixels) if after is not None else None
    if after is not None and taken is not None:
        pixels[taken] = after.beside
    height, width = pixels.shape[:2]
    source = source[: -(-height // scale), : -(-width // scale)]
    holes = before.find(source)
    if holes is None:
        return True
    nearest = np.ix_(np.arange(height) // scale, np.arange(width) // scale)
    place = holes[nearest]
    if pixels.dtype == source.dtype:
        pixels[place] = source[nearest][place]
    elif after is None or after.value is None:
        return False
    else:
        pixels[place] = after.value
    return True
