"""The pictures that benchmarks use: one of the size wanted, from photographs at hand."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pyvips

from srpipe.io.source import read_image_info

from .mosaic import PictureSpec, make_picture

_REPOSITORY = Path(__file__).resolve().parents[2]
# The largest photograph of Debian's package lomiri-wallpapers, 20 MP. Larger in it is a drawing only,
# whose plain areas make the output's compression cost nothing.
_WALLPAPER = Path("/usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg")
_TEST_PICTURES = _REPOSITORY / "tests" / "data"
_JPEG_OPTIONS = "[Q=95]"


def default_pictures() -> list[Path]:
    """Debian's wallpaper, or else the pictures the tests use.

    Raises:
        FileNotFoundError: neither is there.
    """
    pictures = [_WALLPAPER] if _WALLPAPER.is_file() else sorted(_TEST_PICTURES.glob("*.jpg"))
    if not pictures:
        raise FileNotFoundError(
            f"there is neither {_WALLPAPER} nor a .jpg in {_TEST_PICTURES}: name a --picture"
        )
    return pictures


def picture_of(
    pictures: Sequence[Path], least_mp: float, most_mp: float | None, folder: Path
) -> Path:
    """A picture of the size wanted.

    Args:
        pictures: one picture, or several to build one of.
        least_mp: where one picture is smaller, a mosaic is made.
        most_mp: where the picture is larger, its middle is cut out; None: never.
        folder: for what has to be made.

    Returns:
        The only picture itself, if nothing had to be done.
    """
    sizes = [read_image_info(path).size for path in pictures]
    limit_mp = math.inf if most_mp is None else max(most_mp, least_mp)
    if len(pictures) == 1 and least_mp <= sizes[0].megapixels <= limit_mp:
        return pictures[0]
    megapixels = least_mp if sizes[0].megapixels < least_mp or len(pictures) > 1 else limit_mp
    side_px = math.ceil(math.sqrt(megapixels * 1e6))
    made = folder / f"picture-{side_px}.jpg"
    if len(pictures) == 1 and min(sizes[0].width, sizes[0].height) >= side_px:
        image = pyvips.Image.new_from_file(os.fspath(pictures[0]))
        left, top = (image.width - side_px) // 2, (image.height - side_px) // 2
        image.crop(left, top, side_px, side_px).write_to_file(f"{made}{_JPEG_OPTIONS}")
    else:
        make_picture(pictures, f"{made}{_JPEG_OPTIONS}", PictureSpec(side_px, side_px))
    return made
