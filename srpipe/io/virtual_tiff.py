"""A TIFF as libvips is to see it: another first directory, and bytes behind it, none of them written.

So libvips decodes what it would refuse: strips that GDAL left out point to one that is made here, and
packed samples are read as the bytes that they lie in.
"""

from __future__ import annotations

import io
import os
import struct
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from srpipe.errors import InputError
from srpipe.io.tiff_directory import Form, Tag
from srpipe.io.vips import pyvips

_SHORT, _LONG, _LONG8 = 3, 4, 16


class _Tail(io.BytesIO):
    """What is written behind a file, which tells places as if it were in it."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def tell(self) -> int:
        return self._start + super().tell()


class _Reader:
    """The bytes of a file with others behind them, and the place of the first directory changed."""

    def __init__(self, path: str, head: bytes, tail: bytes) -> None:
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        self._head = head
        self._tail = tail
        self._at = 0

    def read(self, length: int) -> bytes:
        if self._at < len(self._head):
            data = self._head[self._at : self._at + length]
        elif self._at < self._size:
            data = os.pread(self._file, min(length, self._size - self._at), self._at)
        else:
            start = self._at - self._size
            data = self._tail[start : start + length]
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        start = {0: 0, 1: self._at, 2: self._size + len(self._tail)}[whence]
        self._at = start + offset
        return self._at


def open_changed(
    path: str,
    changes: Mapping[int, Sequence[int] | None],
    piece: bytes = b"",
    at_piece: Mapping[int, Sequence[int]] | None = None,
) -> Any:
    """A pyvips source of a TIFF with other tags in its first directory.

    Args:
        path: the file.
        changes: values by the number of a tag; None removes it.
        piece: encoded pixels that follow the file.
        at_piece: by the number of a tag with offsets, the indices of those that lead to ``piece``.

    Returns:
        The source, which has no other pages.

    Raises:
        InputError: there is no room behind a file of nearly 4 GiB.
        OSError: it cannot be read.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        form = Form(file)
        entries, _ = form.first_directory(file)
        file.seek(0)
        head = bytearray(file.read(form.header_bytes))
        tail = _Tail(size)
        tail.write(piece)
        values = {number: list(new) for number, new in changes.items() if new is not None}
        for number, indices in (at_piece or {}).items():
            for index in indices:
                values[number][index] = size
        kept = [entry for entry in entries if entry.number not in changes]
        try:
            kept += [form.write(_tag(number, new), tail) for number, new in values.items()]
            place = form.write_directory(kept, 0, tail)
            head[form.header_offset :] = struct.pack(form.offset, place)
        except struct.error:
            raise InputError(
                f"{path} is too near to 4 GiB to be read as it is: save it as BigTIFF first "
                "(gdal_translate -co BIGTIFF=YES)."
            ) from None
    reader = _Reader(path, bytes(head), tail.getvalue())
    source = pyvips.SourceCustom()
    source.on_read(reader.read)
    source.on_seek(reader.seek)
    return source


def _tag(number: int, values: Sequence[int]) -> Tag:
    highest = max(values, default=0)
    kind, letter = (_SHORT, "H") if highest < 1 << 16 else (_LONG, "I")
    if highest >= 1 << 32:
        kind, letter = _LONG8, "Q"
    return Tag(number, kind, len(values), struct.pack(f"<{len(values)}{letter}", *values))
