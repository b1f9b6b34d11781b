"""A tile loop in torch, in the manner of Real-ESRGAN's RealESRGANer (`realesrgan/utils.py`).

The picture is one float tensor, and so is the result; tiles of 512 pixels get 10 more on every side
that has them, and what comes of these is cut away. Eager, float32, on the CPU. Its script's other
defaults hold: no padding of the whole picture but to a multiple of 2 where the scale is 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .pixels import Picture, read_picture, write_picture
from .torch_model import TorchModel

TILE_PX = 512
PADDING_PX = 10


def enhance_by_torch(source: str, output: str, model: str, threads: int) -> None:
    """Enhance an 8-bit RGB picture.

    Args:
        source: the picture.
        output: the TIFF to write.
        model: an .onnx file of RGB from 0 to 1, whose graph torch carries out.
        threads: of torch.

    Raises:
        ValueError: torch's part of this knows an operation of the model not.
    """
    torch.set_num_threads(threads)
    pixels = read_picture(source)
    write_picture(torch_pixels(pixels, TorchModel(model)), output)


@torch.inference_mode()
def torch_pixels(
    pixels: Picture,
    model: Callable[[Tensor], Tensor],
    tile_px: int = TILE_PX,
    padding_px: int = PADDING_PX,
) -> Picture:
    """Enhance (height, width, 3) pixels tile by tile."""
    height, width = pixels.shape[:2]
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()[None] / 255
    odd_rows, odd_columns = height % 2, width % 2
    image = functional.pad(image, (0, odd_columns, 0, odd_rows), "reflect")
    rows_px, columns_px = image.shape[2:]
    result: Tensor | None = None
    scale = 1
    for top, left in itertools.product(range(0, rows_px, tile_px), range(0, columns_px, tile_px)):
        bottom, right = min(top + tile_px, rows_px), min(left + tile_px, columns_px)
        first_row, first_column = max(top - padding_px, 0), max(left - padding_px, 0)
        tile = image[:, :, first_row : bottom + padding_px, first_column : right + padding_px]
        found = model(tile)
        if result is None:
            scale = found.shape[2] // tile.shape[2]
            result = image.new_zeros((1, 3, rows_px * scale, columns_px * scale))
        above, before = (top - first_row) * scale, (left - first_column) * scale
        result[:, :, top * scale : bottom * scale, left * scale : right * scale] = found[
            :, :, above : above + (bottom - top) * scale, before : before + (right - left) * scale
        ]
    assert result is not None
    result = result[:, :, : height * scale, : width * scale]
    levels = (result[0].clamp_(0, 1).numpy().transpose(1, 2, 0) * 255.0).round()
    return np.ascontiguousarray(levels.astype(np.uint8))
