"""Whether a rewritten graph computes what the original computes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from srpipe.io.binding import Tensor
from srpipe.models.verify import Runner, largest_difference
from srpipe.plan.geometry import round_up
from srpipe.plan.model_info import ModelInfo

TOLERANCE = 1e-5
"""The largest difference allowed, as a share of the distance from black to white."""

# About this large; the sides differ, because what confuses them must not go unnoticed.
_SIDES_PX = ((24, 40), (64, 33))


class Check:
    """The original's results on several tiles, to compare others with."""

    def __init__(self, content: bytes, info: ModelInfo) -> None:
        """Run the original.

        Args:
            content: the model, serialized, with all of its weights.
            info: what is known of it.

        Raises:
            ModelError: ONNX Runtime does not take it.
        """
        self._info = info
        self._tiles = list(trial_tiles(info))
        self._expected = self._run(content)

    def difference(self, content: bytes) -> float:
        """The largest difference that another graph's results show, as a share of the range.

        Infinite where one of them fails or gives NaN.

        Raises:
            ModelError: ONNX Runtime does not take the graph.
        """
        low, high = self._info.value_range
        largest = 0.0
        for result, expected in zip(self._run(content), self._expected, strict=True):
            if expected is None or result is None:
                return float("inf")
            largest = max(largest, largest_difference(result, expected) / (high - low))
        return largest

    def _run(self, content: bytes) -> list[Tensor | None]:
        """The results on all tiles, None where the graph fails."""
        runner = Runner(content)
        return [runner.try_run(tile, self._info.output_name) for tile in self._tiles]


def trial_tiles(info: ModelInfo) -> Iterator[Tensor]:
    """Noise of several sizes and batches, a slope of light without noise, black, and white."""
    rng = np.random.default_rng(0)
    low, high = info.value_range
    for number, (height, width) in enumerate(_SIDES_PX):
        shape = tile_shape(info, height, width, batch=1 + number)
        noise = rng.random(shape, np.float32)
        slope = np.broadcast_to(np.linspace(0, 1, shape[3], dtype=np.float32), shape)
        # Black and white side by side, with an edge between: what is flat divides by little.
        flat = np.where(slope < 0.5, np.float32(0), np.float32(1))
        for tile in (noise, slope, flat):
            yield laid_out(info, tile * np.float32(high - low) + np.float32(low))


def tile_shape(info: ModelInfo, height_px: int, width_px: int, batch: int = 1) -> list[int]:
    """(batch, channels, height, width) that the model takes, about as large as asked for."""
    sides = [
        fixed or round_up(max(wanted, info.least_px), info.multiple_px)
        for fixed, wanted in ((info.height_px, height_px), (info.width_px, width_px))
    ]
    return [info.batch or batch, info.channels, *sides]


def laid_out(info: ModelInfo, nchw: Tensor) -> Tensor:
    """An NCHW batch in the model's layout and precision."""
    array = nchw if info.layout == "NCHW" else nchw.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array, info.dtype)
