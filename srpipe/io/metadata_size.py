"""How much metadata a file claims to have, found out without reading any of it.

JPEG: markers before the first scan (ITU-T T.81, B.1). WebP: chunks (RFC 9649, 2.3). TIFF: entries of
EXIF and GPS directories, which may all lead to the same bytes. libpng and libtiff have bounds of their
own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from typing import BinaryIO

from srpipe.errors import InputError
from srpipe.io.small_files import open_regular
from srpipe.io.space import format_bytes
from srpipe.io.tiff_directory import TYPE_BYTES, Form

logger = logging.getLogger(__name__)

_MAX_BYTES = 16_000_000  # what a profile in a JPEG can take
_DIRECTORIES = (34665, 34853)
_SCAN, _END, _NO_LENGTH = 0xDA, 0xD9, {0x01, *range(0xD0, 0xD9)}


def check_metadata(path: str) -> None:
    """Refuse a file whose metadata would fill the memory, and warn of a TIFF's that are left out.

    Raises:
        InputError: libvips would hold too much of them.
        OSError: the file cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        head = file.read(4)
        file.seek(0)
        held = exif = 0
        # What is damaged, libvips has more to say about.
        with contextlib.suppress(KeyError, ValueError, OverflowError, struct.error):
            if head[:3] == b"\xff\xd8\xff":
                held = _of_jpeg(file)
            elif head == b"RIFF":
                held = _of_webp(file)
            elif head[:2] in (b"II", b"MM"):
                exif = _of_tiff(file)
    if held > _MAX_BYTES:
        raise InputError(
            f"{path} holds {format_bytes(held)} of metadata: save it without them first."
        )
    if exif > _MAX_BYTES:
        logger.warning("%s claims %s of EXIF: they are left out.", path, format_bytes(exif))


def _of_jpeg(file: BinaryIO) -> int:
    total = 0
    file.seek(2)
    while head := file.read(2):
        if head[0] != 0xFF or head[1] in (_SCAN, _END):
            break
        if head[1] == 0xFF:  # padding
            file.seek(-1, os.SEEK_CUR)
        elif head[1] not in _NO_LENGTH:
            (length,) = struct.unpack(">H", file.read(2))
            total += length
            file.seek(length - 2, os.SEEK_CUR)
    return total


def _of_webp(file: BinaryIO) -> int:
    total = 0
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        total += length if kind in (b"ICCP", b"EXIF", b"XMP ") else 0
        file.seek(length + length % 2, os.SEEK_CUR)
    return total


def _of_tiff(file: BinaryIO) -> int:
    form = Form(file)
    entries, _ = form.first_directory(file)
    pointers = [form.data(entry, file) for entry in entries if entry.number in _DIRECTORIES]
    inside = [
        entry
        for pointer in pointers
        for entry in form.directory(file, int.from_bytes(pointer, "little"))[0]
    ]
    return sum(TYPE_BYTES[entry.kind] * entry.count for entry in inside)
