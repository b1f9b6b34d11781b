"""Picks tiles of a user's images that differ from one another, for calibrating and checking.

Tiles of sky or paper are alike by the thousand, and say little of what a model's layers can meet. So
candidates are spread over all images, each is described by brightness, contrast, detail and
saturation, and those are taken that are farthest from all taken before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srpipe.errors import InputError
from srpipe.io.binding import Tensor
from srpipe.io.source import read_image_info
from srpipe.io.tile_reader import TileReader
from srpipe.plan.bands import bands_seen, check_bands, find_black_and_white
from srpipe.plan.colour import ColourPath, Pixels, pad_edges
from srpipe.plan.geometry import Rect, Size, round_up
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.model_info import ModelInfo
from srpipe.plan.pixels import in_unit
from srpipe.settings import Settings

_MAX_CANDIDATES = 512
_MAX_CANDIDATE_BYTES = 128_000_000


@dataclass(frozen=True, slots=True)
class Shares:
    """Tiles by what they are for."""

    calibration: list[Tensor]
    deciding: list[Tensor]
    checking: list[Tensor]


def share_out(tiles: Sequence[Tensor]) -> Shares:
    """Two thirds for calibration, a sixth for deciding, a sixth for checking.

    Raises:
        InputError: fewer than two tiles.
    """
    if len(tiles) < 2:
        raise InputError(
            "the images hold a single tile, and calibrating and checking need two: give more or "
            "larger images, or a smaller tile size."
        )
    if len(tiles) < 6:
        return Shares([*tiles[::2]], [*tiles[1::2]], [*tiles[1::2]])
    rest = [tile for i, tile in enumerate(tiles) if i % 3 != 1]
    return Shares(rest, [*tiles[1::6]], [*tiles[4::6]])


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tile of one image, padded to the tile size."""

    image: ImageInfo
    rect: Rect
    pixels: Pixels


def choose_tiles(
    images: Sequence[str | os.PathLike[str]], model: ModelInfo, n_tiles: int, tile_px: int
) -> list[Tensor]:
    """The tiles of ``images`` that differ most, as the model wants them; the same for the same files.

    Memory is bounded whatever the size of the images: they stream, and some hundred tiles are kept.

    Args:
        images: files that srpipe can read.
        model: what to pack them for; a fixed size of its own replaces ``tile_px``.
        n_tiles: how many at most; fewer if the images hold fewer.
        tile_px: side of a tile, input pixels, rounded up to what the model takes.

    Returns:
        Batches of one tile each, repeated where the model has a fixed batch, most different first.

    Raises:
        InputError: an image cannot be read, or has bands that the model does not take.
        ReadError: an image is truncated or corrupt.
    """
    side = round_up(max(tile_px, model.least_px), model.multiple_px)
    size = Size(model.width_px or side, model.height_px or side)
    infos = [read_image_info(image) for image in images]
    if not infos:
        raise InputError("there is no image to calibrate on: name at least one.")
    for info in infos:
        check_bands(info, model)
    candidates = [candidate for info in infos for candidate in _candidates(info, size, len(infos))]
    features = np.array([describe(candidate.pixels) for candidate in candidates])
    return [_pack(candidates[i], model) for i in farthest_points(features, n_tiles)]


def _candidates(info: ImageInfo, size: Size, n_images: int) -> list[Candidate]:
    """Tiles spread evenly over an image, in the order in which it streams."""
    tile_bytes = size.pixels * info.bands * info.sample_bytes
    most = max(1, min(_MAX_CANDIDATES, _MAX_CANDIDATE_BYTES // tile_bytes) // n_images)
    candidates = []
    reader = TileReader(info)
    for rect in spread_rects(info.size, size, most):
        pixels = np.zeros((size.height, size.width, info.bands), info.numpy_dtype)
        reader.read(rect, pixels)
        pad_edges(pixels, rect.height, rect.width)
        candidates.append(Candidate(info, rect, pixels))
    return candidates


def spread_rects(image: Size, tile: Size, most: int) -> list[Rect]:
    """Up to ``most`` rectangles of a tile's size, evenly over an image, in raster order, none over
    another.
    """
    width, height = min(tile.width, image.width), min(tile.height, image.height)
    across, down = image.width // width, image.height // height
    excess = across * down / most
    if excess > 1:
        across = min(most, max(1, math.floor(across / math.sqrt(excess))))
        down = min(down, most // across)
    lefts = np.linspace(0, image.width - width, across).astype(int)
    tops = np.linspace(0, image.height - height, down).astype(int)
    if across == 1:
        lefts = np.array([(image.width - width) // 2])
    if down == 1:
        tops = np.array([(image.height - height) // 2])
    return [Rect(int(left), int(top), width, height) for top in tops for left in lefts]


def describe(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Mean, contrast, detail and saturation of (height, width, bands) pixels, each about 0 to 1."""
    unit = in_unit(pixels)
    colours = unit[..., :3] if unit.shape[2] >= 3 else unit[..., :1]
    grey = colours.mean(axis=2)
    detail = sum(
        float(np.abs(np.diff(grey, axis=axis)).mean()) for axis in (0, 1) if grey.shape[axis] > 1
    )
    saturation = float((colours.max(axis=2) - colours.min(axis=2)).mean())
    return np.array([grey.mean(), grey.std(), math.sqrt(detail), saturation], np.float64)


def farthest_points(features: npt.NDArray[np.float64], n: int) -> list[int]:
    """Indices of up to ``n`` rows of (rows, features), each farthest from all before it.

    The first is the one farthest from the mean. Features count by their spread.
    """
    spread = features.std(axis=0)
    points = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    chosen = [int(np.argmax((points**2).sum(axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(n, len(points)):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen] = -1  # tiles that are alike are not taken twice
        chosen.append(int(np.argmax(distance)))
    return chosen


def _pack(candidate: Candidate, model: ModelInfo) -> Tensor:
    black, white = find_black_and_white(Settings(), candidate.image, model)
    lowest, highest = candidate.image.limits
    colour = ColourPath(
        bands=candidate.image.bands,
        colours=bands_seen(candidate.image, model),
        channels=model.channels,
        bgr=model.bgr,
        value_range=model.value_range,
        black=black,
        white=white,
        lowest=lowest,
        highest=highest,
        no_data=candidate.image.no_data,
        layout=model.layout,
        scale=model.scale,
    )
    height, width = candidate.pixels.shape[:2]
    planes = (model.channels, height, width)
    shape = planes if model.layout == "NCHW" else (height, width, model.channels)
    batch: Tensor = np.zeros((model.batch or 1, *shape), model.dtype)
    for entry in batch:
        colour.pack(candidate.pixels, entry)
    return batch
