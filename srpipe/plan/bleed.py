"""Colours under transparency: those of visible neighbours, before a model sees them.

What lies under alpha 0 is often black, whatever the colour beside it. A model, and any resizing, would
mix it into the visible edge, which then shows as a dark halo over another background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.plan.colour import Pixels

_STEPS_PX = (1, 2, 4, 8)

BLEED_RADIUS_PX = sum(_STEPS_PX)
"""How far the colour of a visible pixel gets, on each axis; what is farther from any stays as it is."""


def bleed_colours(pixels: Pixels) -> None:
    """Give fully transparent pixels the mean colour of those around them, the nearest first; in place.

    A pixel's new colour depends only on what lies within :data:`BLEED_RADIUS_PX`, so two tiles agree
    on what they share, but for that much along their borders. Sums of integers are exact, wherever
    the tile begins.

    Args:
        pixels: (height, width, bands), alpha last; alpha and whatever is not fully transparent stay.
    """
    alpha = pixels[..., -1]
    if alpha.all() or not alpha.any():
        return
    import cv2  # only images with transparency need it

    known = (alpha != 0).astype(np.float64)
    colours: npt.NDArray[Any] = pixels[..., :-1] * known[..., np.newaxis]
    for step_px in _STEPS_PX:
        n_around, sums = (
            cv2.boxFilter(
                values, -1, (2 * step_px + 1,) * 2, normalize=False, borderType=cv2.BORDER_CONSTANT
            )
            for values in (known, colours)
        )
        sums = sums.reshape(colours.shape)
        new = (known == 0) & (n_around > 0)
        colours[new] = np.floor(sums[new] / n_around[new][:, np.newaxis] + 0.5)
        known[new] = 1
    filled = (alpha == 0) & (known > 0)
    pixels[filled, :-1] = colours[filled]
