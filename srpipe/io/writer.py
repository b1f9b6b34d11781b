"""Encodes the finished rows while later ones are still being computed.

libvips pulls pixels from the memory-mapped file as fast as it can, and must be kept from rows that
are not final. A gate does that: a narrow black image whose rows arrive through a pipe as the real
ones become final, widened and OR-ed with the pixels. Whoever wants a row waits for its gate. The
pipe is small, so whoever opens the gate waits in turn for a saver that is behind.

    pixels.raw ── rawload ──┐
                            ├── OR ── resize ── saver ── file
    pipe ── gate, widened ──┘

This is sound because rawload hands out pointers into the map: pixels are read when they are OR-ed,
after the gate's rows have come.

The gate is a PNG whose deflate blocks are only stored, the one kind of stream that libvips reads
from a pipe (PNG: ISO/IEC 15948; stored blocks: RFC 1951, 3.2.4).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

from srpipe.errors import OutputError, WriteError
from srpipe.io.canvas_files import PIXELS_FILE
from srpipe.io.finishing import add_metadata, finish_image
from srpipe.io.output_place import remove_output, sync_output
from srpipe.io.savers import save_image
from srpipe.io.vips import FORMATS, VIPS_ERRORS, first_line, pyvips
from srpipe.plan.job import Plan

# With a filter byte, 16 bytes a row: a pipe of one page holds 256 rows.
_GATE_WIDTH_PX = 15
_PIPE_BYTES = 4096
_TIMEOUT_S = 0.5
_ABORT_S = 1.0


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
        self._next_row = 0
        self._error: str | None = None
        read_end, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._pipe_lock = threading.Lock()
        self._encoded: Any = None
        self._given_up = False
        self._deflate = zlib.compressobj(level=0)
        self._thread = threading.Thread(
            target=self._save, args=(read_end,), name="srpipe-saver", daemon=True
        )
        self._thread.start()
        height = plan.cropped_size.height
        header = struct.pack(">IIBBBBB", _GATE_WIDTH_PX, height, 8, 0, 0, 0, 0)
        self._send(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header))

    def write_rows(self, stop_row: int) -> None:
        """Let the saver have the cropped canvas's final rows up to ``stop_row`` (exclusive).

        Raises:
            WriteError: the saver failed, as on a full disk.
        """
        rows = stop_row - self._next_row
        if rows > 0:
            data = self._deflate.compress(bytes(rows * (1 + _GATE_WIDTH_PX)))
            self._send(_chunk(b"IDAT", data + self._deflate.flush(zlib.Z_SYNC_FLUSH)))
            self._next_row = stop_row

    def finish(self) -> None:
        """Write what is left, wait for the saver, and bring the file to the disk.

        Raises:
            WriteError: the file could not be written whole.
        """
        self.write_rows(self._plan.cropped_size.height)
        self._send(_chunk(b"IDAT", self._deflate.flush()) + _chunk(b"IEND", b""))
        self._close_pipe()
        self._thread.join()
        self._check()
        try:
            sync_output(Path(self._path))
        except OSError as error:
            self._error = error.strerror
            self._check()

    def abort(self) -> None:
        """Give up and remove the temporary file, from any thread; who writes rows hears of it."""
        self._given_up = True
        self._close_pipe()
        if self._encoded is not None:
            self._encoded.set_kill(True)
        self._thread.join(_ABORT_S)
        self._remove()
        while self._thread.is_alive():  # in libraries that cannot be stopped
            self._thread.join(_TIMEOUT_S)
            if not self._thread.is_alive():
                self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # why it is given up is the error to tell of
            remove_output(Path(self._path))

    def _save(self, read_end: int) -> None:
        try:
            pixels = self._final_pixels(read_end)
            if pixels is None:
                return
            image = finish_image(self._plan, pixels)
            image.set_progress(True)  # so that the images the saver makes of it can be stopped too
            self._encoded = image
            if self._given_up:
                image.set_kill(True)
            save_image(image, self._plan.output, self._path, self._plan.written.no_data)
            if not self._given_up:
                add_metadata(self._plan, self._path, image)
        except VIPS_ERRORS as error:
            self._error = first_line(error)
        except (OSError, OutputError) as error:
            self._error = getattr(error, "strerror", None) or str(error)
        except Exception as error:  # a thread's exception would be lost
            self._error = f"{type(error).__name__}: {error}"
        finally:
            os.close(read_end)

    def _final_pixels(self, read_end: int) -> Any:
        """Pixels that come as they become final; all at once, where they are turned; None: given up."""
        pixels = self._bytes()
        if not self._plan.turned:
            # The gate first: libvips prepares operands in their order.
            pixels = self._gate(pyvips.Source.new_from_descriptor(read_end)) | pixels
        else:
            while os.read(read_end, _PIPE_BYTES):
                pass
        if self._given_up:
            return None
        plan = self._plan
        return pixels.copy(format=FORMATS[plan.written.dtype], bands=plan.image.bands)

    def _bytes(self) -> Any:
        """The canvas's pixels, with a band for each byte: floats have no OR."""
        plan = self._plan
        size, canvas = plan.cropped_size, plan.canvas_size
        pixels = pyvips.Image.rawload(
            os.path.join(plan.job_dir, PIXELS_FILE),
            canvas.width,
            canvas.height,
            plan.image.bands * plan.written.sample_bytes,
            format="uchar",
        )
        if size != canvas:
            left, top = plan.frame.crop.left * plan.scale, plan.frame.crop.top * plan.scale
            pixels = pixels.crop(left, top, size.width, size.height)
        return pixels

    def _gate(self, source: Any) -> Any:
        """Black, in rows that come when those of the pixels are final."""
        size = self._plan.cropped_size
        gate = pyvips.Image.new_from_source(source, "", access="sequential")
        # Extending a column by copying it takes a tenth of the memory that zooming it does.
        gate = gate.crop(0, 0, 1, size.height)
        return gate.embed(0, 0, size.width, size.height, extend="copy")

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._thread.is_alive():
            with self._pipe_lock:
                if self._pipe < 0:
                    break
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
        with self._pipe_lock:
            if self._pipe >= 0:
                os.close(self._pipe)
                self._pipe = -1


def _chunk(tag: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data))
        + tag
        + data
        + struct.pack(">I", zlib.crc32(data, zlib.crc32(tag)))
    )
