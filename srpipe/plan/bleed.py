"""Colours under transparency: what nobody sees there must not shine through as a halo.

Under alpha 0 an image editor leaves whatever colour it likes, black mostly. A model that sees it takes
the outline of what is opaque for an edge against black, and gives it a dark rim. So fully transparent
pixels get the mean colour of those around them that are not.
"""

from __future__ import annotations

import numpy as np

from srpipe.plan.pixels import Pixels

RADIUS_PX = 16
"""How far a colour bleeds, beyond what models in common use see; farther away nothing changes."""


def bleed(pixels: Pixels, colours: int, alpha: int) -> Pixels:
    """Give fully transparent pixels the mean colour of others in a square of ``2 * RADIUS_PX + 1``.

    Args:
        pixels: (height, width, bands).
        colours: bands, from the first, that are colours.
        alpha: the band that is alpha.

    Returns:
        ``pixels`` themselves where none is transparent, or all are; else a copy.
    """
    clear = pixels[..., alpha] == 0
    if not clear.any() or clear.all():
        return pixels
    import cv2  # only images with holes need it

    side = 2 * RADIUS_PX + 1
    weights = (~clear).astype(np.float32)
    seen = pixels[..., :colours].astype(np.float32) * weights[..., np.newaxis]

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT)

    # Sums of a sliding window may leave a trace of what has left it.
    near = mean(weights) > 0.5 / side**2
    filled = clear & near
    means = mean(seen).reshape(seen.shape)[filled] / mean(weights)[filled][:, np.newaxis]
    result = pixels.copy()
    highest = np.iinfo(pixels.dtype).max
    result[filled, :colours] = np.clip(np.floor(means + np.float32(0.5)), 0, highest)
    return result
