"""Where on earth a TIFF lies: tags that libvips does not know, carried from input to output.

The first directory of a finished file is written once more at its end, with the tags added, and the
header then points there: the pixels, and every other directory, stay where they are (TIFF Revision 6.0,
Adobe 1992, section 2; libtiff's description of BigTIFF). Tags: OGC GeoTIFF 1.1 (19-008r4), and GDAL's.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_GDAL = (42112, 42113)
_CARRIED = (_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS, 34736, 34737, *_GDAL)
_GEOREFERENCE = (_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS)
_RASTER_TYPE_KEY, _PIXEL_IS_POINT = 1025, 2
_DOUBLE, _SHORT = 12, 3
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
               16: 8, 17: 8, 18: 8}  # fmt: skip
# Damaged counts must not be believed.
_MAX_ENTRIES = 4096
_MAX_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of a directory."""

    number: int
    kind: int
    """TIFF's number of the type."""
    count: int
    data: bytes
    """The values, little-endian."""


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    kind: int
    count: int
    field: bytes
    """The value, or where it is, as the file has it."""


class _Form:
    """How a file writes its directories: byte order, and the width of numbers."""

    def __init__(self, file: BinaryIO) -> None:
        header = file.read(8)
        self.order = {b"II": "<", b"MM": ">"}[header[:2]]
        big = struct.unpack_from(f"{self.order}H", header, 2)[0] == 43
        self.header_offset = 8 if big else 4
        self.offset, self.count = (f"{self.order}{c}" for c in (("Q", "Q") if big else ("I", "H")))
        self.entry = f"{self.order}HHQ8s" if big else f"{self.order}HHI4s"
        self.field_bytes = 8 if big else 4

    def unpack(self, form: str, file: BinaryIO) -> int:
        (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
        return int(value)

    def first_directory(self, file: BinaryIO) -> tuple[list[_Entry], int]:
        """Its entries, and where the next directory is."""
        file.seek(self.header_offset)
        file.seek(self.unpack(self.offset, file))
        n = self.unpack(self.count, file)
        if n > _MAX_ENTRIES:
            raise ValueError
        table = file.read(n * struct.calcsize(self.entry))
        entries = [_Entry(*values) for values in struct.iter_unpack(self.entry, table)]
        return entries, self.unpack(self.offset, file)

    def data(self, entry: _Entry, file: BinaryIO) -> bytes:
        """An entry's values, little-endian."""
        size = _TYPE_BYTES[entry.kind]
        n_bytes = size * entry.count
        if n_bytes > _MAX_BYTES:
            raise ValueError
        if n_bytes <= self.field_bytes:
            data = entry.field[:n_bytes]
        else:
            file.seek(struct.unpack(self.offset, entry.field)[0])
            data = file.read(n_bytes)
        if len(data) < n_bytes:
            raise ValueError
        return data if self.order == "<" else _swapped(data, size)


def _swapped(data: bytes, size: int) -> bytes:
    return b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))


def read_georeference(path: str | os.PathLike[str]) -> tuple[Tag, ...]:
    """The tags that say where an image lies, and GDAL's own; none where they, or the file, are damaged.

    Args:
        path: any file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            form = _Form(file)
            entries, _ = form.first_directory(file)
            found = [entry for entry in entries if entry.number in _CARRIED]
            return tuple(Tag(e.number, e.kind, e.count, form.data(e, file)) for e in found)
        except (KeyError, ValueError, struct.error):
            return ()


def lies_on_earth(tags: tuple[Tag, ...]) -> bool:
    """Whether tags say where the image lies."""
    return any(tag.number in _GEOREFERENCE for tag in tags)


def enlarged(
    tags: tuple[Tag, ...], scale: tuple[float, float], left_px: float = 0, top_px: float = 0
) -> tuple[Tag, ...]:
    """The tags of an image whose pixels are smaller, or of a part of it.

    Args:
        tags: of the input.
        scale: how many times as many pixels the output has, across and down.
        left_px, top_px: where the part begins, input pixels.
    """
    at_centre = _raster_type(tags) == _PIXEL_IS_POINT

    def moved(value: float, axis: int) -> float:
        """A raster coordinate of the input in the output."""
        value -= (left_px, top_px)[axis]
        return (value + 0.5) * scale[axis] - 0.5 if at_centre else value * scale[axis]

    def change(tag: Tag) -> Tag:
        if tag.kind != _DOUBLE:
            return tag
        values = list(struct.unpack(f"<{tag.count}d", tag.data))
        if tag.number == _PIXEL_SCALE and len(values) >= 2:
            values[:2] = [value / factor for value, factor in zip(values, scale, strict=False)]
        elif tag.number == _TIEPOINTS:
            for i in range(0, len(values) - 5, 6):
                values[i], values[i + 1] = moved(values[i], 0), moved(values[i + 1], 1)
        elif tag.number == _TRANSFORMATION and len(values) == 16:
            # Where the input has raster coordinate 0 in the output, and what one pixel there is here.
            origin = [-moved(0.0, axis) / scale[axis] for axis in (0, 1)]
            for row in range(0, 12, 4):
                across, down = values[row], values[row + 1]
                values[row], values[row + 1] = across / scale[0], down / scale[1]
                values[row + 3] += across * origin[0] + down * origin[1]
        return Tag(tag.number, tag.kind, tag.count, struct.pack(f"<{tag.count}d", *values))

    return tuple(change(tag) for tag in tags)


def _raster_type(tags: tuple[Tag, ...]) -> int | None:
    for tag in tags:
        if tag.number == _GEO_KEYS and tag.kind == _SHORT:
            keys = struct.unpack(f"<{tag.count}H", tag.data)
            for i in range(4, len(keys) - 3, 4):
                if keys[i] == _RASTER_TYPE_KEY and keys[i + 1] == 0:
                    return int(keys[i + 3])
    return None


def add_tags(path: str | os.PathLike[str], tags: tuple[Tag, ...]) -> None:
    """Add tags to the first image of a TIFF, in place of any it has of them.

    Args:
        path: a whole TIFF or BigTIFF.
        tags: to add.

    Raises:
        OSError: it cannot be written, or would be too large for a TIFF that is no BigTIFF.
    """
    if not tags:
        return
    with open(path, "r+b") as file:
        form = _Form(file)
        entries, following = form.first_directory(file)
        numbers = {tag.number for tag in tags}
        entries = [entry for entry in entries if entry.number not in numbers]
        file.seek(0, os.SEEK_END)
        try:
            for tag in tags:
                size = _TYPE_BYTES[tag.kind]
                data = tag.data if form.order == "<" else _swapped(tag.data, size)
                field = data.ljust(form.field_bytes, b"\0")
                if len(data) > form.field_bytes:
                    field = struct.pack(form.offset, _end(file))
                    file.write(data)
                entries.append(_Entry(tag.number, tag.kind, tag.count, field))
            entries.sort(key=lambda entry: entry.number)
            place = struct.pack(form.offset, _end(file))
        except struct.error:
            raise OSError(None, "the georeference does not fit: write [bigtiff]") from None
        file.write(struct.pack(form.count, len(entries)))
        for e in entries:
            file.write(struct.pack(form.entry, e.number, e.kind, e.count, e.field))
        file.write(struct.pack(form.offset, following))
        file.flush()
        file.seek(form.header_offset)
        file.write(place)


def _end(file: BinaryIO) -> int:
    """The end of a file, moved to where a number may begin."""
    if file.tell() % 8:
        file.write(bytes(-file.tell() % 8))
    return file.tell()
