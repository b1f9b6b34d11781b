"""The graph of an .onnx file as eager torch operations, with the file's own weights.

It knows what the models that peers run consist of, no more: convolutions, activations, sums, products,
concatenation, pixel shuffles and resizing. Eager torch spends its time in the same operators whether
a class or a list calls them, so this is as fast as the network's own class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

Step = Callable[[dict[str, Tensor]], None]


class TorchModel:
    """An image-to-image model on the CPU: call it with (1, channels, height, width)."""

    def __init__(self, path: str) -> None:
        """Load a model.

        Raises:
            ValueError: it holds an operation that is not known here.
        """
        graph = onnx.load(path).graph
        self._values = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in graph.initializer
        }
        for node in graph.node:
            if node.op_type == "Constant":
                value = helper.get_attribute_value(node.attribute[0])
                self._values[node.output[0]] = torch.from_numpy(numpy_helper.to_array(value).copy())
        constants = set(self._values)
        inputs = [port.name for port in graph.input if port.name not in constants]
        self._input, self._output = inputs[0], graph.output[0].name
        nodes = [node for node in graph.node if node.op_type != "Constant"]
        self._steps = [(node.output[0], _operation(node, self._values)) for node in nodes]
        # What is never asked for again is let go, as a function's local names would be.
        last = {name: i for i, node in enumerate(nodes) for name in node.input}
        self._spent = [
            [n for n in set(node.input) - constants if n and last[n] == i and n != self._output]
            for i, node in enumerate(nodes)
        ]

    def __call__(self, batch: Tensor) -> Tensor:
        """Run the model."""
        values = {self._input: batch}
        for (name, operation), spent in zip(self._steps, self._spent, strict=True):
            values[name] = operation(values)
            for gone in spent:
                del values[gone]
        return values[self._output]


def _operation(
    node: onnx.NodeProto, constants: dict[str, Tensor]
) -> Callable[[dict[str, Tensor]], Tensor]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kind, names = node.op_type, list(node.input)
    if kind not in _KINDS:
        raise ValueError(f"operation {kind} of node {node.name!r} is not known to the torch loop")
    function = _KINDS[kind]

    def run(values: dict[str, Tensor]) -> Tensor:
        arguments = [constants[n] if n in constants else values[n] for n in names if n]
        return function(arguments, attributes)

    return run


def _conv(arguments: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        raise ValueError("a convolution's padding is not the same on both sides")
    image, weight, *bias = arguments
    return functional.conv2d(
        image,
        weight,
        bias[0] if bias else None,
        tuple(attributes.get("strides", (1, 1))),
        (top, left),
        tuple(attributes.get("dilations", (1, 1))),
        attributes.get("group", 1),
    )


def _prelu(arguments: list[Tensor], _attributes: dict[str, Any]) -> Tensor:
    return functional.prelu(arguments[0], arguments[1].flatten())


def _to_space(arguments: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    image, block = arguments[0], attributes["blocksize"]
    if attributes.get("mode", b"DCR") == b"DCR":
        n, channels, height, width = image.shape
        image = image.reshape(n, block * block, -1, height, width).transpose(1, 2)
        image = image.reshape(n, channels, height, width)
    return functional.pixel_shuffle(image, block)


def _to_depth(arguments: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    image, block = arguments[0], attributes["blocksize"]
    n, channels, height, width = image.shape
    parts = functional.pixel_unshuffle(image, block)
    parts = parts.reshape(n, channels, block * block, height // block, width // block)
    return parts.transpose(1, 2).reshape(n, -1, height // block, width // block)


def _resize(arguments: list[Tensor], attributes: dict[str, Any]) -> Tensor:
    image, scales = arguments[0], arguments[-1]
    factors = [float(s) for s in scales[2:]]
    if attributes.get("mode", b"nearest") == b"nearest":
        return functional.interpolate(image, scale_factor=factors, mode="nearest")
    if attributes.get("coordinate_transformation_mode", b"half_pixel") != b"half_pixel":
        raise ValueError("only half-pixel resizing is known to the torch loop")
    mode = {b"linear": "bilinear", b"cubic": "bicubic"}[attributes["mode"]]
    return functional.interpolate(image, scale_factor=factors, mode=mode, align_corners=False)


_KINDS: dict[str, Callable[[list[Tensor], dict[str, Any]], Tensor]] = {
    "Add": lambda given, _: given[0] + given[1],
    "Concat": lambda given, attributes: torch.cat(given, attributes["axis"]),
    "Conv": _conv,
    "DepthToSpace": _to_space,
    "LeakyRelu": lambda given, attributes: functional.leaky_relu(
        given[0], attributes.get("alpha", 0.01)
    ),
    "Mul": lambda given, _: given[0] * given[1],
    "PRelu": _prelu,
    "Relu": lambda given, _: functional.relu(given[0]),
    "Resize": _resize,
    "SpaceToDepth": _to_depth,
}
