"""Blending weights of one axis: they sum to one by construction.

A ramp belongs to a pair of neighbours and is defined by the grid alone. Ramps of one axis never
touch, so a pixel has one weight below one at most twice, and the pair adds up to one:

    tile i    ───────────╲
    tile i+1              ╲───────────        the ramp, centred in the overlap
             ├trim┤ ramp ├trim┤

feather: trim the border that lacks context, then ramp; crop: a hard cut in the middle; mean: the
plain average of all tiles that cover the pixel. An image border never ramps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

from srpipe.plan.geometry import round_up
from srpipe.plan.grid import AxisGrid
from srpipe.settings import Blend

Weights = npt.NDArray[np.float32]

MAX_DEFAULT_OVERLAP_PX = 64
"""More than a quarter of the usual tile costs too much to be a default."""
# The ramp that is left where the overlap is chosen from what has to be trimmed.
_DEFAULT_RAMP_PX = 4


def overlap_for(halo_px: int) -> int:
    """The overlap, input pixels, that leaves a short ramp when both tiles' halos are trimmed."""
    return round_up(2 * halo_px + _DEFAULT_RAMP_PX, 4)


def default_trim_px(overlap_px: int, halo_px: int | None) -> int:
    """Input pixels of each tile's border to leave out of a feathered seam.

    With an overlap of at least twice the halo all that lacks context is left out, and the blend
    equals the whole-image result; else, or where there is room, half of the overlap is left for the
    ramp.
    """
    if halo_px is not None and 2 * halo_px <= overlap_px:
        return max(halo_px, overlap_px // 4)
    return overlap_px // 4


def ramp_px(axis: AxisGrid, pair: int, blend: Blend, trim_px: int, scale: int) -> tuple[int, int]:
    """The ramp between tiles ``pair`` and ``pair + 1``: [start, stop) on the axis, output pixels."""
    stride = axis.starts_px[pair + 1] - axis.starts_px[pair]
    shared_px = axis.tile_px - stride
    # Scaled by two: the middle of an overlap may lie between two pixels.
    middle2 = (2 * axis.starts_px[pair + 1] + shared_px) * scale
    half2 = 0
    if blend == "feather":
        # At most half a stride to each side, or two ramps of a dense grid would meet.
        half2 = max(0, min(shared_px - 2 * trim_px, stride)) * scale
    start = -((half2 - middle2) // 2)
    return start, max(start, (middle2 + half2) // 2)


def axis_weights(axis: AxisGrid, index: int, blend: Blend, trim_px: int, scale: int) -> Weights:
    """Weights of tile ``index`` along the axis.

    Args:
        axis: the grid of the axis, input pixels.
        index: which tile.
        blend: kind of seam.
        trim_px: input pixels at each side of an overlap that a feathered ramp leaves out.
        scale: output pixels per input pixel.

    Returns:
        float32, one weight per output pixel that the tile covers of the image, in [0, 1].
    """
    length = axis.covered_px(index) * scale
    origin = axis.starts_px[index] * scale
    if blend == "mean":
        return _mean_weights(axis, index, scale)
    weights = np.ones(length, np.float32)
    if index > 0:
        start, stop = (p - origin for p in ramp_px(axis, index - 1, blend, trim_px, scale))
        weights[: max(start, 0)] = 0
        weights[start:stop] = _rising(stop - start)
    if index + 1 < axis.n_tiles:
        start, stop = (p - origin for p in ramp_px(axis, index, blend, trim_px, scale))
        weights[start:stop] = 1 - _rising(stop - start)
        weights[stop:] = 0
    return weights


def _rising(width: int) -> Weights:
    """Centres of ``width`` pixels on a straight line from 0 to 1."""
    return ((np.arange(width) + 0.5) / max(width, 1)).astype(np.float32)


def _mean_weights(axis: AxisGrid, index: int, scale: int) -> Weights:
    begin = axis.starts_px[index]
    end = begin + axis.covered_px(index)
    count = np.zeros(end - begin, np.float32)
    first = bisect_right(axis.starts_px, begin - axis.tile_px)
    for start in axis.starts_px[first : bisect_left(axis.starts_px, end)]:
        count[max(start - begin, 0) : start + axis.tile_px - begin] += 1
    return np.repeat(1 / count, scale)
