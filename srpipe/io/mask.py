"""Reads masks: any image, as grey, at a size that memory holds."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np

from srpipe.errors import InputError, ReadError
from srpipe.io.identity import identify_file
from srpipe.io.metadata_size import check_metadata
from srpipe.io.source import open_as_it_is
from srpipe.io.tiff_header import TiffHeader, read_tiff_header
from srpipe.io.vips import VIPS_ERRORS, find_loader, first_line, is_untrusted, pyvips
from srpipe.plan.geometry import Rect, Size
from srpipe.plan.image_info import guess_content
from srpipe.plan.mask import Grey, Mask, MaskInfo, white_level

logger = logging.getLogger(__name__)

SOFT_PX = 8
"""How far a sharp border of the mask is spread to each side, input pixels."""
# Larger masks are reduced to it: what they say is needed at the precision of their soft border.
_MAX_PX = 16_000_000
# What lossy formats leave of black, and of white.
_NOTHING, _ALL = 0.02, 0.98
_LUMA = (0.299, 0.587, 0.114)
_ALPHA = {"uchar": 255, "ushort": 65535}
_TYPES = {
    "uchar": "uint8", "char": "int8", "ushort": "uint16", "short": "int16", "uint": "uint32",
    "int": "int32", "float": "float32", "double": "float64",
}  # fmt: skip
_INFINITE = 1e38
# Their black may be 1.
_LOSSY = ("jpegload", "webpload", "heifload")


def read_mask_info(path: str, size: Size, part: Rect | None = None) -> MaskInfo:
    """Check a mask, and tell what it enhances.

    Args:
        path: an image.
        size: of the image that it is for.
        part: of that image, which is enhanced; None: all of it.

    Raises:
        InputError: it is missing, no image, of another shape or of a kind that is no mask, or it
            enhances nothing.
    """
    if not os.path.isfile(path):
        raise InputError(f"the mask {path} is no file: check the path.")
    try:
        check_metadata(path)
        mask, _ = _open(path)
        # As a thumbnail has it: its sides are whole pixels.
        if abs(mask.width * size.height - mask.height * size.width) > max(size.width, size.height):
            raise InputError(
                f"the mask {path} has {mask.width}x{mask.height} pixels, which is not the shape of an "
                f"image of {size}: make it as large, or smaller in both directions alike."
            )
        identity = identify_file(path)
        values = _weights(path)
    except VIPS_ERRORS as error:
        raise InputError(
            f"the mask {path} is not an image that can be read ({first_line(error)}): use a grey "
            "TIFF, PNG or JPEG file."
        ) from None
    highest = values.max() / 255
    if highest <= _NOTHING:
        raise InputError(
            f"the mask {path} enhances nothing: it is black, transparent or no number everywhere. What "
            "is white in a mask is enhanced."
        )
    share = Mask(values, size).share(part or Rect(0, 0, size.width, size.height))
    _report(share, highest, "image" if part is None else "part that is asked for")
    return MaskInfo(path, identity.sha256, share)


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
        values = _weights(info.path) if not changed else None
    except VIPS_ERRORS as error:
        raise ReadError(f"the mask {info.path} cannot be read: {first_line(error)}.") from None
    except (OSError, InputError) as error:
        raise ReadError(f"the mask {info.path} cannot be read: {error}.") from None
    if values is None:
        raise ReadError(f"the mask {info.path} changed while the job was running: start it again.")
    reach = [
        round(SOFT_PX * m / n)
        for m, n in zip(values.shape[::-1], (size.width, size.height), strict=True)
    ]
    if max(reach):
        box = (2 * reach[0] + 1, 2 * reach[1] + 1)
        soft = cv2.blur(values, box, borderType=cv2.BORDER_REPLICATE)
        values = np.asarray(soft, np.uint8).reshape(values.shape)
    return Mask(values, size)


def _report(share: float, highest: float, what: str) -> None:
    """Say what a mask enhances, aloud where it is likely to be meant otherwise.

    Args:
        share: of the image, or of a part.
        highest: of what is taken of the model's result anywhere.
        what: the share is of.
    """
    some = f"{share:.1%}" if share > 0.001 else "less than 0.1%" if share else "nothing"
    said = f"The mask enhances {some} of the {what}"
    if not share:
        logger.warning("%s.", said)
    elif highest < _ALL:
        logger.warning(
            "%s, with at most %.0f%% of the model's result: it is white nowhere.",
            said,
            highest * 100,
        )
    elif share > 0.999:
        logger.warning("%s: it is white everywhere.", said)
    else:
        logger.info("%s.", said)


def _open(path: str) -> tuple[Any, TiffHeader | None]:
    source = pyvips.Source.new_from_file(path)
    loader = find_loader(source)
    if loader and is_untrusted(loader):
        raise InputError(
            f"the mask {path} would be read by libvips' {loader}, which it does not trust with files "
            "from strangers: save it as TIFF or PNG."
        )
    header = read_tiff_header(path) if loader.startswith("tiffload") else None
    if header and header.bits > 32:
        raise InputError(
            f"the mask {path} has samples of {header.bits} bits, which libvips does not read: save it "
            "with 8 bits."
        )
    image = open_as_it_is(path, untrusted=False)
    if header and (header.bits, header.photometric) == (1, 0) and "tifffile" in header.software:
        image = image.invert()  # tifffile calls the zeros of booleans white
    return image, header


def _weights(path: str) -> Grey:
    """What is taken of the model's result, 0 to 255.

    Raises:
        InputError: it has bands or numbers that make no mask.
        pyvips.Error, UnicodeDecodeError: it cannot be read; see :data:`srpipe.io.vips.VIPS_ERRORS`.
    """
    image, header = _open(path)
    dtype = _TYPES.get(image.format)
    if dtype is None:
        raise InputError(f"the mask {path} holds {image.format} samples: save it with 8 bits.")
    # Once to see how high it goes, and once for its values: it may be large.
    highest = float(_grey(path, image, header).max())
    lossy = image.get_typeof("vips-loader") and image.get("vips-loader").startswith(_LOSSY)
    white = 255 if lossy else white_level(dtype, highest)
    if white is None:
        raise InputError(
            f"the mask {path} goes up to {highest:g}: black is 0, and white 1, 255 or 65535."
        )
    image = (_grey(path, *_open(path)) * (255 / white) + 0.5).cast("uchar")
    pixels = image.width * image.height
    if pixels > _MAX_PX:
        image = image.resize((_MAX_PX / pixels) ** 0.5)
    return np.frombuffer(image.write_to_memory(), np.uint8).reshape(image.height, image.width)


def _grey(path: str, image: Any, header: TiffHeader | None) -> Any:
    """Brightness as stored, less where it is transparent, 0 where it is no number or no data.

    Raises:
        InputError: its bands make no picture.
    """
    if image.interpretation in ("cmyk", "lab", "labs"):
        image = image.colourspace("srgb")
    content, alpha_band = (
        header.tell_bands(image.bands)
        if header
        else guess_content(image.bands, image.interpretation)
    )
    if content == "data":
        raise InputError(f"the mask {path} has {image.bands} bands of data: save it as grey.")
    alpha = None if alpha_band is None else image[alpha_band]
    empty = None
    if header and header.nodata is not None and header.photometric in (1, 2):
        empty = (image[0] == header.nodata) if header.samples == image.bands else None
    image = image[:1] if content == "grey" else image[:3]
    image = image.cast("float")
    image = (image.abs() < _INFINITE).ifthenelse(image, 0)
    if empty is not None:
        image = empty.ifthenelse(0, image)
    if image.bands == 3:
        image = image.recomb(pyvips.Image.new_from_array([list(_LUMA)]))
    if alpha is not None:
        image = image * (alpha.cast("float") / _ALPHA.get(alpha.format, 1))
    return image
