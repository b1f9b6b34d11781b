"""Fills what nobody sees, so that a model is not shown an edge that the picture does not have.

Under alpha 0 an image editor leaves whatever color it likes, black mostly, and no-data is a number far
from all others. A model takes the outline of what is visible for an edge, and gives it a dark rim or
rings. So empty samples get the mean of the nearest that are not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from srpipe.plan.pixels import Pixels

Holes = npt.NDArray[np.bool_]
"""Which samples are empty."""

_RADII_PX = (1, 2, 4, 8, 16)
RADIUS_PX = _RADII_PX[-1]
"""How far away the nearest are looked for."""


def fill(pixels: Pixels, holes: Holes, bands: int, *, whole: float | None = None) -> Pixels:
    """Give empty pixels the mean of the smallest square around them that is not all empty.

    What a visible pixel has at a distance is decided within about twice that distance, so that tiles
    differ from the whole image no farther than that from their borders.

    Args:
        pixels: (height, width, bands).
        holes: (height, width), or (height, width, bands) where bands differ.
        bands: how many bands, from the first, are filled.
        whole: what all samples become where nothing is left to take a mean of; with it, samples farther
            away become the mean of all that are not empty. None: both stay as they are.

    Returns:
        ``pixels`` themselves where nothing changes; else a copy.
    """
    if holes.ndim == 3:
        result = pixels
        for band in range(bands):
            if holes[..., band].any():
                result = pixels.copy() if result is pixels else result
                one = slice(band, band + 1)
                result[..., one] = fill(pixels[..., one], holes[..., band], 1, whole=whole)
        return result
    if not holes.any() or (whole is None and holes.all()):
        return pixels
    result = pixels.copy()
    if whole is not None and holes.all():
        result[..., :bands] = np.array(whole).astype(pixels.dtype)
        return result
    import cv2  # only images with holes need it

    # Sums of integers in float64 are exact, whatever else is in the array.
    weights = (~holes).astype(np.float64)
    seen = pixels[..., :bands].astype(np.float64)
    seen[holes] = 0
    rounding = 0.5 if pixels.dtype.kind in "iu" else 0.0
    left = holes.copy()

    def put(where: Holes, means: npt.NDArray[np.float64]) -> None:
        result[where, :bands] = np.floor(means + rounding) if rounding else means

    for radius in _RADII_PX:
        side = 2 * radius + 1

        def total(values: npt.NDArray[np.float64], side: int = side) -> npt.NDArray[np.float64]:
            size, border = (side, side), cv2.BORDER_CONSTANT
            sums: npt.NDArray[np.float64] = np.empty_like(values)
            cv2.boxFilter(values, cv2.CV_64F, size, sums, normalize=False, borderType=border)
            return sums

        count = total(weights)
        filled = left & (count > 0.5)
        put(filled, total(seen)[filled] / count[filled][:, np.newaxis])
        left &= ~filled
        if not left.any():
            return result
    if whole is not None:
        put(left, seen.sum(axis=(0, 1)) / weights.sum())
    return result
