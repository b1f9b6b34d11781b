"""The float64 oracle: whole images in memory, one obvious formula each, no regard for speed."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from srpipe.plan.grid import AxisGrid, Grid

EDGE_PX = 64
"""Farther than the models of these tests reach, and a multiple of the sizes that they take."""


def model_output(
    path: str, pixels: np.ndarray, white: int | None = None, edge_px: int = EDGE_PX
) -> np.ndarray:
    """The whole image through a float32 NCHW model of as many channels as it has bands.

    Args:
        path: the model.
        pixels: (height, width, bands) integers.
        white: the value that is 1 to the model.
        edge_px: by how much the image is mirrored beyond its border, which is cut off afterwards; at
            the right and the bottom by more, to a multiple of it.

    Returns:
        (height, width, bands) as float64, where 1 is ``white``, or the largest integer of its type.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    height, width, _ = pixels.shape
    if edge_px:
        around = [(edge_px, edge_px + -side % edge_px) for side in (height, width)]
        pixels = np.pad(pixels, [*around, (0, 0)], mode="reflect")
    unit = pixels.astype(np.float32) / np.float32(white or np.iinfo(pixels.dtype).max)
    batch = np.ascontiguousarray(unit.transpose(2, 0, 1)[np.newaxis])
    (result,) = session.run(None, {session.get_inputs()[0].name: batch})
    result = result[0].transpose(1, 2, 0).astype(np.float64)
    scale = result.shape[0] // pixels.shape[0]
    begin = scale * edge_px
    return result[begin : begin + scale * height, begin : begin + scale * width]


def to_integers(values: np.ndarray, dtype: np.dtype, white: int | None = None) -> np.ndarray:
    """Rounded half up and clipped to the range of ``dtype``; 1 is ``white`` or its largest integer.

    Of signed integers 0 is the smallest; floats stay as they are.
    """
    if dtype == np.float32:
        return values.astype(np.float32)
    lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    if lowest < 0:
        return (np.floor(np.clip(values, 0, 1) * (highest - lowest) + 0.5) + lowest).astype(dtype)
    return np.floor(np.clip(values * (white or highest), 0, highest) + 0.5).astype(dtype)


def covering(axis: AxisGrid) -> np.ndarray:
    """(tiles, length) truth table: which tile covers which input pixel."""
    position = np.arange(axis.length_px)
    starts = np.array(axis.starts_px)[:, np.newaxis]
    return (position >= starts) & (position < starts + axis.tile_px)


def weighted_sum(
    grid: Grid,
    tiles: list[np.ndarray],
    weights_x: list[np.ndarray],
    weights_y: list[np.ndarray],
    scale: int,
) -> np.ndarray:
    """Sum of (bands, height, width) tiles under separable weights, float64."""
    height, width = grid.y.length_px * scale, grid.x.length_px * scale
    total = np.zeros((tiles[0].shape[0], height, width))
    for tile, planes in zip(grid.tiles(), tiles, strict=True):
        wx, wy = weights_x[tile.column], weights_y[tile.row]
        top, left = tile.source.top * scale, tile.source.left * scale
        window = wy[:, np.newaxis].astype(np.float64) * wx.astype(np.float64)
        part = planes[:, : len(wy), : len(wx)].astype(np.float64) * window
        total[:, top : top + len(wy), left : left + len(wx)] += part
    return total


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two integer images of one dtype."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(np.iinfo(a.dtype).max ** 2 / error)) if error else float("inf")
