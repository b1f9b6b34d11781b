"""What models do not see: other colour spaces and float numbers, converted while they stream."""

from __future__ import annotations

from typing import Any

CONVERTED = {"cmyk": "CMYK", "lab": "CIELAB", "labs": "CIELAB"}
"""By libvips' name: what people call them."""


def to_rgb(image: Any) -> Any:
    """The image in sRGB, if it is in a space that can be converted to it; else as it is.

    CMYK goes through the embedded profile, or a common one of printing where there is none, by the
    perceptual intent, and the result carries the profile of sRGB; 8 bits stay 8, 16 stay 16. CIELAB,
    which libvips reads as float or 16 bits, becomes 16 bits.

    Float numbers from 0 to 1 become 16 bits; what lies beyond is clipped. Nothing is assumed of their
    tone curve.

    Args:
        image: a libvips image.

    Returns:
        A libvips image, computed as it is asked for.
    """
    if image.interpretation == "cmyk":
        depth = 16 if image.format == "ushort" else 8
        return image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", intent="perceptual", depth=depth
        )
    if image.interpretation in ("lab", "labs"):
        return image.colourspace("rgb16")
    if is_float(image):
        numbers = (image * 65535 + 0.5).floor().cast("ushort")
        greys = image.bands <= 2 and image.interpretation != "multiband"
        space = "grey16" if greys else "multiband"
        if image.bands in (3, 4) and image.interpretation in ("scrgb", "srgb", "rgb"):
            space = "rgb16"
        return numbers.copy(interpretation=space)
    return image


def is_float(image: Any) -> bool:
    """Whether an image has float numbers that are not CIELAB's."""
    return bool(image.format == "float" and image.interpretation not in CONVERTED)


def to_float(image: Any) -> Any:
    """16 bits as float numbers from 0 to 1."""
    space = {"rgb16": "scrgb", "grey16": "b-w"}.get(
        image.interpretation, "multiband" if image.interpretation == "multiband" else "b-w"
    )
    return (image.cast("float") / 65535).copy(interpretation=space)
