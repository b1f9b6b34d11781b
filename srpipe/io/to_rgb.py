"""What models do not see: other colour spaces, converted while they stream."""

from __future__ import annotations

from typing import Any

CONVERTED = {"cmyk": "CMYK", "lab": "CIELAB", "labs": "CIELAB"}
"""By libvips' name: what people call them."""


def to_rgb(image: Any) -> Any:
    """The image in sRGB, if it is in a space that can be converted to it; else as it is.

    CMYK goes through the embedded profile, or a common one of printing where there is none, by the
    perceptual intent, and the result carries the profile of sRGB; 8 bits stay 8, 16 stay 16. CIELAB,
    which libvips reads as float or 16 bits, becomes 16 bits.

    Args:
        image: a libvips image.

    Returns:
        A libvips image, computed as it is asked for.
    """
    if image.interpretation == "cmyk" and image.format in ("uchar", "ushort"):
        depth = 16 if image.format == "ushort" else 8
        return image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", intent="perceptual", depth=depth
        )
    if image.interpretation in ("lab", "labs"):
        # As ICC and libtiff have it, its white is D50; libvips' own conversion takes it for D65.
        lab = image.colourspace("lab")
        return lab.icc_export(output_profile="srgb", intent="relative", depth=16)
    return image
