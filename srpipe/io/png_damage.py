"""Where a damaged PNG can be trusted: libvips gives rows before it has seen the checksum over them.

PNG: ISO/IEC 15948.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

_SIGNATURE_BYTES = 8
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BLOCK_BYTES = 1 << 20


def first_doubtful_row(path: str) -> int | None:
    """The first row that may come from a chunk whose checksum is wrong; None: all are right.

    Args:
        path: a file that libvips takes for a PNG.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(_SIGNATURE_BYTES)
        row_bytes = 0
        places: list[tuple[int, int]] = []
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            start = file.tell()
            if kind == b"IHDR":
                row_bytes = _row_bytes(file.read(13))
                file.seek(start)
            if not _is_whole(file, kind, length):
                return _count_bytes(file, places) // row_bytes if row_bytes else 0
            if kind == b"IDAT":
                places.append((start, length))
            if kind == b"IEND":
                return None
        return _count_bytes(file, places) // row_bytes if row_bytes else 0


def _row_bytes(header: bytes) -> int:
    """Bytes of a row, with that of its filter; 0 where rows are interlaced, or not known."""
    if len(header) < 13:
        return 0
    width, _, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    return 0 if interlaced else (width * depth * _CHANNELS.get(kind, 0) + 7) // 8 + 1


def _is_whole(file: BinaryIO, kind: bytes, length: int) -> bool:
    checksum, left = zlib.crc32(kind), length
    while left and (data := file.read(min(left, _BLOCK_BYTES))):
        checksum, left = zlib.crc32(data, checksum), left - len(data)
    return not left and file.read(4) == struct.pack(">I", checksum)


def _count_bytes(file: BinaryIO, places: list[tuple[int, int]]) -> int:
    """Bytes that the first chunks of pixels unpack to."""
    stream, total = zlib.decompressobj(), 0
    try:
        for start, length in places:
            file.seek(start)
            while length and (data := file.read(min(length, _BLOCK_BYTES))):
                length -= len(data)
                while data:
                    total += len(stream.decompress(data, _BLOCK_BYTES))
                    data = stream.unconsumed_tail
    except zlib.error:
        pass
    return total
