"""The float64 oracle: whole images in memory, one obvious formula each, no regard for speed."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from srpipe.plan.grid import AxisGrid, Grid


def model_output(path: str, pixels: np.ndarray, white: int | None = None) -> np.ndarray:
    """The whole image through a float32 NCHW model of as many channels as it has bands.

    Returns:
        (height, width, bands) as float64, where 1 is ``white``, or the largest integer of its type.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    unit = pixels.astype(np.float32) / np.float32(white or np.iinfo(pixels.dtype).max)
    batch = np.ascontiguousarray(unit.transpose(2, 0, 1)[np.newaxis])
    (result,) = session.run(None, {session.get_inputs()[0].name: batch})
    return result[0].transpose(1, 2, 0).astype(np.float64)


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
