"""The tiles of one image file, streamed from top to bottom."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from srpipe.errors import InputError, ReadError
from srpipe.io.png_damage import first_doubtful_row
from srpipe.io.source import open_image
from srpipe.io.tiff_header import read_tiff_header
from srpipe.io.tiff_mask import TiffMask
from srpipe.io.tiff_pieces import TiffPieces
from srpipe.io.vips import VIPS_ERRORS, first_line, forget_errors, pyvips
from srpipe.plan.colour import Pixels
from srpipe.plan.geometry import Rect
from srpipe.plan.image_info import ImageInfo

Opened = tuple[Any, Any]
"""An image and its region, which does not hold the image's own sources."""


class TileReader:
    """Streams the tiles of one image; they must be asked for in raster order."""

    def __init__(self, info: ImageInfo, *, fill: bool = False, whole_so_far: bool = True) -> None:
        """Open ``info.path``.

        Args:
            info: the image.
            fill: where it cannot be read, give what libvips can decode.
            whole_so_far: an earlier run had no gaps to fill.

        Raises:
            ReadError: the file has changed since ``info`` was read, or is gone.
        """
        self._info = info
        self._fill = fill
        self._pieces: TiffPieces | None = None
        self._mask: TiffMask | None = None
        self._by_piece = False
        """Its pieces are decoded in any order, so that a damaged one spoils no other."""
        if info.loader.startswith("tiffload"):
            try:
                header = read_tiff_header(info.path)
                self._pieces, self._by_piece = TiffPieces(info.path, header), header.tiled
            except (OSError, InputError) as error:
                raise ReadError(f"{info.path} can no longer be opened: {error}") from None
            if info.masked:
                self._mask = TiffMask(info.path, header)
        self._strict = whole_so_far or self._by_piece
        self._region = self._open_region(strict=self._strict)
        self._lenient: Opened | None = None
        self._doubtful_row: int | None = None
        if fill and info.loader.startswith("pngload"):
            self._doubtful_row = first_doubtful_row(info.path)

    def _open_region(self, *, strict: bool) -> Opened:
        path, identity = self._info.path, self._info.identity
        try:
            stat = os.stat(path)
            image = open_image(
                path, untrusted=self._info.untrusted, shown=self._info.shown, strict=strict
            )
        except OSError as error:
            raise ReadError(
                f"{path} can no longer be opened ({error.strerror}): put it back."
            ) from None
        except VIPS_ERRORS as error:
            raise ReadError(f"{path} can no longer be opened: {first_line(error)}.") from None
        if (stat.st_size, stat.st_mtime_ns) != (identity.size_bytes, identity.modified_ns):
            raise ReadError(f"{path} changed while the job was running: start over with --fresh.")
        return image, pyvips.Region.new(image)

    def read(self, rect: Rect, out: Pixels) -> bool:
        """Copy the pixels of ``rect`` to the upper left of ``out`` (height, width, bands).

        Returns:
            Whether the file could be read there; False only where gaps are filled. In a file
            that is decoded from top to bottom, everything after the first gap is in doubt.

        Raises:
            ReadError: the file is truncated or corrupt there.
        """
        whole = self._read(rect, out)
        if self._mask is not None:
            try:
                empty = self._mask.empty(rect)
            except InputError as error:
                raise ReadError(str(error)) from None
            value = np.nan if self._info.nodata is None else self._info.nodata
            bands = [i for i in range(self._info.bands) if i != self._info.alpha_band]
            for band in bands:
                out[: rect.height, : rect.width, band][empty] = value
        return whole

    def _read(self, rect: Rect, out: Pixels) -> bool:
        if self._doubtful_row is not None and rect.top + rect.height > self._doubtful_row:
            self._give_up()
        damage = self._pieces.damage(rect) if self._pieces and self._strict else []
        if damage and not self._fill:
            raise self._error(*damage[0])
        if self._strict and not (damage and self._by_piece):
            try:
                self._copy(self._region, rect, out)
                return not damage
            except VIPS_ERRORS as error:
                if not self._fill:
                    raise self._error(rect, first_line(error)) from None
                self._give_up()
        if self._by_piece:
            return self._fill_pieces(rect, out, [place for place, _ in damage])
        try:
            self._copy(self._region, rect, out)
        except VIPS_ERRORS:
            out[: rect.height, : rect.width] = 0
        forget_errors()
        return False

    def _give_up(self) -> None:
        """Take what libvips can decode from now on, but for pieces that stand for themselves."""
        if self._strict:
            self._strict = self._by_piece
            self._region = self._open_region(strict=self._strict)

    def _fill_pieces(self, rect: Rect, out: Pixels, damaged: list[Rect]) -> bool:
        """Read piece by piece; False if any is damaged."""
        assert self._pieces is not None
        whole = True
        for place in dict.fromkeys(place for _, place in self._pieces.within(rect)):
            part = place.intersection(rect)
            inside = out[part.top - rect.top :, part.left - rect.left :]
            if place not in damaged:
                try:
                    self._copy(self._region, part, inside)
                    continue
                except VIPS_ERRORS:
                    self._region = self._open_region(strict=True)
            whole = False
            try:
                self._lenient = self._lenient or self._open_region(strict=False)
                self._copy(self._lenient, part, inside)
            except VIPS_ERRORS:
                self._lenient = None
                inside[: part.height, : part.width] = 0
        if not whole:
            forget_errors()
        return whole

    def _error(self, rect: Rect, reason: str) -> ReadError:
        info = self._info
        return ReadError(
            f"{info.path} cannot be read at rows {rect.top} to {rect.top + rect.height - 1} of "
            f"{info.size.height} ({reason}): the file is truncated or corrupt; get a whole copy, or "
            "fill what is missing with --on-error fill."
        )

    def _copy(self, opened: Opened, rect: Rect, out: Pixels) -> None:
        data = opened[1].fetch(rect.left, rect.top, rect.width, rect.height)
        shape = (rect.height, rect.width, self._info.bands)
        pixels = np.frombuffer(data, self._info.numpy_dtype).reshape(shape)
        out[: rect.height, : rect.width] = pixels
