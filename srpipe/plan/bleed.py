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

    weights = (~left).astype(np.float32)
    seen = pixels[..., :colours].astype(np.float32) * weights[..., np.newaxis]
    result = pixels.copy()
    highest = np.iinfo(pixels.dtype).max
    for radius in _RADII_PX:
        side = 2 * radius + 1

        def mean(values: npt.NDArray[np.float32], side: int = side) -> npt.NDArray[np.float32]:
            blurred = cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT)
            return np.asarray(blurred, np.float32).reshape(values.shape)

        share = mean(weights)
        # Sums of a sliding window may leave a trace of what has left it.
        filled = left & (share > 0.5 / side**2)
        means = mean(seen)[filled] / share[filled][:, np.newaxis]
        result[filled, :colours] = np.clip(np.floor(means + np.float32(0.5)), 0, highest)
        left &= ~filled
        if not left.any():
            break
    return result
