"""How an image's colours are shown to models, and changed back."""

from __future__ import annotations

from typing import Any

import numpy as np

from srpipe.io.tone_curve import Table, is_like_srgb, read_curves, tables
from srpipe.io.vips import pyvips
from srpipe.plan.image_info import Shown
from srpipe.settings import ColorManagement

_PROFILE = "icc-profile-data"
_LEAST_BYTES = 132
_RGB_SPACES, _GREY_SPACES = ("srgb", "rgb", "rgb16"), ("b-w", "grey16")


def is_damaged(profile: bytes) -> bool:
    """Whether a profile's header is none (ICC.1:2022, 7.2), or it ends early."""
    ends_early = int.from_bytes(profile[:4], "big") > len(profile)
    return len(profile) < _LEAST_BYTES or profile[36:40] != b"acsp" or ends_early


def how_to_show(image: Any, wanted: ColorManagement, *, convertible: bool = True) -> Shown:
    """What is done about an image's profile.

    Args:
        image: a libvips image, grey, RGB or data.
        wanted: what was asked for.
        convertible: whether its numbers may be changed.
    """
    spaces = _RGB_SPACES if wanted == "srgb" else (*_RGB_SPACES, *_GREY_SPACES)
    if not convertible or image.format not in ("uchar", "ushort"):
        return "as it is"
    if wanted == "off" or not image.get_typeof(_PROFILE) or image.interpretation not in spaces:
        return "as it is"
    if is_damaged(image.get(_PROFILE)):
        return "as it is"
    if wanted == "srgb":
        return "srgb"
    # 8 bits under another curve would lose some of them.
    curves = read_curves(image.get(_PROFILE)) if image.format == "ushort" else None
    colours = 1 if image.interpretation in _GREY_SPACES else 3
    if curves is None or is_like_srgb(curves) or len(curves) != colours:
        return "as it is"
    return "tone"


def show(image: Any, shown: Shown) -> Any:
    """The image as models see it."""
    if shown == "srgb":
        depth = 16 if image.format == "ushort" else 8
        return image.icc_transform("srgb", embedded=True, intent="relative", depth=depth)
    if shown == "tone":
        curves = read_curves(image.get(_PROFILE))
        assert curves is not None  # how_to_show has seen them
        return _through(image, tables(curves)[0])
    return image


def show_no_more(image: Any) -> Any:
    """What models made of an image shown by its tone curve, under that of the profile it carries.

    Args:
        image: 8 or 16 bits, as many bands as it was shown with.
    """
    curves = read_curves(image.get(_PROFILE))
    assert curves is not None
    back = tables(curves)[1]
    if image.format == "uchar":
        back = [((table[::257].astype(np.uint32) + 128) // 257).astype(np.uint8) for table in back]
    return _through(image, back)


def _through(image: Any, by_colour: list[Any]) -> Any:
    """Each colour through its table; alpha stays."""
    same = np.arange(len(by_colour[0]), dtype=by_colour[0].dtype)
    bands: list[Table] = [*by_colour, *[same] * (image.bands - len(by_colour))]
    table = np.ascontiguousarray(np.stack(bands, axis=-1)[np.newaxis])
    return image.maplut(pyvips.Image.new_from_array(table)).copy(
        interpretation=image.interpretation
    )
