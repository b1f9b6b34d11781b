"""NAFNet, as published for denoising (SIDD, width 32), built with random weights.

Architecture: Chen et al., Simple Baselines for Image Restoration (arXiv 2204.04676), and its code's
`NAFNet_arch.py`: blocks of layer norm, gated convolutions and channel attention, each followed by one
of layer norm and a gated pair of convolutions, in a U of five sizes. The graph is as an exporter writes
it, with the layer norm in single steps. The weights are random, for measuring speed only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17
_IR_VERSION = 8
_WIDTH = 32
_ENCODERS = (2, 2, 4, 8)
_MIDDLE = 12
_DECODERS = (2, 2, 2, 2)
_EPSILON = 1e-6
# What a block adds to its input stays small, so that the signal keeps its size.
_BRANCH_GAIN = 0.1


def build_nafnet(path: Path, width: int = _WIDTH) -> Path:
    """Write the model, free in batch, height and width (multiples of 16); returns ``path``."""
    net = _Net()
    x = net.convolution("input", 3, width, 3)
    channels, skipped = width, []
    for blocks in _ENCODERS:
        x = net.blocks(x, channels, blocks)
        skipped.append(x)
        x = net.convolution(x, channels, 2 * channels, 2, strides=[2, 2])
        channels *= 2
    x = net.blocks(x, channels, _MIDDLE)
    for blocks, skip in zip(_DECODERS, reversed(skipped), strict=True):
        x = net.convolution(x, channels, 2 * channels, 1)
        x = net.add("DepthToSpace", x, blocksize=2, mode="CRD")
        channels //= 2
        x = net.blocks(net.add("Add", x, skip), channels, blocks)
    net.add("Add", net.convolution(x, width, 3, 3, _BRANCH_GAIN), "input", output="output")
    onnx.save(net.model(f"nafnet-{width}"), str(path))
    return path


class _Net:
    """Nodes and weights; the methods return the name of a new tensor."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._known: dict[object, str] = {}

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{op_type}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def blocks(self, x: str, channels: int, count: int) -> str:
        for _ in range(count):
            y = self.convolution(self._norm(x, channels), channels, 2 * channels, 1)
            y = self.convolution(y, 2 * channels, 2 * channels, 3, group=2 * channels)
            y = self._gate(y, channels)
            shares = self.convolution(self.add("GlobalAveragePool", y), channels, channels, 1)
            y = self.convolution(self.add("Mul", y, shares), channels, channels, 1, _BRANCH_GAIN)
            x = self.add("Add", x, y)
            y = self.convolution(self._norm(x, channels), channels, 2 * channels, 1)
            y = self.convolution(self._gate(y, channels), channels, channels, 1, _BRANCH_GAIN)
            x = self.add("Add", x, y)
        return x

    def convolution(
        self, x: str, before: int, after: int, size: int, gain: float = 1.0, *,
        strides: list[int] | None = None, group: int = 1,
    ) -> str:  # fmt: skip
        inside = before // group
        deviation = gain / math.sqrt(inside * size**2)
        kernel = self._weight(self._random.normal(0, deviation, (after, inside, size, size)))
        bias = self._weight(self._random.normal(0, 0.01, after))
        pads = [0 if strides else size // 2] * 4
        return self.add("Conv", x, kernel, bias, pads=pads, strides=strides or [1, 1], group=group)

    def _norm(self, x: str, channels: int) -> str:
        centred = self.add("Sub", x, self.add("ReduceMean", x, axes=[1]))
        square = self.add("Pow", centred, self._number(2.0))
        variance = self.add("ReduceMean", square, axes=[1])
        deviation = self.add("Sqrt", self.add("Add", variance, self._number(_EPSILON)))
        y = self.add("Div", centred, deviation)
        gain = self._weight(self._random.normal(1, 0.1, (1, channels, 1, 1)))
        bias = self._weight(self._random.normal(0, 0.1, (1, channels, 1, 1)))
        return self.add("Add", self.add("Mul", gain, y), bias)

    def _gate(self, x: str, channels: int) -> str:
        zero, middle, end = (self._index(n) for n in (0, channels, 2 * channels))
        halves = [
            self.add("Slice", x, first, last, self._index(1))
            for first, last in ((zero, middle), (middle, end))
        ]
        return self.add("Mul", *halves)

    def _weight(self, values: np.ndarray) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _number(self, value: float) -> str:
        if value not in self._known:
            self._known[value] = self._weight(np.array(value))
        return self._known[value]

    def _index(self, value: int) -> str:
        name = f"index{value}"
        if name not in self._known:
            self._known[name] = name
            self._weights.append(numpy_helper.from_array(np.array([value], np.int64), name))
        return name

    def model(self, name: str) -> onnx.ModelProto:
        ports = [
            helper.make_tensor_value_info(port, TensorProto.FLOAT, ["batch", 3, *sides])
            for port, sides in (("input", ("height", "width")), ("output", ("h", "w")))
        ]
        graph = helper.make_graph(self._nodes, "NAFNet", ports[:1], ports[1:], self._weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
        )
        helper.set_model_props(model, {"name": name, "weights": "random"})
        onnx.checker.check_model(model)
        return model
