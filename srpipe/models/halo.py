"""How much of a tile's border to leave out, measured on a photograph: the model's halo.

A part of a photograph goes through the model whole, and so does its middle as a tile of its own. What
the tile lacks is what lies beyond its border; how much a pixel differs for that, by its distance
from the border, tells what any halo and any overlap are worth. That takes two runs, of 192x192
and 128x128 pixels, whatever the model.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srpipe.io.session import Session
from srpipe.models.sample import middle_square, read_photograph
from srpipe.plan.colour import ColourPath, Pixels, Planes
from srpipe.plan.geometry import round_up
from srpipe.plan.grid import AxisGrid
from srpipe.plan.job import DEFAULT_TILE_SIZE_PX
from srpipe.plan.model_info import ModelInfo, put_inside
from srpipe.plan.window import MAX_DEFAULT_OVERLAP_PX, axis_weights, default_trim_px, overlap_for

logger = logging.getLogger(__name__)

AIM_LEVELS = 0.1
"""What a halo leaves at worst on our photograph. Others, on which it must be 0.5 (srpipe.models.seams),
are harder by up to 2 pixels of halo: docs/models.md has the figures of 59."""
_TILE_PX = 128
_BEYOND_PX = 32
_MOST_PX = 384
# Where even twice as much gains less, an overlap is enough.
_GAIN_DB = 1.0
_OVERLAPS_PX = (16, 32)
# Differences that fall by less than half from here to the tile's middle do not come from its border.
_NEAR_PX = (8, 16)
_FAR_SHARE = 0.5
_SAY_SO_AFTER_S = 1.5
# Of the processor, which does not depend on what else the machine does.
_TILE_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Halo:
    """What to leave out at a tile's border, and why so much."""

    px: int
    """Input pixels."""
    exact: bool
    """Whether the rest is the whole result, but for :data:`AIM_LEVELS`; else the halo is a quarter of
    the overlap beyond which twice as much gains under 1 dB."""


def measure_halo(info: ModelInfo, session: Session) -> Halo | None:
    """Compare a tile with the whole on a photograph.

    Args:
        info: the model, probed.
        session: of the model, on the CPU: so the halo is the same on every device.

    Returns:
        None where there is none to be found: the model takes one size only, or works on a lattice of
        more than 96 pixels, takes 20 seconds of a core for the tile, fails on the photograph, or
        differs far from the border as it does near it, as global pooling does.
    """
    side_px, beyond_px = _sizes(info)
    if info.height_px is not None or info.width_px is not None or side_px > _MOST_PX:
        return None
    said = threading.Timer(_SAY_SO_AFTER_S, _say_so, (info.name,))
    said.start()
    try:
        differences = _differences(info, session, side_px, beyond_px)
    finally:
        said.cancel()
    return None if differences is None else choose_halo(*differences)


