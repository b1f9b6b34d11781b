"""Resolution that nobody gave: OUTPUT must not claim one.

libvips takes an image without it for one of 25.4 or 72 dots per inch, and writes a multiple of that.
"""

from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction
from typing import Any

from srpipe.io.input_metadata import InputMetadata
from srpipe.io.tiff_directory import Tag
from srpipe.plan.output import OutputSpec

# What EXIF has where nothing is known (CIPA DC-008, 4.6.4).
_UNKNOWN = 72 / 25.4
_ASKED = {"xres", "yres", "resunit"}
_X, _Y, _UNIT, _NO_UNIT = 282, 283, 296, 1
_RATIONAL, _SHORT = 5, 3
_MAX_CHUNKS = 64


def with_resolution(image: Any, told: InputMetadata, spec: OutputSpec, factor: float) -> Any:
    """Give an image the pixel size that its description tells, or one that stands for none.

    Args:
        image: as libvips holds it, with the resolution of the output.
        told: of the input.
        spec: the output.
        factor: pixels of the output per input pixel.
    """
    if told.pixel_size_um is not None and spec.format.name in ("TIFF", "PNG"):
        x, y = (1000 / size * factor for size in told.pixel_size_um)
        return image.copy(xres=x, yres=y)
    if told.resolution is None:
        return image
    unknown = 1.0 if spec.format.name in ("libvips", "raw") else _UNKNOWN
    return image.copy(xres=unknown * told.resolution[0] / told.resolution[1], yres=unknown)


def has_no_unit(told: InputMetadata, spec: OutputSpec) -> bool:
    """Whether an output's resolution is no more than what its pixels are to one another."""
    from_size = told.pixel_size_um is not None and spec.format.name in ("TIFF", "PNG")
    return told.resolution is not None and not from_size and not _ASKED & spec.parsed.keys()


def unit_tags(resolution: tuple[float, float]) -> tuple[Tag, ...]:
    """The tags of a TIFF without a unit."""
    sides = []
    for number, side in zip((_X, _Y), resolution, strict=True):
        value = Fraction(side).limit_denominator(10_000)
        data = struct.pack("<II", value.numerator, value.denominator)
        sides.append(Tag(number, _RATIONAL, 1, data))
    return (*sides, Tag(_UNIT, _SHORT, 1, struct.pack("<H", _NO_UNIT)))


def drop_unit(path: str | os.PathLike[str], resolution: tuple[float, float]) -> None:
    """Take the unit out of a finished PNG or JPEG, in its place.

    Raises:
        OSError: it cannot be written.
    """
    ratio = Fraction(resolution[0] / resolution[1]).limit_denominator(1000)
    across, down = max(ratio.numerator, 1), ratio.denominator
    with open(path, "r+b") as file:
        head = file.read(20)
        if head[6:11] == b"JFIF\0":
            file.seek(13)
            file.write(struct.pack(">BHH", 0, across, down))
            return
        place = 8
        for _ in range(_MAX_CHUNKS if head[:4] == b"\x89PNG" else 0):
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind == b"pHYs":
                chunk = kind + struct.pack(">IIB", across, down, 0)
                file.seek(place + 4)
                file.write(chunk + struct.pack(">I", zlib.crc32(chunk)))
            if kind in (b"pHYs", b"IDAT"):
                return
            place += 12 + length
