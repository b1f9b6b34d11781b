"""Resizing of the finished pixels on their way to the saver."""

from __future__ import annotations

from typing import Any

from srpipe.plan.geometry import Size

_KERNEL = "lanczos3"


def resize_image(image: Any, size: Size) -> Any:
    """Resize a libvips image, row by row as it comes.

    Computed in float and rounded once. Smaller: Lanczos with three lobes; larger: libvips then
    interpolates with bicubic splines. Colours are weighted by their alpha, so that what is
    transparent does not shine through.

    Args:
        image: 8 or 16 bits, with or without alpha.
        size: of the result, pixels.

    Returns:
        An image of the same depth and colour space.
    """
    depth, space, alpha = image.format, image.interpretation, image.hasalpha()
    highest = 255 if depth == "uchar" else 65535
    resized = image.premultiply(max_alpha=highest) if alpha else image.cast("float")
    resized = resized.resize(
        size.width / image.width, vscale=size.height / image.height, kernel=_KERNEL
    )
    if alpha:
        resized = resized.unpremultiply(max_alpha=highest)
    # Half up, as everywhere; a cast alone would cut.
    return (resized + 0.5).floor().cast(depth).copy(interpretation=space)
