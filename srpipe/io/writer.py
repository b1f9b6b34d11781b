"""Encodes the finished rows while later ones are still being computed.

libvips pulls; the rows arrive. Between the two is a pipe that carries the pixels as a PNG whose
deflate blocks are only stored (RFC 2083, RFC 1951 3.2.4): the one stream format that libvips reads
from a pipe, that has every depth and band count needed, and that costs no more than a copy.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import zlib
from collections.abc import Iterator

import numpy as np

from srpipe.errors import WriteError
from srpipe.io.canvas import open_pixels
from srpipe.io.source import carry_fields
from srpipe.io.vips import first_line, pyvips
from srpipe.plan.colour import Pixels
from srpipe.plan.job import Plan

_PNG_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_STRIP_BYTES = 4 << 20
_TIMEOUT_S = 0.5


class ImageWriter:
    """Writes one image file from the pixels of a job, top to bottom, as they become final.

    The saver runs in a thread of its own; :meth:`write_rows` blocks while it is behind.
    """

    def __init__(self, plan: Plan, path: str) -> None:
        """Begin to write ``path``, which must be on its way to ``plan.output`` by rename.

        Args:
            plan: the job, whose pixels exist.
            path: temporary file, replaced if it exists.
        """
        self._plan = plan
        self._path = path
        self._pixels = open_pixels(plan, "r")
        self._next_row = 0
        self._error: str | None = None
        read_end, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._stream = _StoredPng(plan)
        self._thread = threading.Thread(target=self._save, args=(read_end,), daemon=True)
        self._thread.start()
        self._send(self._stream.header())

    def write_rows(self, stop_row: int) -> None:
        """Hand over the final rows up to ``stop_row`` (exclusive).

        Raises:
            WriteError: the saver failed, as on a full disk.
        """
        row_bytes = self._pixels[0].nbytes
        step = max(1, _STRIP_BYTES // row_bytes)
        while self._next_row < stop_row:
            until = min(stop_row, self._next_row + step)
            for chunk in self._stream.rows(self._pixels[self._next_row : until]):
                self._send(chunk)
            self._next_row = until

    def finish(self) -> None:
        """Write what is left, wait for the saver, and bring the file to the disk.

        Raises:
            WriteError: the file could not be written whole.
        """
        self.write_rows(self._pixels.shape[0])
        self._send(self._stream.end())
        self._close_pipe()
        self._thread.join()
        self._check()
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def abort(self) -> None:
        """Give up and remove the temporary file."""
        self._close_pipe()
        self._thread.join(timeout=5)
        if os.path.exists(self._path):
            os.unlink(self._path)

    def _save(self, read_end: int) -> None:
        try:
            source = pyvips.Source.new_from_descriptor(read_end)
            image = pyvips.Image.new_from_source(source, "", access="sequential")
            target = pyvips.Target.new_to_file(self._path)
            image = carry_fields(self._plan.image.path, image, self._plan.scale)
            image.write_to_target(target, self._plan.output.vips_format)
        except pyvips.Error as error:
            self._error = first_line(error)
        except Exception as error:  # a thread's exception would be lost
            self._error = f"{type(error).__name__}: {error}"
        finally:
            os.close(read_end)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._thread.is_alive():
            _, writable, _ = select.select([], [self._pipe], [], _TIMEOUT_S)
            try:
                view = view[os.write(self._pipe, view) if writable else 0 :]
            except BrokenPipeError:
                break
        if view:  # the saver has stopped reading: it has all it needs, or it failed
            self._thread.join()
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise WriteError(
                f"{self._plan.output.path} cannot be written ({self._error}): "
                "check the free space, the folder and the options in brackets."
            )

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


class _StoredPng:
    """The pieces of an uncompressed PNG stream."""

    def __init__(self, plan: Plan) -> None:
        size, image = plan.output_size, plan.image
        self._header = struct.pack(
            ">IIBBBBB", size.width, size.height, 8 * image.sample_bytes,
            _PNG_COLOUR_TYPE[image.bands], 0, 0, 0,
        )  # fmt: skip
        self._deflate = zlib.compressobj(level=0)

    def header(self) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", self._header)

    def rows(self, pixels: Pixels) -> Iterator[bytes]:
        """The stream of (rows, width, bands) pixels, each row behind its filter byte 0."""
        big_endian = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False)
        samples = np.ascontiguousarray(big_endian).reshape(len(pixels), -1).view(np.uint8)
        lines = np.zeros((len(pixels), 1 + samples.shape[1]), np.uint8)
        lines[:, 1:] = samples
        data = self._deflate.compress(lines.data)
        if data:
            yield _chunk(b"IDAT", data)

    def end(self) -> bytes:
        return _chunk(b"IDAT", self._deflate.flush()) + _chunk(b"IEND", b"")


def _chunk(tag: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data))
        + tag
        + data
        + struct.pack(">I", zlib.crc32(data, zlib.crc32(tag)))
    )
