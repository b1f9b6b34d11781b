"""Resizing of the finished pixels on their way to the saver."""

from __future__ import annotations

from typing import Any

import numpy as np

from srpipe.io.vips import DTYPES, pyvips
from srpipe.plan.geometry import Size
from srpipe.plan.nodata import NoData
from srpipe.plan.pixels import limits

_KERNEL = "lanczos3"
# Of a sample's kernel: where less of it has data, or is opaque, the nearest sample counts.
_LEAST_DATA, _LEAST_OPAQUE = 0.5, 0.02


def resize_image(
    image: Any, size: Size, alpha_band: int | None, no_data: NoData | None = None
) -> Any:
    """Resize a libvips image, row by row as it comes.

    Computed in float and rounded once. Smaller: Lanczos with three lobes; larger: libvips then
    interpolates with bicubic splines. All bands are weighted by alpha, where there is one, so that
    what is transparent does not shine through. Samples without data have no weight, and what is empty
    in the result is so by its nearest sample.

    Args:
        image: 8 or 16 bits, or float.
        size: of the result, pixels.
        alpha_band: which band is alpha.
        no_data: what is empty in the image; None: nothing is.

    Returns:
        An image of the same depth and colour space.
    """
    depth, space, last = image.format, image.interpretation, image.bands - 1
    _, highest = limits(DTYPES[depth])
    if no_data is not None:
        resized = _resize_data(image, size, alpha_band, no_data)
    elif alpha_band is None:
        resized = _resize(image.cast("float"), size)
    else:
        order = [*(i for i in range(last + 1) if i != alpha_band), alpha_band]
        # To libvips, the last band of what is black and white is alpha.
        ordered = _in_order(image, order).copy(interpretation="b-w")
        resized = _resize(ordered.premultiply(max_alpha=highest), size)
        resized = resized.unpremultiply(max_alpha=highest)
        resized = _in_order(resized, [order.index(i) for i in range(last + 1)])
    if depth != "float":
        # Half up, as everywhere; a cast alone would cut.
        resized = (resized + 0.5).floor().cast(depth)
    elif alpha_band is not None:
        resized = _with_alpha_in_range(resized, alpha_band)
    if no_data is not None:
        resized = _keep_no_data(resized, image, size, no_data)
    return resized.copy(interpretation=space)


def _resize(image: Any, size: Size) -> Any:
    return image.resize(size.width / image.width, vscale=size.height / image.height, kernel=_KERNEL)


def _with_alpha_in_range(image: Any, alpha_band: int) -> Any:
    """A float image whose alpha is a share again, where the kernel rings."""
    bands = image.bandsplit()
    alpha = bands[alpha_band]
    alpha = (alpha < 0).ifthenelse(0, (alpha > 1).ifthenelse(1, alpha))
    bands[alpha_band] = alpha
    return bands[0].bandjoin(bands[1:])


def _in_order(image: Any, order: list[int]) -> Any:
    """The image's bands in another order."""
    if order == sorted(order):
        return image
    first, *others = (image[i] for i in order)
    return first.bandjoin(others)


def _resize_data(image: Any, size: Size, alpha_band: int | None, no_data: NoData) -> Any:
    """Means of the samples that have data."""
    # Multiband: else libvips would weight by what it takes for alpha.
    image = image.copy(interpretation="multiband")
    holes = _find(image, no_data)
    values = holes.ifthenelse(0, image.cast("float"))
    data = weights = (holes == 0).cast("float") / 255
    if alpha_band is not None:
        alpha = values[alpha_band] / limits(DTYPES[image.format])[1]
        shares = [alpha if i != alpha_band else alpha * 0 + 1 for i in range(image.bands)]
        shares = shares[0].bandjoin(shares[1:])
        values, weights = values * shares, weights * shares
    weight = _resize(weights, size)
    seen = weight > _LEAST_OPAQUE
    seen = seen & (_resize(data, size) > _LEAST_DATA)
    nearest = _nearest(image, size).cast("float")
    return seen.ifthenelse(_resize(values, size) / weight, nearest)


def _keep_no_data(resized: Any, image: Any, size: Size, no_data: NoData) -> Any:
    taken = _find_value(resized, no_data)
    if taken is not None:
        resized = taken.ifthenelse(no_data.beside, resized)
    nearest = _nearest(image, size)
    return _find(nearest, no_data).ifthenelse(nearest, resized)


def _find(image: Any, no_data: NoData) -> Any:
    """255 where a sample is empty, else 0, band by band."""
    holes = _find_value(image, no_data)
    if image.format == "float":
        broken = (image.abs() <= float(np.finfo(np.float32).max)) == 0
        holes = broken if holes is None else holes | broken
    return holes


def _find_value(image: Any, no_data: NoData) -> Any | None:
    if no_data.value is None:
        return None
    bands = (image == no_data.value).bandsplit()
    together = no_data.together
    if together > 1:
        bands[:together] = [bands[0].bandjoin(bands[1:together]).bandand()] * together
    if no_data.alpha is not None and no_data.value >= 0:
        bands[no_data.alpha] = bands[0] & 0
    return bands[0].bandjoin(bands[1:])


def _nearest(image: Any, size: Size) -> Any:
    """Each pixel of the result is the one that its center lies in; libvips' own kernel is not exact."""
    if (size.width % image.width, size.height % image.height) == (0, 0):
        return image.zoom(size.width // image.width, size.height // image.height)
    places = pyvips.Image.xyz(size.width, size.height).cast("double") + 0.5
    places = (places * [image.width / size.width, image.height / size.height]).floor()
    return image.mapim(places, interpolate=pyvips.Interpolate.new("nearest"))
