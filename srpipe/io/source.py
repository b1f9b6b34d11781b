"""The input image: its facts from the header, its tiles by streaming."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from srpipe.errors import InputError, ReadError
from srpipe.io.vips import first_line, pyvips
from srpipe.plan.colour import Pixels
from srpipe.plan.geometry import Rect, Size
from srpipe.plan.image_info import ImageInfo, PixelDtype

_DTYPES: dict[str, PixelDtype] = {"uchar": "uint8", "ushort": "uint16"}
_COLOUR_SPACES = {"b-w", "grey16", "srgb", "rgb", "rgb16", "multiband"}
# Carried from input to output as libvips holds them; width, height and strips are the output's own.
_CARRIED = ("icc-profile-data", "exif-data", "xmp-data", "iptc-data", "orientation")


def _open(path: str, **options: Any) -> Any:
    # A source takes the path as it is; a plain file name would have its [brackets] parsed as options.
    source = pyvips.Source.new_from_file(path)
    options = {"access": "sequential", "fail_on": "error"} | options
    return pyvips.Image.new_from_source(source, "", **options)


def read_image_info(path: str | os.PathLike[str]) -> ImageInfo:
    """Read an image's header.

    Raises:
        InputError: missing, not an image, or of a kind srpipe does not take.
    """
    name = os.fspath(path)
    if not os.path.exists(name):
        raise InputError(f"{name} does not exist: check the path.")
    if os.path.isdir(name):
        raise InputError(f"{name} is a folder: name one image file.")
    if not os.access(name, os.R_OK):
        raise InputError(f"{name} cannot be read: check its permissions.")
    if not os.path.isfile(name):
        raise InputError(f"{name} is no regular file: save what comes from it to a file first.")
    if os.path.getsize(name) == 0:
        raise InputError(f"{name} is empty (0 bytes): copy or export it again.")
    try:
        return _describe(name, _open(name))
    except pyvips.Error as error:
        raise InputError(
            f"{name} is not an image that can be read ({first_line(error)}): "
            "use a TIFF, PNG, JPEG, WebP or HEIF file."
        ) from None


def _describe(name: str, image: Any) -> ImageInfo:
    if image.format not in _DTYPES:
        raise InputError(
            f"{name} holds {image.format} samples: convert it to 8 or 16 bits a sample first."
        )
    if image.interpretation not in _COLOUR_SPACES:
        raise InputError(
            f"{name} is in the colour space {image.interpretation}: convert it to grey or RGB first."
        )
    if image.bands not in (1, 2, 3, 4):
        raise InputError(
            f"{name} has {image.bands} bands: srpipe takes grey or RGB, with or without alpha."
        )
    fields = image.get_fields()
    return ImageInfo(
        path=name,
        size=Size(image.width, image.height),
        bands=image.bands,
        dtype=_DTYPES[image.format],
        interpretation=image.interpretation,
        icc_bytes=len(image.get("icc-profile-data")) if "icc-profile-data" in fields else 0,
        loader=image.get("vips-loader"),
        pages=_count_pages(name, image) if "n-pages" in fields else 1,
    )


def _count_pages(name: str, image: Any) -> int:
    pages = int(image.get("n-pages"))
    if pages > 1:
        second = _open(name, page=1)
        # The levels of a pyramid are pages too.
        if second.width <= image.width // 2 + 1 and second.height <= image.height // 2 + 1:
            return 1
    return pages


def carry_fields(path: str, image: Any, scale: int) -> Any:
    """Give ``image`` what an output takes over from its input at ``path``.

    That is profile, EXIF, XMP, IPTC and orientation, and the resolution times ``scale``, so that the
    print size stays.
    """
    source = _open(path)
    types = {bytes: pyvips.GValue.blob_type, int: pyvips.GValue.gint_type}
    # The copy has a header of its own that may be changed.
    image = image.copy(xres=source.xres * scale, yres=source.yres * scale)
    present = set(source.get_fields())
    for name in _CARRIED:
        if name in present:
            value = source.get(name)
            image.set_type(types[type(value)], name, value)
    return image


class TileReader:
    """Streams the tiles of one image; they must be asked for in raster order."""

    def __init__(self, info: ImageInfo) -> None:
        """Open ``info.path``.

        Raises:
            ReadError: the file has changed since ``info`` was read, or is gone.
        """
        self._info = info
        try:
            image = _open(info.path)
        except pyvips.Error as error:
            raise ReadError(f"{info.path} can no longer be opened: {first_line(error)}.") from None
        if (image.width, image.height, image.bands) != (
            info.size.width,
            info.size.height,
            info.bands,
        ):
            raise ReadError(f"{info.path} changed while the job was starting: run it again.")
        self._region = pyvips.Region.new(image)

    def read(self, rect: Rect, out: Pixels) -> None:
        """Copy the pixels of ``rect`` to the upper left of ``out`` (height, width, bands).

        Raises:
            ReadError: the file is truncated or corrupt there.
        """
        try:
            data = self._region.fetch(rect.left, rect.top, rect.width, rect.height)
        except pyvips.Error as error:
            raise ReadError(
                f"{self._info.path} cannot be read at rows {rect.top} to "
                f"{rect.top + rect.height - 1} of {self._info.size.height} ({first_line(error)}): "
                "the file is truncated or corrupt; get a whole copy."
            ) from None
        shape = (rect.height, rect.width, self._info.bands)
        pixels = np.frombuffer(data, self._info.numpy_dtype).reshape(shape)
        out[: rect.height, : rect.width] = pixels


def same_file(a: str, b: str) -> bool:
    """Whether two paths lead to one existing file."""
    try:
        return Path(a).samefile(b)
    except OSError:
        return False
