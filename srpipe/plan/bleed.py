"""Colours under transparency: what nobody sees there must not shine through as a halo.

Under alpha 0 an image editor leaves whatever colour it likes, black mostly. A model that sees it takes
the outline of what is opaque for an edge against black, and gives it a dark rim. So fully transparent
pixels get the mean colour of the nearest that are not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from srpipe.plan.pixels import Pixels

_RADII_PX = (1, 2, 4, 8, 16)
RADIUS_PX = _RADII_PX[-1]
"""How far a colour bleeds; farther away nothing changes."""


def bleed(pixels: Pixels, colours: int, alpha: int) -> Pixels:
    """Give fully transparent pixels the mean colour of the smallest square around them that shows any.

    What a visible pixel has at a distance is decided within about twice that distance, so that tiles
    differ from the whole image no farther than that from their borders.

    Args:
        pixels: (height, width, bands).
        colours: bands, from the first, that are colours.
        alpha: the band that is alpha.

    Returns:
        ``pixels`` themselves where none is transparent, or all are; else a copy.
    """
    left = pixels[..., alpha] == 0
    if not left.any() or left.all():
        return pixels
    import cv2  # only images with holes need it

    # Sums of integers in float64 are exact, whatever else is in the array.
    weights = (~left).astype(np.float64)
    seen = pixels[..., :colours].astype(np.float64) * weights[..., np.newaxis]
    result = pixels.copy()
    for radius in _RADII_PX:
        side = 2 * radius + 1

        def total(values: npt.NDArray[np.float64], side: int = side) -> npt.NDArray[np.float64]:
            size, border = (side, side), cv2.BORDER_CONSTANT
            sums: npt.NDArray[np.float64] = np.empty_like(values)
            cv2.boxFilter(values, cv2.CV_64F, size, sums, normalize=False, borderType=border)
            return sums

        count = total(weights)
        filled = left & (count > 0)
        means = total(seen)[filled] / count[filled][:, np.newaxis]
        result[filled, :colours] = np.floor(means + 0.5)
        left &= ~filled
        if not left.any():
            break
    return result
