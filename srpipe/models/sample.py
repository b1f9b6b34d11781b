"""Pictures to try a model on: a part of a photograph, or one made of edges and texture."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from srpipe.io.source import read_image_info
from srpipe.io.tile_reader import TileReader
from srpipe.plan.colour import Pixels
from srpipe.plan.geometry import Rect, Size

_PHOTOGRAPH = Path(__file__).parent / "pictures" / "dandelion.jpg"
_Scalar = TypeVar("_Scalar", bound=np.generic)


def read_photograph(bands: int) -> npt.NDArray[np.uint8]:
    """A part of a photograph that comes with srpipe: hairs, fine and sharp, before a sunlit meadow.

    Args:
        bands: 1 gives its green, more than 3 repeat its colours.

    Returns:
        (192, 192, bands) uint8.
    """
    pixels = read_middle(str(_PHOTOGRAPH), Size(192, 192)).astype(np.uint8)
    if bands == 1:
        return pixels[..., 1:2]
    return pixels[..., np.arange(bands) % 3]


def middle_square(pixels: npt.NDArray[_Scalar], side_px: int) -> npt.NDArray[_Scalar]:
    """The middle square of a picture, or the picture mirrored at its borders where it is smaller."""
    for axis in (0, 1):
        left = max((pixels.shape[axis] - side_px) // 2, 0)
        pixels = pixels.take(range(left, min(left + side_px, pixels.shape[axis])), axis)
    missing = [(0, side_px - length) for length in pixels.shape[:2]]
    return np.pad(pixels, [*missing, (0, 0)], mode="symmetric")


def read_middle(path: str, most: Size, *, allow_untrusted: bool = False) -> Pixels:
    """The middle of an image file, at most ``most`` large: (height, width, bands).

    Raises:
        InputError: the file is no image that srpipe takes.
        ReadError: it cannot be decoded there.
    """
    info = read_image_info(path, allow_untrusted=allow_untrusted)
    width, height = min(info.size.width, most.width), min(info.size.height, most.height)
    left, top = (info.size.width - width) // 2, (info.size.height - height) // 2
    pixels: Pixels = np.empty((height, width, info.bands), info.numpy_dtype)
    TileReader(info).read(Rect(left, top, width, height), pixels)
    return pixels


def make_picture(size: Size, bands: int) -> Pixels:
    """The same picture every time: rings, a checkerboard, noise of every scale, and a slope of light.

    No two parts have the same mean, contrast or colour, so that what a model takes from the whole
    picture differs from what it takes from a tile.

    Returns:
        (height, width, bands) uint8.
    """
    rng = np.random.default_rng(2022)
    y, x = np.mgrid[: size.height, : size.width].astype(np.float32)
    slope = (x / size.width + y / size.height) / 2
    rings = np.sin((x - 0.3 * size.width) ** 2 / 300 + (y - 0.6 * size.height) ** 2 / 300)
    squares = np.sign(np.sin(x / 11) * np.sin(y / 7))
    planes = []
    for band in range(bands):
        texture = 24 * rings
        for cell_px, weight in ((1, 8), (4, 16), (16, 20), (64, 24)):
            texture += weight * _noise(rng, size, cell_px)
        edges = 30 * squares * (band + 1) / bands
        planes.append(40 + 120 * slope + slope * texture + (1 - slope) * edges)
    picture: Pixels = np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)
    return picture


def _noise(rng: np.random.Generator, size: Size, cell_px: int) -> npt.NDArray[np.float32]:
    """Cells of ``cell_px`` pixels, each with a value of its own between -1 and 1."""
    shape = (-(-size.height // cell_px), -(-size.width // cell_px))
    cells = rng.uniform(-1, 1, shape).astype(np.float32)
    whole = np.repeat(np.repeat(cells, cell_px, axis=0), cell_px, axis=1)
    return whole[: size.height, : size.width]
