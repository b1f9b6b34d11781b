"""Damaged strips and tiles of a TIFF, found before libtiff decodes them.

libtiff does not look at deflate's checksum, and takes what libjpeg makes of a damaged scan.
"""

from __future__ import annotations

import math
import os
import weakref
import zlib

import numpy as np

from srpipe.errors import InputError
from srpipe.io.tiff_header import TiffHeader, read_tiff_header
from srpipe.io.vips import VIPS_ERRORS, first_line, pyvips
from srpipe.plan.geometry import Rect

_NONE, _JPEG, _DEFLATE = 1, 7, (8, 32946)
_YCBCR = 6
_CHUNK_BYTES = 1 << 16
_SLACK_BYTES = 1 << 20
_UNKNOWN, _GOOD, _BAD = 0, 1, 2


def check_length(path: str) -> None:
    """Refuse a TIFF file that ends before its pixels do.

    Args:
        path: a TIFF file.

    Raises:
        InputError: it does; the message says what is missing.
    """
    header = read_tiff_header(path)
    missing = np.flatnonzero(header.cut_off)
    if len(missing):
        what = "tiles" if header.tiled else "strips"
        raise InputError(
            f"{path} ends before {len(missing)} of its {len(header.offsets)} {what}: the file is cut "
            "off; get a whole copy, or fill what is missing with --on-error fill."
        )


class TiffPieces:
    """The strips or tiles of a file's first page, each examined once."""

    def __init__(self, path: str, header: TiffHeader) -> None:
        """Open the file.

        Args:
            path: the file.
            header: its header.

        Raises:
            OSError: it cannot be read.
        """
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._header = header
        self._states = np.full(len(header.offsets), _UNKNOWN, np.uint8)
        self._states[header.sparse] = _GOOD
        self._states[header.cut_off] = _BAD
        self._reasons = dict.fromkeys(
            map(int, np.flatnonzero(header.cut_off)), "it ends beyond the file's end"
        )

    def damage(self, rect: Rect) -> list[tuple[Rect, str]]:
        """The damaged pieces that have a part in a rectangle, and what is wrong with each."""
        return [(place, self._reasons[i]) for i, place in self.within(rect) if not self._is_good(i)]

    def within(self, rect: Rect) -> list[tuple[int, Rect]]:
        """The pieces that have a part in a rectangle, and where they lie in the image."""
        header, piece = self._header, self._header.piece
        rows = range(rect.top // piece.height, (rect.top + rect.height - 1) // piece.height + 1)
        columns = range(rect.left // piece.width, (rect.left + rect.width - 1) // piece.width + 1)
        plane = header.across * header.down
        found = []
        for row in rows:
            for column in columns:
                left, top = column * piece.width, row * piece.height
                width = min(piece.width, header.size.width - left)
                height = min(piece.height, header.size.height - top)
                place = Rect(left, top, width, height)
                first = row * header.across + column
                found += [(i, place) for i in range(first, len(self._states), plane)]
        return found

    def _is_good(self, index: int) -> bool:
        if self._states[index] == _UNKNOWN:
            reason = self._examine(index)
            self._states[index] = _BAD if reason else _GOOD
            if reason:
                self._reasons[index] = reason
        return bool(self._states[index] == _GOOD)

    def _examine(self, index: int) -> str:
        """What is wrong with a piece; "": nothing that is known."""
        header = self._header
        offset, n_bytes = int(header.offsets[index]), int(header.byte_counts[index])
        if header.compression in _DEFLATE:
            return self._inflate(offset, n_bytes)
        samples = 1 if header.separate else header.samples
        if header.compression == _JPEG and header.bits == 8 and samples in (1, 3, 4):
            return self._decode_jpeg(offset, n_bytes)
        # libtiff then reads on into the next strip. YCbCr may have fewer samples of color.
        if header.compression == _NONE and header.photometric != _YCBCR:
            wanted = self._raw_bytes(index)
            return f"it has {n_bytes} of {wanted} bytes" if 0 < n_bytes < wanted else ""
        return ""

    def _raw_bytes(self, index: int) -> int:
        header, piece = self._header, self._header.piece
        rows = piece.height
        if not header.tiled:
            rows = min(rows, header.size.height - index % header.down * piece.height)
        samples = 1 if header.separate else header.samples
        return rows * math.ceil(piece.width * samples * header.bits / 8)

    def _inflate(self, offset: int, n_bytes: int) -> str:
        header = self._header
        most = header.piece.pixels * header.samples * max(header.bits, 8) // 4 + _SLACK_BYTES
        stream, total, end = zlib.decompressobj(), 0, offset + n_bytes
        try:
            while offset < end and not stream.eof:
                data = os.pread(self._file, min(_CHUNK_BYTES, end - offset), offset)
                if not data:
                    break
                offset += len(data)
                while data and total <= most:
                    total += len(stream.decompress(data, _SLACK_BYTES))
                    data = stream.unconsumed_tail
                if total > most:
                    return "it holds more than a piece"
        except zlib.error as error:
            return str(error)
        return "" if stream.eof else "its data end early"

    def _decode_jpeg(self, offset: int, n_bytes: int) -> str:
        data = os.pread(self._file, n_bytes, offset)
        tables = self._header.jpeg_tables
        if len(tables) > 4:
            data = tables[:-2] + data[2:]  # without the marks of an end, and another start
        try:
            pyvips.Image.jpegload_buffer(data, access="sequential", fail_on="warning").avg()
        except VIPS_ERRORS as error:
            return first_line(error)
        return ""
