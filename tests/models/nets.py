"""Small nets of the kinds that change when they are converted, made with onnx.helper."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Collects nodes and weights; every method gives the name of a new tensor."""

    def __init__(self, seed: int = 3) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, values: object, name: str = "") -> str:
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        name = name or f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, inside: int, outside: int, size: int = 3, stride: int = 1) -> str:
        kernel = self._rng.normal(0, (inside * size**2) ** -0.5, (outside, inside, size, size))
        pads = [size // 2 if stride == 1 else 0] * 4
        bias = self.weight(self._rng.normal(0, 0.1, outside))
        return self.add("Conv", x, self.weight(kernel), bias, pads=pads, strides=[stride] * 2)

    def layer_norm(self, x: str) -> str:
        centred = self.add("Sub", x, self.add("ReduceMean", x, axes=[1]))
        square = self.add("Pow", centred, self.weight(2.0))
        variance = self.add("ReduceMean", square, axes=[1])
        deviation = self.add("Sqrt", self.add("Add", variance, self.weight(1e-6)))
        return self.add("Div", centred, deviation)

    def gate(self, x: str, features: int) -> str:
        halves = []
        for start in (0, features // 2):
            ends = [self.weight([start]), self.weight([start + features // 2]), self.weight([1])]
            halves.append(self.add("Slice", x, *ends))
        return self.add("Mul", *halves)

    def nafnet_block(self, x: str, features: int) -> str:
        """Norm, convolutions, gate and channel attention, added to the input."""
        y = self.conv(self.layer_norm(x), features, 2 * features, 1)
        y = self.gate(self.conv(y, 2 * features, 2 * features), 2 * features)
        attention = self.conv(self.add("GlobalAveragePool", y), features, features, 1)
        y = self.conv(self.add("Mul", y, attention), features, features, 1)
        return self.add("Add", x, y)

    def nafnet(self, features: int = 8) -> onnx.ModelProto:
        """Three blocks, one of them at half the size."""
        x = self.nafnet_block(self.conv("input", 3, features), features)
        y = self.nafnet_block(self.conv(x, features, 2 * features, 2, stride=2), 2 * features)
        y = self.add("DepthToSpace", self.conv(y, 2 * features, 4 * features, 1), blocksize=2)
        y = self.nafnet_block(self.add("Add", x, y), features)
        detail = self.add("Mul", self.conv(y, features, 3), self.weight(0.1))
        return self.model(self.add("Add", "input", detail))

    def model(self, output: str, opset: int = 17) -> onnx.ModelProto:
        """The model that gives ``output``, RGB of any batch and size."""
        self._nodes.append(helper.make_node("Identity", [output], ["output"], name="end"))
        kind = TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "net",
            [helper.make_tensor_value_info("input", kind, ["batch", 3, "height", "width"])],
            [helper.make_tensor_value_info("output", kind, ["batch", 3, "h", "w"])],
            self._weights,
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)
