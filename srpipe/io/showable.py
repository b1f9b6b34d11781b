"""Pictures as a screen shows them: sRGB of 8 bits, whole, as deep-zoom tiles, or beside each other."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srpipe.errors import WriteError
from srpipe.io.source import open_as_it_is
from srpipe.io.vips import VIPS_ERRORS, first_line, pyvips
from srpipe.plan.geometry import Rect, Size
from srpipe.plan.image_info import ImageInfo

_DETAIL_SIDE_PX = 1024
_CELLS = 32
_GAP_PX = 8
_MARGIN = 0.25
# Of a picture that does not say what its bands are, by whether it is grey, and its depth.
_INTERPRETATIONS = {
    (True, "uint8"): "b-w",
    (True, "uint16"): "grey16",
    (False, "uint8"): "srgb",
    (False, "uint16"): "rgb16",
}
_GREY = (40, 40, 40)


def open_showable(info: ImageInfo, *, streaming: bool) -> Any:
    """The picture as libvips' image: sRGB of 8 bits, transparency over grey.

    Args:
        info: the picture, grey or RGB, with or without alpha.
        streaming: read it once from top to bottom; else any part in any order.
    """
    access = "sequential" if streaming else "random"
    image = open_as_it_is(info.path, info.untrusted, access=access)
    if info.others and image.bands == info.bands:
        alpha = [] if info.alpha_band is None else [image.extract_band(info.alpha_band)]
        colors = image.extract_band(0, n=info.colours)
        image = colors.bandjoin(alpha) if alpha else colors
    if "icc-profile-data" in image.get_fields():
        try:
            image = image.icc_transform("srgb", embedded=True, intent="relative", depth=8)
        except pyvips.Error:  # a profile of another colour space, or a damaged one
            image = image.copy()
            image.remove("icc-profile-data")
    if image.interpretation == "multiband":
        image = image.copy(interpretation=_INTERPRETATIONS[info.colours == 1, info.dtype])
    image = image.colourspace("srgb")
    if image.format != "uchar":
        image = image.cast("uchar")
    if image.hasalpha():
        image = image.flatten(background=[128, 128, 128])
    for name in ("exif-data", "xmp-data", "iptc-data", "orientation"):
        if name in image.get_fields():
            image = image.copy()
            image.remove(name)
    return image


def save_tiles(image: Any, place: Path, *, tile_px: int, overlap_px: int, quality: int) -> None:
    """Write ``place`` + ``_files/``: JPEG tiles of all levels of a Deep Zoom image.

    Raises:
        WriteError: they cannot be written.
    """
    try:
        image.dzsave(
            os.fspath(place), tile_size=tile_px, overlap=overlap_px, suffix=f".jpg[Q={quality}]"
        )
    except VIPS_ERRORS as error:
        raise WriteError(f"tiles cannot be written to {place}: {first_line(error)}.") from None


def measure_detail(image: Any) -> npt.NDArray[np.float64]:
    """How much detail there is in equal cells of a picture, (rows, columns): the spread of its
    luma's Laplacian.
    """
    grey = image.colourspace("b-w").extract_band(0)
    longest = max(grey.width, grey.height)
    if longest > _DETAIL_SIDE_PX:
        grey = grey.resize(_DETAIL_SIDE_PX / longest)
    pixels = grey.numpy().astype(np.float64).reshape(grey.height, grey.width)
    curved = np.zeros_like(pixels)
    if min(pixels.shape) > 2:
        centre = pixels[1:-1, 1:-1]
        beside = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
        curved[1:-1, 1:-1] = np.abs(4 * centre - beside)
    rows, columns = (min(_CELLS, n) for n in pixels.shape)
    bands = np.array_split(curved, rows, axis=0)
    return np.array([[part.mean() for part in np.array_split(b, columns, axis=1)] for b in bands])


def make_strip(
    before: Any,
    after: Any,
    crops: list[tuple[Rect, Rect]],
    headings: list[str],
    kernels: tuple[str, ...] = ("nearest", "cubic"),
) -> Any:
    """One row for every crop: before, enlarged with each kernel, beside after.

    Args:
        before: the picture before, sRGB.
        after: the picture after, sRGB.
        crops: rectangles before and after that show the same.
        headings: a text for every column; left out where there is no font.
        kernels: libvips' names.
    """
    rows = []
    for crop_before, crop_after in crops:
        small, large = _cut(before, crop_before), _cut(after, crop_after)
        size = Size(large.width, large.height)
        cells = [_enlarge(small, size, kernel) for kernel in kernels]
        rows.append([*cells, large])
    widths = [max(row[i].width for row in rows) for i in range(len(rows[0]))]
    cells = [_heading(text, width) for text, width in zip(headings, widths, strict=True)]
    if all(cells):
        rows.insert(0, cells)
    return _stack([_stack([_widen(*cell) for cell in zip(row, widths, strict=True)]) for row in rows],
                  "vertical")  # fmt: skip


def _stack(images: list[Any], direction: str = "horizontal") -> Any:
    result = images[0]
    for image in images[1:]:
        result = result.join(
            image, direction, expand=True, shim=_GAP_PX, background=list(_GREY), align="centre"
        )
    return result


def _widen(image: Any, width_px: int) -> Any:
    return image.gravity(
        "centre", width_px, image.height, extend="background", background=list(_GREY)
    )


def _cut(image: Any, rect: Rect) -> Any:
    return image.crop(rect.left, rect.top, rect.width, rect.height)


def _enlarge(image: Any, size: Size, kernel: str) -> Any:
    """Resized to exactly that size."""
    factors = size.width / image.width, size.height / image.height
    larger = image.resize(factors[0], vscale=factors[1], kernel=kernel)
    return larger.crop(0, 0, min(size.width, larger.width), min(size.height, larger.height))


def _heading(text: str, width_px: int) -> Any | None:
    """White text over grey, as wide as its column; None where no font can be found."""
    try:
        letters = pyvips.Image.text(
            html.escape(text), font="sans 14", width=width_px, dpi=96, align="centre"
        )
    except pyvips.Error:
        return None
    height_px = round(letters.height * (1 + 2 * _MARGIN))
    mask = letters.gravity("centre", width_px, height_px)
    white = mask.new_from_image([255, 255, 255])
    return mask.ifthenelse(white, list(_GREY), blend=True).copy(interpretation="srgb")
