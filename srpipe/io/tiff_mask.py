"""GDAL's internal mask of a TIFF: a page of one bit a pixel, which libvips does not read."""

from __future__ import annotations

import os
import weakref
from typing import Any

import numpy as np

from srpipe.errors import InputError
from srpipe.io.tiff_header import TiffHeader
from srpipe.plan.alpha_fill import Holes
from srpipe.plan.geometry import Rect


class TiffMask:
    """Reads the mask by rectangles, from top to bottom; keeps the pieces of one row."""

    def __init__(self, path: str | os.PathLike[str], header: TiffHeader) -> None:
        """Open the file.

        Args:
            path: the file.
            header: its header, which tells of a mask.

        Raises:
            InputError: it cannot be opened.
        """
        import tifffile  # only files with a mask need it

        assert header.mask is not None
        self._name = f"{os.fspath(path)} ({header.mask.name}, its mask)"
        try:
            self._file = tifffile.TiffFile(path)
            weakref.finalize(self, self._file.close)
            page: Any = self._file.pages[int(header.mask.name.split()[-1]) - 1]
            tiled = page.is_tiled
            self._height = page.tilelength if tiled else page.rowsperstrip
            self._width = page.tilewidth if tiled else page.imagewidth
        except Exception as error:  # tifffile raises many of them for damaged files
            raise self._unreadable(error) from None
        self._page = page
        self._across = -(-header.size.width // self._width)
        self._pieces: dict[int, Holes] = {}

    def empty(self, rect: Rect) -> Holes:
        """Which pixels of a rectangle are masked, (height, width).

        Raises:
            InputError: the mask cannot be decoded there.
        """
        result = np.zeros((rect.height, rect.width), np.bool_)
        rows = range(rect.top // self._height, -(-(rect.top + rect.height) // self._height))
        columns = range(rect.left // self._width, -(-(rect.left + rect.width) // self._width))
        self._pieces = {i: p for i, p in self._pieces.items() if i // self._across >= rows[0]}
        for row in rows:
            for column in columns:
                top, left = row * self._height, column * self._width
                part = Rect(left, top, self._width, self._height).intersection(rect)
                piece = self._piece(row * self._across + column)
                inside = piece[part.top - top :, part.left - left :][: part.height, : part.width]
                y, x = part.top - rect.top, part.left - rect.left
                result[y : y + part.height, x : x + part.width] = inside
        return result

    def _piece(self, index: int) -> Holes:
        if index not in self._pieces:
            try:
                data = b""
                if n_bytes := self._page.databytecounts[index]:
                    self._file.filehandle.seek(self._page.dataoffsets[index])
                    data = self._file.filehandle.read(n_bytes)
                # What GDAL left out is masked.
                values = self._page.decode(data, index)[0] if data else None
            except Exception as error:
                raise self._unreadable(error) from None
            empty = np.ones((self._height, self._width), np.bool_)
            if values is not None:
                shown = values[0, ..., 0]
                empty[: shown.shape[0], : shown.shape[1]] = shown == 0
            self._pieces[index] = empty
        return self._pieces[index]

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"{self._name} cannot be read ({error}): save it without the mask first.")
