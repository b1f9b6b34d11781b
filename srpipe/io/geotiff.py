"""Where on earth a TIFF lies: tags that libvips does not know, carried from input to output.

Tags: OGC GeoTIFF 1.1 (19-008r4), and GDAL's.
"""

from __future__ import annotations

import os
import struct

from srpipe.io.tiff_directory import Tag, read_tags
from srpipe.plan.nodata import read_value
from srpipe.plan.pixels import PixelDtype

_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_NODATA = 42113
_GDAL = (42112, _NODATA)
_RPC = 50844
_CARRIED = (_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS, 34736, 34737, _RPC, *_GDAL)
_GEOREFERENCE = (_PIXEL_SCALE, _TIEPOINTS, _TRANSFORMATION, _GEO_KEYS, _RPC)
_RASTER_TYPE_KEY, _PIXEL_IS_POINT = 1025, 2
_DOUBLE, _SHORT, _ASCII = 12, 3, 2


def read_georeference(path: str | os.PathLike[str]) -> tuple[Tag, ...]:
    """The tags that say where an image lies, and GDAL's own; none where they, or the file, are damaged.

    Args:
        path: any file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return read_tags(file, _CARRIED)


def with_nodata(tags: tuple[Tag, ...], value: float | None, dtype: PixelDtype) -> tuple[Tag, ...]:
    """The tags with the no-data value of an output.

    Args:
        tags: of the input.
        value: which it is; None: there is none.
        dtype: of the output. A tag that speaks of what this type does not hold stays as it is.
    """
    for tag in tags:
        if tag.number == _NODATA and _said_value(tag, dtype) == value:
            return tags
    others = tuple(tag for tag in tags if tag.number != _NODATA)
    if value is None:
        return others
    text = f"{value:.17g}\0".encode()
    return (*others, Tag(_NODATA, _ASCII, len(text), text))


def _said_value(tag: Tag, dtype: PixelDtype) -> float | None:
    try:
        return read_value(float(tag.data.strip(b" \0")), dtype)
    except ValueError:
        return None


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
        elif tag.number == _RPC and len(values) >= 9:
            # Line and sample: offsets count from the first pixel's middle, then scales.
            for at, axis in ((2, 1), (3, 0)):
                part_px = (left_px, top_px)[axis]
                values[at] = (values[at] - part_px + 0.5) * scale[axis] - 0.5
                values[at + 5] *= scale[axis]
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
