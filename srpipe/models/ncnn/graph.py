"""An ONNX graph that grows by one ncnn layer after another.

An ncnn blob is a tensor of four dimensions here, batch first, and so is a vector of ncnn (what a
global pooling gives): batch, length, 1, 1. Its rules of broadcasting then are ONNX's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.models.ncnn.format import Layer, Weights

INPUT_NAME = "input"
OUTPUT_NAME = "output"
# The least that has all operators used here; read by every ONNX Runtime that srpipe takes.
_OPSET = 17
_IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Blob:
    """What a layer makes."""

    tensor: str
    """Name of the tensor."""
    single: bool = False
    """Whether height and width are 1 for every image."""
    constant: bool = False
    """Whether it is part of the model, with a batch of 1."""


class Graph:
    """Nodes and weights so far; the layer begun last gives their names."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._layer = ""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names = {INPUT_NAME, OUTPUT_NAME}

    def begin(self, layer: Layer) -> None:
        """Name what follows after a layer."""
        self._layer = layer.name

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; returns the names of its outputs."""
        names = [self._new_name(op) for _ in range(outputs)]
        node = helper.make_node(op, inputs, names, names[0], **attributes)
        self._nodes.append(node)
        return names

    def apply(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output; returns its name."""
        return self.add(op, list(inputs), **attributes)[0]

    def constant(self, values: Any, dtype: type[np.generic] = np.float32) -> str:
        """Add numbers, float32 unless told; returns their tensor's name."""
        name = self._new_name("weights")
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def _new_name(self, what: str) -> str:
        stem = name = f"{self._layer}/{what}"
        number = 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    def finish(self, output: Blob, channels: int) -> onnx.ModelProto:
        """The model from :data:`INPUT_NAME`, of so many channels, to :data:`OUTPUT_NAME`.

        Raises:
            ModelError: no layer has anything to do with its output.
        """
        if not any(output.tensor in node.output for node in self._nodes):
            raise ModelError("its output is its input, or a constant: there is nothing to run.")
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [OUTPUT_NAME if name == output.tensor else name for name in names]
        shape: list[str | int | None] = ["batch", channels, "height", "width"]
        image = helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, shape)
        shape = ["batch", "out_channels", "out_height", "out_width"]
        result = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self._nodes, "ncnn", [image], [result], self._constants)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(
            graph, producer_name="srpipe", opset_imports=[opset], ir_version=_IR_VERSION
        )
