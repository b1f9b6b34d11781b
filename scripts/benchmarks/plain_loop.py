"""The loop that users write: what srpipe's speed and memory are compared with.

The whole picture is decoded to memory; tiles of 256 pixels with an overlap of 64 go through one
session one by one; results are added up in float32 for the whole picture, beside a plane that counts
how many tiles cover a pixel; at the end comes the mean. The last tile of a row or column is moved
back to the border.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from .pixels import Picture, read_picture, write_picture

TILE_PX = 256
OVERLAP_PX = 64

Planes = npt.NDArray[np.float32]
Model = Callable[[Planes], Planes]
"""From (1, 3, height, width) to (1, 3, scale * height, scale * width), 0 to 1."""


def enhance_plainly(source: str, output: str, model_file: str) -> None:
    """Enhance an 8-bit RGB picture.

    Args:
        source: the picture.
        output: the TIFF to write, compressed as srpipe does it.
        model_file: an .onnx file that takes RGB from 0 to 1 in tiles of any size.
    """
    pixels = read_picture(source)
    session = ort.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    result = enhance_pixels(pixels, lambda batch: session.run(None, {name: batch})[0])
    write_picture(result, output)


def enhance_pixels(
    pixels: Picture,
    model: Model,
    tile_px: int = TILE_PX,
    overlap_px: int = OVERLAP_PX,
) -> Picture:
    """Enhance (height, width, 3) pixels tile by tile; the result is ``scale`` times as large."""
    height, width = pixels.shape[:2]
    sums = weights = None
    for top in tile_starts(height, tile_px, overlap_px):
        for left in tile_starts(width, tile_px, overlap_px):
            tile = pixels[top : top + tile_px, left : left + tile_px]
            batch = np.ascontiguousarray(tile.transpose(2, 0, 1)[None], np.float32)
            batch /= 255
            result = model(batch)[0]
            scale = result.shape[1] // tile.shape[0]
            if sums is None or weights is None:
                sums = np.zeros((3, height * scale, width * scale), np.float32)
                weights = np.zeros((height * scale, width * scale), np.float32)
            rows = slice(top * scale, top * scale + result.shape[1])
            columns = slice(left * scale, left * scale + result.shape[2])
            sums[:, rows, columns] += result
            weights[rows, columns] += 1
    assert sums is not None
    sums /= weights
    np.clip(sums, 0, 1, out=sums)
    sums *= 255
    np.rint(sums, out=sums)
    return np.ascontiguousarray(sums.astype(np.uint8).transpose(1, 2, 0))


def tile_starts(length_px: int, tile_px: int, overlap_px: int) -> list[int]:
    """Origins of the tiles along one axis; the last ones may be the same place twice."""
    stride_px = tile_px - overlap_px
    last_px = max(length_px - tile_px, 0)
    count = -(-length_px // stride_px)
    return [min(i * stride_px, last_px) for i in range(count)]
