"""Resizing of the finished pixels on their way to the saver."""

from __future__ import annotations

from typing import Any

from srpipe.plan.geometry import Size

_KERNEL = "lanczos3"


def resize_image(image: Any, size: Size, alpha_band: int | None) -> Any:
    """Resize a libvips image, row by row as it comes.

    Computed in float and rounded once. Smaller: Lanczos with three lobes; larger: libvips then
    interpolates with bicubic splines. All bands are weighted by alpha, where there is one, so that
    what is transparent does not shine through.

    Args:
        image: 8 or 16 bits.
        size: of the result, pixels.
        alpha_band: which band is alpha.

    Returns:
        An image of the same depth and colour space.
    """
    depth, space, last = image.format, image.interpretation, image.bands - 1
    scale, vscale = size.width / image.width, size.height / image.height
    if alpha_band is None:
        resized = image.cast("float").resize(scale, vscale=vscale, kernel=_KERNEL)
    else:
        highest = 255 if depth == "uchar" else 65535
        order = [*(i for i in range(last + 1) if i != alpha_band), alpha_band]
        # To libvips, the last band of what is black and white is alpha.
        image = _in_order(image, order).copy(interpretation="b-w").premultiply(max_alpha=highest)
        image = image.resize(scale, vscale=vscale, kernel=_KERNEL)
        resized = image.unpremultiply(max_alpha=highest)
        resized = _in_order(resized, [order.index(i) for i in range(last + 1)])
    # Half up, as everywhere; a cast alone would cut.
    return (resized + 0.5).floor().cast(depth).copy(interpretation=space)


def _in_order(image: Any, order: list[int]) -> Any:
    """The image's bands in another order."""
    if order == sorted(order):
        return image
    first, *others = (image[i] for i in order)
    return first.bandjoin(others)
