"""From the pixels of a job to the image that is saved: resized, with what its input hands on."""

from __future__ import annotations

import os
import re
import struct
from typing import Any

from srpipe.io.colour_management import show_no_more
from srpipe.io.geotiff import enlarged, read_georeference, with_nodata
from srpipe.io.input_metadata import read_input_metadata
from srpipe.io.resize import resize_image
from srpipe.io.resolution import drop_unit, has_no_unit, unit_tags, with_resolution
from srpipe.io.source import carry_fields
from srpipe.io.tiff_directory import Tag, add_tags
from srpipe.io.tiff_metadata import photograph_tags
from srpipe.io.vips import pyvips
from srpipe.plan.image_info import ImageInfo
from srpipe.plan.job import Plan
from srpipe.plan.output import OutputSpec

_INTERPRETATIONS = {
    (1, "uint8"): "b-w",
    (1, "uint16"): "grey16",
    (3, "uint8"): "srgb",
    (3, "uint16"): "rgb16",
    (1, "int16"): "grey16",
    (3, "int16"): "rgb16",
    (1, "float32"): "b-w",
    (3, "float32"): "scrgb",
}

# Their pixels depend on how their colors are stored.
_OWN_COLORS = ("jpeg", "webp", "jp2k")
_XMP = "xmp-data"
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))[2-8]""")
_PHOTOMETRIC, _EXTRA_SAMPLES, _SHORT = 262, 338, 3
_BLACK_IS_ZERO, _RGB, _ALPHA = 1, 2, 2


def interpretation(image: ImageInfo) -> str:
    """The output's colour space, by libvips' name.

    In all of them but multiband, libvips takes a band after the colours for alpha when it resizes.
    """
    if image.is_picture and not image.others:
        return _INTERPRETATIONS[image.colours, image.dtype]
    return "multiband"


def finish_image(plan: Plan, pixels: Any) -> Any:
    """What is saved, from the final pixels of a job.

    Args:
        plan: the job.
        pixels: as libvips reads them, the output before any resizing.

    Raises:
        pyvips.Error: the input's header cannot be read any more.
    """
    image = pixels.copy(interpretation=interpretation(plan.written))
    if plan.part == "pixels":
        return image
    if plan.outscale is not None:
        image = resize_image(image, plan.resized_size, plan.image.alpha_band, plan.written.no_data)
    image = carry_fields(plan.image, image, plan.output_factor)
    told = read_input_metadata(plan.image)
    image = with_resolution(image, told, plan.output, plan.output_factor)
    if plan.image.shown == "tone":
        image = show_no_more(image)
    if plan.turned:
        image = image.autorot()
    if image.get_typeof(_XMP) and (plan.turned or plan.image.loader.startswith("heif")):
        # Programs that find no orientation in EXIF take that of XMP.
        upright = _XMP_ORIENTATION.sub(rb"\g<1>1", image.get(_XMP))
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, _XMP, upright)
    return image


def add_metadata(plan: Plan, path: str | os.PathLike[str], image: Any) -> None:
    """Add what libvips does not write into a file, and take out what it makes up.

    Args:
        plan: the job.
        path: its whole output.
        image: as :func:`finish_image` gave it, or any other with the same fields.

    Raises:
        OSError: the input cannot be read, or the output not be written.
    """
    if plan.part is not None:
        return
    told = read_input_metadata(plan.image)
    no_unit = told.resolution if has_no_unit(told, plan.output) else None
    if no_unit is not None and plan.output.format.name in ("PNG", "JPEG"):
        drop_unit(path, no_unit)
    if plan.output.format.name != "TIFF":
        return
    part, size = plan.frame.in_image(plan.frame.crop), plan.output_size
    scale = size.width / part.width, size.height / part.height
    tags = read_georeference(plan.image.path)
    tags = with_nodata(tags, plan.written.nodata, plan.written.dtype)
    place = enlarged(tags, scale, part.left, part.top)
    tags = photograph_tags(plan.image.path, image, size) if plan.output.keeps_exif else ()
    if no_unit is not None:
        tags += unit_tags(no_unit)
    add_tags(path, (*place, *tags), _band_tags(plan.written, plan.output))


def _band_tags(image: ImageInfo, spec: OutputSpec) -> tuple[Tag, ...]:
    """What the bands are, where libvips writes something else: it takes all after RGB for alpha."""
    if spec.parsed.get("compression") in _OWN_COLORS or (image.is_picture and not image.others):
        return ()
    colors = 3 if image.content == "RGB" else 1
    extra = [_ALPHA if i == image.alpha_band else 0 for i in range(colors, image.bands)]
    photometric = _RGB if image.content == "RGB" else _BLACK_IS_ZERO
    return tuple(
        Tag(number, _SHORT, len(values), struct.pack(f"<{len(values)}H", *values))
        for number, values in ((_PHOTOMETRIC, [photometric]), (_EXTRA_SAMPLES, extra))
    )
