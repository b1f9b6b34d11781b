"""A picture of any size from a few photographs, computed lazily while it is written.

The picture is a mosaic of square cells. A cell is a crop of one photograph at a random place, turned
and mirrored in one of eight ways, with a brightness of its own: no two cells are the same, so nothing
is gained by remembering tiles. Photographs too small for the size wanted are first grown into sheets,
which are mosaics themselves. Everything follows from one seed.

Photographs and sheets lie decoded in files that libvips maps, so that memory does not grow with
their size, and saving streams: what is in memory is a few rows of cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyvips

# Cells are no larger unless the picture would need too many: many cells take much memory.
_CELL_PX = 2048
_MAX_CELLS_ACROSS = 24
_SHEET_CELLS_ACROSS = 8
# The rest is room for the crop to move in.
_CELL_SHARE_OF_SIDE = 0.75
_DARKEST, _BRIGHTEST = 0.75, 1.1
_TURNS = ("d0", "d90", "d180", "d270")
_CLASSIC_TIFF_BYTES = 4_000_000_000
_TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class PictureSpec:
    """The picture to make."""

    width_px: int
    height_px: int
    depth: int = 8
    """Bits a sample: 8 or 16."""
    grey: bool = False
    alpha: bool = False
    seed: int = 0

    @property
    def bands(self) -> int:
        """Samples a pixel."""
        return (1 if self.grey else 3) + self.alpha

    @property
    def n_bytes(self) -> int:
        """Bytes of the samples."""
        return self.width_px * self.height_px * self.bands * self.depth // 8


def make_picture(photographs: Sequence[Path], output: str, spec: PictureSpec) -> None:
    """Write a mosaic of photographs.

    Args:
        photographs: files that libvips reads.
        output: the file; its ending chooses the format, libvips options may follow in brackets.
        spec: what to make.

    Raises:
        pyvips.Error: a photograph cannot be read, or the output not be written.
    """
    folder = Path(output.partition("[")[0]).resolve().parent
    with TemporaryDirectory(prefix=".mosaic-", dir=folder) as work:
        sources = [
            _unpack(_as_rgb(path), Path(work, f"{i}.v")) for i, path in enumerate(photographs)
        ]
        random = np.random.default_rng(spec.seed)
        least_px = math.ceil(max(spec.width_px, spec.height_px) / _MAX_CELLS_ACROSS)
        while _largest_cell_px(sources) < least_px:
            cell_px = _largest_cell_px(sources)
            side_px = cell_px * _SHEET_CELLS_ACROSS
            sheet = _mosaic(sources, side_px, side_px, cell_px, random)
            sources = [_unpack(sheet, Path(work, f"sheet-{side_px}.v"))]
        cell_px = min(_largest_cell_px(sources), max(least_px, _CELL_PX))
        picture = _mosaic(sources, spec.width_px, spec.height_px, cell_px, random)
        _as_asked(picture, spec).write_to_file(with_bigtiff(output, spec.n_bytes))


def with_bigtiff(output: str, n_bytes: int) -> str:
    """Ask for BigTIFF where ``n_bytes`` of samples need it and ``output`` does not ask already."""
    match = re.fullmatch(r"(?P<path>[^\[]*)(?:\[(?P<options>.*)\])?", output)
    assert match is not None
    path, options = match["path"], match["options"] or ""
    is_tiff = Path(path).suffix.lower() in _TIFF_SUFFIXES
    if not is_tiff or n_bytes < _CLASSIC_TIFF_BYTES or "bigtiff" in options:
        return output
    return f"{path}[{options},bigtiff]" if options else f"{path}[bigtiff]"


def _as_rgb(path: Path) -> Any:
    """A photograph as 8-bit RGB, to be read from top to bottom."""
    image = pyvips.Image.new_from_file(str(path), access="sequential")
    if image.hasalpha():
        image = image.flatten()
    return image.colourspace("srgb").cast("uchar")


def _unpack(image: Any, path: Path) -> Any:
    """Decode to a file that libvips maps, so that any place can be read at no cost."""
    image.write_to_file(str(path))
    return pyvips.Image.new_from_file(str(path))


def _largest_cell_px(sources: Sequence[Any]) -> int:
    side_px = min(min(image.width, image.height) for image in sources)
    return max(1, int(side_px * _CELL_SHARE_OF_SIDE))


def _mosaic(
    sources: Sequence[Any],
    width_px: int,
    height_px: int,
    cell_px: int,
    random: np.random.Generator,
) -> Any:
    across, down = math.ceil(width_px / cell_px), math.ceil(height_px / cell_px)
    gains = random.permutation(np.linspace(_DARKEST, _BRIGHTEST, across * down))
    cells = [
        _cell(sources[int(random.integers(len(sources)))], cell_px, float(gain), random)
        for gain in gains
    ]
    return pyvips.Image.arrayjoin(cells, across=across).crop(0, 0, width_px, height_px)


def _cell(source: Any, cell_px: int, gain: float, random: np.random.Generator) -> Any:
    left = int(random.integers(source.width - cell_px + 1))
    top = int(random.integers(source.height - cell_px + 1))
    turn, mirrored = _TURNS[int(random.integers(4))], bool(random.integers(2))
    cell = source.crop(left, top, cell_px, cell_px).rot(turn)
    return (cell.fliphor() if mirrored else cell).linear(gain, 0, uchar=True)


def _as_asked(picture: Any, spec: PictureSpec) -> Any:
    """Bring an 8-bit RGB picture to the bands and the depth of ``spec``."""
    colours = picture.colourspace("b-w") if spec.grey else picture
    if spec.alpha:
        # Any picture will do; the negative of green has all values and follows no colour exactly.
        colours = colours.bandjoin(picture.extract_band(1).invert())
    if spec.depth == 16:
        # White stays white, and the low byte is not a copy of the high one.
        root = (colours / 255.0) ** 0.5
        colours = (root * 65535.0).cast("ushort")
        return colours.copy(interpretation="grey16" if spec.grey else "rgb16")
    return colours.copy(interpretation="b-w" if spec.grey else "srgb")
