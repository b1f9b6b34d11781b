"""Does a changed model still do the same: models compared by running them on the same tiles."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from srpipe.errors import ModelError, SettingsError
from srpipe.io.binding import Tensor
from srpipe.io.child import time_limit
from srpipe.io.model_sidecar import complete_metadata
from srpipe.io.onnx_runtime import one_line
from srpipe.models.trial import open_on_cpu
from srpipe.settings import ValueRange, parse_value_range

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
# Sizes at which a model of any size is tried; most windows and strides divide one of them.
_TRIED_PX = (64, 96, 128, 160, 192, 256)
_TILES = 3

Model = bytes | str | os.PathLike[str]


class Runner:
    """A model of one input, ready to run on a CPU; it takes and gives arrays in the model's layout."""

    def __init__(self, model: Model) -> None:
        """Load a model.

        Args:
            model: an .onnx file, or its bytes.

        Raises:
            ModelError: it cannot be loaded, or does not have one floating-point input.
        """
        content = model if isinstance(model, bytes) else os.fspath(model)
        self.name = content if isinstance(content, str) else "the model"
        if isinstance(content, str) and not os.path.isfile(content):
            raise ModelError(f"model file {content} does not exist: check the path.")
        self._session = open_on_cpu(content)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            told = " and ".join(f"{port.name} {port.type}" for port in inputs) or "nothing"
            raise ModelError(
                f"{self.name} takes {told}: srpipe needs a model of one input, float32 or float16."
            )
        self.shape: list[int | None] = [
            dim if isinstance(dim, int) and dim > 0 else None for dim in inputs[0].shape
        ]
        """Of the input; None where any size goes."""
        self._input = inputs[0].name
        self._dtype = _DTYPES[inputs[0].type]
        self.why = ""
        """What ONNX Runtime said of the last failure."""
        self._output = ""

    def try_run(self, batch: Tensor, output: str = "") -> Tensor | None:
        """The result of ``output``, by default the image; None if the model does not take the batch."""
        tile = np.ascontiguousarray(batch, self._dtype)
        try:
            with time_limit(tile.size):
                (result,) = self._session.run([output or self.image_output()], {self._input: tile})
        except Exception as error:  # any failure means that the model does not take this shape
            self.why = one_line(error)
            return None
        return result if isinstance(result, np.ndarray) else None

    def run(self, batch: Tensor) -> Tensor:
        """As :meth:`try_run`.

        Raises:
            ModelError: the model does not take the batch.
        """
        result = self.try_run(batch)
        if result is None:
            raise ModelError(
                f"{self.name} fails on an input of {list(batch.shape)} (it declares "
                f"{[dim or 'any' for dim in self.shape]}): {self.why}"
            )
        return result

    def image_output(self) -> str:
        """The first of the largest images that it gives, else the first output."""
        if not self._output:
            outputs = self._session.get_outputs()
            images = [str(output.name) for output in outputs if len(output.shape) in (0, 4)]
            self._output = images[0] if images else str(outputs[0].name)
            if len(images) > 1:
                self._output = self._largest(images) or self._output
        return self._output

    def _largest(self, names: list[str]) -> str | None:
        for size in _TRIED_PX:
            tile = noise(self.shape, self.shape[0] or 1, size, self.value_range())
            results = {name: self.try_run(tile, name) for name in names}
            images = {
                name: result.size
                for name, result in results.items()
                if result is not None
                and result.ndim == 4
                and (result.shape[1] == tile.shape[1] or result.shape[3] == tile.shape[3])
            }
            if images:
                return max(images, key=lambda name: images[name])
        return None

    def value_range(self) -> ValueRange:
        """What black and white are in its numbers, by its metadata.

        Raises:
            ModelError: the metadata makes no sense.
        """
        told = self._session.get_modelmeta().custom_metadata_map
        if self.name != "the model":
            told = complete_metadata(self.name, told)
        try:
            return parse_value_range(told.get("value_range", "1"))
        except SettingsError as error:
            raise ModelError(f"{self.name} has unusable metadata: {error}") from None


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest difference between two results; infinite where their shapes or NaNs differ."""
    if a.shape != b.shape:
        return float("inf")
    wide = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float("inf") if np.isnan(wide).any() else float(wide.max(initial=0))


def check_batch(model: Model) -> float:
    """The largest difference between a batch of three tiles and the same tiles one by one.

    Args:
        model: an .onnx file, or its bytes, with a free batch.

    Returns:
        The difference as a share of the range of the results: 0 where every bit is the same.

    Raises:
        ModelError: it cannot be loaded, or does not take batches of 1 and 3.
    """
    runner = Runner(model)
    for size in _TRIED_PX:
        tiles = noise(runner.shape, _TILES, size, runner.value_range())
        together = runner.try_run(tiles)
        if together is not None:
            apart = np.concatenate([runner.run(tiles[i : i + 1]) for i in range(_TILES)])
            return largest_difference(together, apart) / span_of(apart)
        if runner.shape.count(None) <= 1:
            break
    raise ModelError(
        f"{runner.name} takes no batch of {_TILES} (it declares "
        f"{[dim or 'any' for dim in runner.shape]}): its batch size is fixed."
    )


def span_of(result: Tensor) -> float:
    """The distance from the lowest to the highest value, never 0."""
    return max(float(np.ptp(result)), 1e-6)


def noise(shape: Sequence[int | None], batch: int, size: int, value_range: ValueRange) -> Tensor:
    """Noise of a shape whose first dimension becomes ``batch`` and whose free ones ``size``."""
    return noise_between([batch, *(dim or size for dim in shape[1:])], value_range)


def noise_between(shape: Sequence[int], value_range: ValueRange) -> Tensor:
    """Noise from black to white."""
    low, high = value_range
    values = np.random.default_rng(0).random(shape, np.float32)
    return np.asarray(values * (high - low) + low, np.float32)
