"""A picture and its enhanced version: how their sizes and crops answer to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srpipe.errors import InputError, SettingsError
from srpipe.plan.geometry import Rect, Size

# A resized picture's sides are rounded to whole pixels, each for itself.
_ROUNDING_PX = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """The sizes of a picture before and after."""

    before: Size
    after: Size

    @property
    def scale(self) -> float:
        """Pixels after per pixel before on an axis, 1 or more."""
        return self.after.width / self.before.width

    def crop_after(self, crop: Rect) -> Rect:
        """What shows the same after as ``crop`` before."""
        x, y = self.scale, self.after.height / self.before.height
        left, top = round(crop.left * x), round(crop.top * y)
        width = min(max(1, round(crop.width * x)), self.after.width - left)
        return Rect(left, top, width, min(max(1, round(crop.height * y)), self.after.height - top))


def make_pair(before: Size, after: Size, before_name: str, after_name: str) -> Pair:
    """Check that one size is an enlargement of the other, by any factor from 1 on.

    Raises:
        InputError: it is not.
    """
    scale = after.width / before.width
    if abs(before.height * scale - after.height) > max(_ROUNDING_PX, scale) or scale < 1:
        raise InputError(
            f"{after_name} ({after}) is no enlargement of {before_name} ({before}): both sides must be "
            "the same multiple, 1 or more; check that the files belong together and their order."
        )
    return Pair(before, after)


def parse_crop(text: str) -> Rect:
    """Read ``X,Y,W,H``.

    Raises:
        SettingsError: it is not four whole numbers, or they are no rectangle.
    """
    try:
        left, top, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(
            f"crop {text!r} must be X,Y,W,H: four whole numbers of pixels, such as 100,50,128,128."
        ) from None
    if left < 0 or top < 0 or width < 1 or height < 1:
        raise SettingsError(
            f"crop {text!r} must begin at 0 or more and have at least 1 pixel a side."
        )
    return Rect(left, top, width, height)


def check_crop(crop: Rect, size: Size) -> None:
    """Refuse a crop that is not inside the picture.

    Raises:
        SettingsError: it is not.
    """
    if crop.left + crop.width > size.width or crop.top + crop.height > size.height:
        raise SettingsError(f"crop {crop} is not inside the picture of {size} before.")


def choose_crops(
    detail: npt.NDArray[np.float64], size: Size, side_px: int, wanted: int
) -> list[Rect]:
    """The most detailed places of a picture, spread over it.

    Args:
        detail: (rows, columns): how much detail there is in equal cells of the picture.
        size: of the picture, pixels.
        side_px: of a crop.
        wanted: at most so many crops.

    Returns:
        Squares inside the picture, in reading order, none near another where there is room.
    """
    width, height = min(side_px, size.width), min(side_px, size.height)
    rows, columns = detail.shape
    left = detail.astype(np.float64).copy()
    apart = max(rows, columns) / (wanted + 1)
    ys, xs = np.mgrid[:rows, :columns]
    crops = []
    for _ in range(wanted):
        row, column = np.unravel_index(int(np.argmax(left)), left.shape)
        if not math.isfinite(left[row, column]):
            break
        x = round((column + 0.5) * size.width / columns - width / 2)
        y = round((row + 0.5) * size.height / rows - height / 2)
        crops.append(
            Rect(
                min(max(x, 0), size.width - width),
                min(max(y, 0), size.height - height),
                width,
                height,
            )
        )
        left[np.hypot(ys - row, xs - column) < apart] = -np.inf
    return sorted(crops, key=lambda crop: (crop.top, crop.left))