def choose_halo(worst: npt.NDArray[np.float64], power: npt.NDArray[np.float64]) -> Halo | None:
    """The halo that differences by distance from a tile's border speak for.

    Args:
        worst: the largest difference at each distance in input pixels, from 0 on, levels of 255.
        power: the mean of the squared differences there.

    Returns:
        The smallest halo beyond which no difference is above :data:`AIM_LEVELS`; where that takes
        more than the largest default overlap, a quarter of the smallest overlap, feathered, of which
        twice as much lessens the seam's error by less than 1 dB. None where the differences hardly
        depend on the distance.
    """
    halo_px = int(np.max(np.flatnonzero(worst > AIM_LEVELS), initial=-1)) + 1
    if halo_px < len(worst) and overlap_for(halo_px) <= MAX_DEFAULT_OVERLAP_PX:
        return Halo(halo_px, exact=True)
    far = power[3 * len(power) // 4 :].mean()
    near = power[slice(*_NEAR_PX)].mean()
    if math.sqrt(far) > _FAR_SHARE * math.sqrt(near):
        return None
    # What a tile of the usual size has further inside differs no more.
    power = np.append(power, np.full(max(DEFAULT_TILE_SIZE_PX // 2 - len(power), 0), far))
    for overlap_px in _OVERLAPS_PX:
        if _gain_db(power, overlap_px) < _GAIN_DB:
            return Halo(overlap_px // 4, exact=False)
    return Halo(MAX_DEFAULT_OVERLAP_PX // 4, exact=False)


def _say_so(name: str) -> None:
    logger.warning("measuring how much overlap the tiles of model %s need …", name)


def _sizes(info: ModelInfo) -> tuple[int, int]:
    """Side of the whole, and how far the tile is from its border, input pixels on the lattice."""
    tile_px = round_up(max(_TILE_PX, info.least_px), info.multiple_px)
    beyond_px = round_up(_BEYOND_PX, info.multiple_px)
    return tile_px + 2 * beyond_px, beyond_px


def _differences(
    info: ModelInfo, session: Session, side_px: int, beyond_px: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Largest and mean square difference at each distance from the tile's border, levels of 255."""
    picture = middle_square(read_photograph(info.channels), side_px)
    inside = slice(beyond_px, side_px - beyond_px)
    begin_s = time.process_time()
    tile = _enhance(info, session, picture[inside, inside])
    if time.process_time() - begin_s > _TILE_LIMIT_S:
        logger.warning("%s is too slow to measure how much overlap it needs.", info.name)
        return None
    whole = _enhance(info, session, picture)
    if tile is None or whole is None:
        return None
    cut = slice(beyond_px * info.scale, (side_px - beyond_px) * info.scale)
    difference = 255 * np.abs(whole[:, cut, cut] - tile).max(axis=0).astype(np.float64)
    length = len(difference)
    along = np.minimum(np.arange(length), np.arange(length)[::-1]) // info.scale
    distance = np.minimum.outer(along, along).ravel()
    counts = np.bincount(distance)
    worst = np.zeros(len(counts))
    np.maximum.at(worst, distance, difference.ravel())
    return worst, np.bincount(distance, difference.ravel() ** 2) / counts


def _enhance(info: ModelInfo, session: Session, pixels: Pixels) -> Planes | None:
    """(bands, height, width) in [0, 1] as it would be saved; None where there are no numbers."""
    colour = ColourPath(
        bands=info.channels,
        colours=info.channels,
        channels=info.channels,
        bgr=info.bgr,
        value_range=info.value_range,
        white=255,
        highest=255,
        layout=info.layout,
        scale=info.scale,
    )
    height, width, bands = pixels.shape
    shape = (bands, height, width) if info.layout == "NCHW" else (height, width, bands)
    batch = np.empty((info.batch or 1, *shape), info.dtype)
    for entry in batch:
        colour.pack(pixels, entry)
    result = session.run_free(info.input_name, info.output_name, batch)
    if result is None or not np.isfinite(result).all():
        return None
    if info.lost_px:
        result = put_inside(result, info.lost_px, info.layout)
    planes: Planes = np.clip(colour.unpack(result[0], None), 0, 1)
    return planes


def _gain_db(power: npt.NDArray[np.float64], overlap_px: int) -> float:
    """By how much twice the overlap lessens a seam's error."""
    before, after = _seam_power(power, overlap_px), _seam_power(power, 2 * overlap_px)
    return math.inf if after == 0 else 10 * math.log10(before / after)


def _seam_power(power: npt.NDArray[np.float64], overlap_px: int) -> float:
    """Squared error of a feathered seam, summed across it; the errors of its two tiles are taken to
    be independent.
    """
    tile_px = 2 * len(power)
    axis = AxisGrid(2 * tile_px - overlap_px, tile_px, (0, tile_px - overlap_px))
    trim_px = default_trim_px(overlap_px, None)
    rising = axis_weights(axis, 1, "feather", trim_px, 1)[: len(power)].astype(np.float64)
    return 2 * float((rising**2 * power).sum())
