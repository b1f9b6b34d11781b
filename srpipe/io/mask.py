"""Reads masks: any image, as grey, at a size that memory holds."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from srpipe.errors import InputError, ReadError
from srpipe.io.identity import identify_file
from srpipe.io.vips import VIPS_ERRORS, find_loader, first_line, is_untrusted, pyvips
from srpipe.plan.geometry import Size
from srpipe.plan.mask import Mask, MaskInfo

SOFT_PX = 8
"""How far a sharp border of the mask is spread to each side, input pixels."""
# Larger masks are reduced to it: what they say is needed at the precision of their soft border.
_MAX_PX = 16_000_000


def read_mask_info(path: str, size: Size) -> MaskInfo:
    """Check a mask's file.

    Args:
        path: an image.
        size: of the image that it is for.

    Raises:
        InputError: it is missing, no image, or of another shape.
    """
    if not os.path.isfile(path):
        raise InputError(f"the mask {path} is no file: check the path.")
    try:
        mask = _open(path)
    except VIPS_ERRORS as error:
        raise InputError(
            f"the mask {path} is not an image that can be read ({first_line(error)}): use a grey "
            "TIFF, PNG or JPEG file."
        ) from None
    # As a thumbnail has it: its sides are whole pixels.
    if abs(mask.width * size.height - mask.height * size.width) > max(size.width, size.height):
        raise InputError(
            f"the mask {path} has {mask.width}x{mask.height} pixels, which is not the shape of an "
            f"image of {size}: make it as large, or smaller in both directions alike."
        )
    return MaskInfo(path, identify_file(path).sha256)


def load_mask(info: MaskInfo, size: Size) -> Mask:
    """Read a mask, and make its borders soft.

    Args:
        info: the mask.
        size: of the image that it is for.

    Raises:
        ReadError: it has changed since ``info`` was read, or cannot be read.
    """
    import cv2  # only masks need it here

    try:
        changed = identify_file(info.path).sha256 != info.sha256
        values = _grey(_open(info.path)) if not changed else None
    except (*VIPS_ERRORS, OSError, InputError) as error:
        raise ReadError(f"the mask {info.path} cannot be read: {first_line(error)}.") from None
    if values is None:
        raise ReadError(f"the mask {info.path} changed while the job was running: start it again.")
    reach = [
        round(SOFT_PX * m / n)
        for m, n in zip(values.shape[::-1], (size.width, size.height), strict=True)
    ]
    if max(reach):
        box = (2 * reach[0] + 1, 2 * reach[1] + 1)
        values = cv2.blur(values, box, borderType=cv2.BORDER_REPLICATE).reshape(values.shape)
    return Mask(values, size)


def _open(path: str) -> Any:
    source = pyvips.Source.new_from_file(path)
    loader = find_loader(source)
    if loader and is_untrusted(loader):
        raise InputError(
            f"the mask {path} would be read by libvips' {loader}, which it does not trust with files "
            "from strangers: save it as TIFF or PNG."
        )
    return pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error")


def _grey(image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = image.colourspace("b-w").extract_band(0).cast("uchar")
    pixels = image.width * image.height
    if pixels > _MAX_PX:
        image = image.resize((_MAX_PX / pixels) ** 0.5)
    return np.frombuffer(image.write_to_memory(), np.uint8).reshape(image.height, image.width)
