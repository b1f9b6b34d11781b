"""Reads tiles of an image that goes on beyond its border.

What lies beyond is made of the image's own rows and columns. A reader goes through a file from top to
bottom; where an image is continued with the opposite side, the rows that are needed out of turn are
read before, the lowest by going through the file once more, and kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from srpipe.io.tile_reader import TileReader
from srpipe.plan.colour import Pixels
from srpipe.plan.frame import Frame, Indices, continued
from srpipe.plan.geometry import Rect
from srpipe.plan.image_info import ImageInfo


class FrameReader:
    """Streams rectangles of a job's grid; they must be asked for in raster order."""

    def __init__(self, info: ImageInfo, frame: Frame, *, fill: bool, whole_so_far: bool) -> None:
        """Open ``info.path``.

        Args:
            info: the image.
            frame: where the grid lies.
            fill: where it cannot be read, give what libvips can decode.
            whole_so_far: an earlier run had no gaps to fill.

        Raises:
            ReadError: the file has changed since ``info`` was read, or is gone.
        """
        self._info = info
        self._frame = frame
        self._fill = fill
        self._reader = TileReader(info, fill=fill, whole_so_far=whole_so_far)
        self._kept: dict[int, tuple[Pixels, bool]] = {}
        """Rows read out of turn, and whether they could be read whole, by their first row."""

    def read(self, rect: Rect, out: Pixels) -> bool:
        """Copy the pixels of ``rect`` to the upper left of ``out`` (height, width, bands).

        Args:
            rect: from the grid's first pixel on.
            out: the pixels' place.

        Returns:
            Whether all could be read; False only where gaps are filled.

        Raises:
            ReadError: the file is truncated or corrupt there.
        """
        rect = self._frame.in_image(rect)
        edges, size = self._frame.edges, self._info.size
        if edges == "none" or rect.within(size) == rect:
            return self._reader.read(rect, out)
        whole = True
        for rows in _stretches(rect.top, rect.height, size.height):
            y = continued(rows, size.height, edges)
            for columns in _stretches(rect.left, rect.width, size.width):
                x = continued(columns, size.width, edges)
                place = Rect(int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)
                beyond = int(rows[0]) if edges == "wrap" else 0
                pixels, good = self._fetch(place, beyond)
                top, left = int(rows[0]) - rect.top, int(columns[0]) - rect.left
                inside = out[top : top + len(rows), left : left + len(columns)]
                inside[...] = pixels[np.ix_(y - place.top, x - place.left)]
                whole &= good
        return whole

    def _fetch(self, place: Rect, row: int) -> tuple[Pixels, bool]:
        """Pixels of the image, for ``row``, which may lie above it or below it."""
        height = self._info.size.height
        if 0 <= row < height:
            return self._pixels(self._reader, place)
        above, below = self._frame.margin.height, self._frame.whole.y.length_px - height
        n_rows = min(max(above, below - above), height)
        first = height - n_rows if row < 0 else 0
        if first not in self._kept:
            reader = TileReader(self._info, fill=self._fill)
            self._kept[first] = self._pixels(reader, Rect(0, first, self._info.size.width, n_rows))
        pixels, whole = self._kept[first]
        rows = slice(place.top - first, place.top - first + place.height)
        return pixels[rows, place.left : place.left + place.width], whole

    def _pixels(self, reader: TileReader, place: Rect) -> tuple[Pixels, bool]:
        pixels: Pixels = np.empty(
            (place.height, place.width, self._info.bands), self._info.numpy_dtype
        )
        return pixels, reader.read(place, pixels)


def _stretches(start: int, length: int, size: int) -> Iterator[Indices]:
    """The positions before, within and after an axis of ``size`` pixels, each in one piece."""
    positions = np.arange(start, start + length)
    for within in (positions < 0, (positions >= 0) & (positions < size), positions >= size):
        if within.any():
            yield positions[within]
