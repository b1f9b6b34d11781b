"""Runs graphs in memory: to measure what cannot be read from them, and to check what was changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from srpipe.errors import ModelError
from srpipe.io.child import time_limit
from srpipe.io.external_data import external_files, loadable_path
from srpipe.io.onnx_runtime import one_line, ort, session_options

Array = npt.NDArray[Any]


def open_on_cpu(model: bytes | str) -> ort.InferenceSession:
    """A session of a model file, or of its bytes.

    Raises:
        ModelError: ONNX Runtime does not take it, or it keeps weights outside its folder.
    """
    name = "the model"
    if isinstance(model, str):
        name = model
        external_files(model)
        model = loadable_path(model)
    options = session_options()
    try:
        with time_limit():
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ModelError(f"{name} cannot be loaded as an ONNX model: {one_line(error)}") from None


class Trial:
    """A graph of one input, ready to run on the CPU."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str] | None = None) -> None:
        """Load a graph.

        Args:
            model: the graph, under 2 GB.
            outputs: names of the tensors to give, also from inside the graph; None for the
                graph's outputs.

        Raises:
            ModelError: ONNX Runtime does not take the graph, or it has no single input.
        """
        self._input_name = only_input(model).name
        self._outputs = None if outputs is None else list(outputs)
        shown = model if outputs is None else _exposing(model, outputs)
        self._session = open_on_cpu(shown.SerializeToString())

    def run(self, image: Array) -> list[Array]:
        """The tensors for one input.

        Raises:
            ModelError: the model fails on it.
        """
        try:
            with time_limit(image.size):
                results: list[Array] = self._session.run(self._outputs, {self._input_name: image})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelError(
                f"the model fails on an input of {image.shape}: {one_line(error)}"
            ) from None
        return results


def noise_for(model: onnx.ModelProto, height_px: int, width_px: int, batch: int = 1) -> Array:
    """Noise in [0, 1) for the one NCHW input of a graph; a fixed dimension stays as it is.

    Raises:
        ModelError: the graph has no single NCHW input of a floating type.
    """
    port = only_input(model)
    kind = onnx.helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
    fixed = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
    if len(fixed) != 4 or not np.issubdtype(kind, np.floating):
        raise ModelError(
            f"the model's input {port.name} is no batch of images: it must be float32 or float16 of "
            "four dimensions, batch, channels, height and width."
        )
    wanted = (batch, 3, height_px, width_px)
    shape = [size or other for size, other in zip(fixed, wanted, strict=True)]
    return np.random.default_rng(0).random(shape, np.float32).astype(kind)


def only_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The graph's one input that is no weight.

    Raises:
        ModelError: there are none or several.
    """
    weights = {weight.name for weight in model.graph.initializer}
    ports: list[onnx.ValueInfoProto] = [
        port for port in model.graph.input if port.name not in weights
    ]
    if len(ports) != 1:
        names = ", ".join(port.name for port in ports) or "nothing"
        raise ModelError(f"the model takes {names}: srpipe needs a model of one input, an image.")
    return ports[0]


def _exposing(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    there = {port.name for port in model.graph.output}
    exposed.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in there
    )
    return exposed
