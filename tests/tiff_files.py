"""TIFF files as GDAL writes them, which libvips does not: bands of no stated meaning."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def write_band_tiff(
    path: Path, pixels: np.ndarray, *, separate: bool = False, big: bool = False, order: str = "<"
) -> Path:
    """Write (height, width, bands) pixels with PhotometricInterpretation BlackIsZero and
    ExtraSamples unspecified, uncompressed, pixel by pixel or, if ``separate``, band by band.
    """
    height, width, bands = pixels.shape
    kind = pixels.dtype.newbyteorder(order)
    planes = [pixels[..., i] for i in range(bands)] if separate else [pixels]
    strips = [plane.astype(kind).tobytes() for plane in planes]
    header_bytes = 16 if big else 8
    offsets = [header_bytes + i * len(strips[0]) for i in range(len(strips))]
    short, long = ("H", 3), ("I", 4)
    tags = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [8 * pixels.itemsize] * bands),
        (259, short, [1]),
        (262, short, [1]),
        (273, long, offsets),
        (277, short, [bands]),
        (278, long, [height]),
        (279, long, [len(strip) for strip in strips]),
        (284, short, [2 if separate else 1]),
        (338, short, [0] * (bands - 1)),
    ]
    data = b"".join(strips)
    size, count = ("Q", "Q") if big else ("I", "H")
    entries = b""
    for tag, (letter, code), values in tags:
        value = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(value) > struct.calcsize(order + size):
            place = header_bytes + len(data)
            data += value
            value = struct.pack(order + size, place)
        entry = struct.pack(f"{order}HH{size}", tag, code, len(values))
        entries += entry + value.ljust(struct.calcsize(order + size), b"\0")
    directory = header_bytes + len(data)
    mark = b"II" if order == "<" else b"MM"
    rest = (
        struct.pack(f"{order}HHHQ", 43, 8, 0, directory)
        if big
        else struct.pack(f"{order}HI", 42, directory)
    )
    end = struct.pack(order + size, 0)
    path.write_bytes(mark + rest + data + struct.pack(order + count, len(tags)) + entries + end)
    return path
