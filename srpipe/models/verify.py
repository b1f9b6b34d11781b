"""Does a changed model still do the same: models compared by running them on the same tiles."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor
from srpipe.io.session import Session

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
# Sizes at which a model of any size is tried; most windows and strides divide one of them.
_TRIED_PX = (64, 96, 128, 160, 192, 256)

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
        if isinstance(model, bytes):
            with tempfile.TemporaryDirectory(prefix="srpipe-") as folder:
                path = Path(folder) / "model.onnx"
                path.write_bytes(model)
                self._session = Session(os.fspath(path), "cpu", 0)
            self.name = "the converted model"
        else:
            self.name = os.fspath(model)
            self._session = Session(self.name, "cpu", 0)
        inputs = self._session.inputs
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            raise ModelError(
                f"{self.name} does not have one floating-point input: it is no image model."
            )
        self.shape: list[int | None] = [
            dim if isinstance(dim, int) and dim > 0 else None for dim in inputs[0].shape
        ]
        """Of the input; None where any size goes."""
        self._dtype = _DTYPES[inputs[0].type]

    def try_run(self, batch: Tensor, output: str = "") -> Tensor | None:
        """The result of ``output``, by default the first; None if the model does not take the batch."""
        name = output or self._session.outputs[0].name
        return self._session.run_free(
            self._session.inputs[0].name, name, np.ascontiguousarray(batch, self._dtype)
        )

    def run(self, batch: Tensor) -> Tensor:
        """As :meth:`try_run`.

        Raises:
            ModelError: the model does not take the batch.
        """
        result = self.try_run(batch)
        if result is None:
            raise ModelError(
                f"{self.name} fails on an input of {list(batch.shape)} (it declares "
                f"{[dim or 'any' for dim in self.shape]}): give it what it takes."
            )
        return result

    def white(self) -> float:
        """The brightest value of its input, by its metadata."""
        try:
            return float(self._session.metadata.get("value_range", 1))
        except ValueError:
            return 1.0


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest difference between two results; infinite where their shapes or NaNs differ."""
    if a.shape != b.shape:
        return float("inf")
    wide = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float("inf") if np.isnan(wide).any() else float(wide.max(initial=0))


def compare_models(a: Model, b: Model, tile: Tensor) -> float:
    """The largest difference between the results of two models on the same tile.

    Args:
        a: an .onnx file, or its bytes.
        b: the same.
        tile: what both take as input, four dimensions; turned into each one's float type.

    Returns:
        The difference in the models' own range.

    Raises:
        ModelError: one cannot be loaded or does not take the tile, or the results differ in shape.
    """
    first, second = Runner(a).run(tile), Runner(b).run(tile)
    if first.shape != second.shape:
        raise ModelError(
            f"the models give results of {list(first.shape)} and {list(second.shape)} for an input of "
            f"{list(tile.shape)}: they are not the same model."
        )
    return largest_difference(first, second)


def check_batch(model: Model) -> float:
    """The largest difference between a batch of three tiles and the same tiles one by one.

    Args:
        model: an .onnx file, or its bytes, with a free batch.

    Returns:
        The difference in the model's own range: 0 where every bit is the same.

    Raises:
        ModelError: it cannot be loaded, or does not take batches of 1 and 3.
    """
    runner = Runner(model)
    for size in _TRIED_PX:
        tiles = noise(runner.shape, 3, size, runner.white())
        together = runner.try_run(tiles)
        if together is not None:
            apart = np.concatenate([runner.run(tiles[i : i + 1]) for i in range(3)])
            return largest_difference(together, apart)
        if runner.shape.count(None) <= 1:
            break
    raise ModelError(
        f"{runner.name} takes no batch of 3 (it declares {[dim or 'any' for dim in runner.shape]}): "
        "its batch size is fixed."
    )


def noise(shape: list[int | None], batch: int, size: int, white: float, seed: int = 0) -> Tensor:
    """Noise of a shape whose first dimension becomes ``batch`` and whose free ones ``size``."""
    dims = [batch, *(dim or size for dim in shape[1:])]
    return np.random.default_rng(seed).random(dims, np.float32) * np.float32(white)
