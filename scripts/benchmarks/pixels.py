"""Pictures from and to files in memory, for programs that hold them whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from srpipe.plan.output import parse_output

Picture = npt.NDArray[np.uint8]
"""(height, width, 3)"""


def read_picture(source: str) -> Picture:
    """Decode an 8-bit RGB picture."""
    pixels: Picture = pyvips.Image.new_from_file(source, access="sequential").numpy()
    return pixels


def write_picture(pixels: Picture, output: str) -> None:
    """Encode a picture, compressed as srpipe does it."""
    image: Any = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    image.write_to_file(f"{output}[{parse_output(output).options}]")


def cut_middle(source: Path, megapixels: float, multiple_px: int, path: Path) -> Path:
    """Write the middle of a picture, a square if it is large enough, to a lossless file.

    Args:
        source: the picture.
        megapixels: at most so many.
        multiple_px: both sides are multiples of it.
        path: the file; its ending chooses the format.
    """
    image: Any = pyvips.Image.new_from_file(os.fspath(source))
    side_px = int((megapixels * 1e6) ** 0.5)
    width, height = (
        max(1, min(side_px, length) // multiple_px) * multiple_px
        for length in (image.width, image.height)
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image.crop(left, top, width, height).write_to_file(os.fspath(path))
    return path
