"""Writes convolutions as QDQ: unsigned 8-bit activations, signed 8-bit weights per output channel.

A convolution whose input, weights and output are quantised is what ONNX Runtime runs in integers.
Everything else stays float, between a DequantizeLinear and the next QuantizeLinear.

ONNX Runtime has no integer PReLU, and its float one, between integer convolutions, costs more than
they do. Where a PReLU lies between two of them, the quantised values are split instead, at the
integer that means zero: the part above and the part below become twice the channels, and the slopes
become weights of the next convolution, W·PReLU(x) = W·max(x, 0) + (W·slope)·min(x, 0). That takes
twice the multiplications, but in integers, without float and without a second rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Floats = npt.NDArray[np.float32]

WEIGHT_BITS = 7
"""With which sums of two products stay within 16 bits, where processors without VNNI stop."""
MOST_WEIGHT = 2 ** (WEIGHT_BITS - 1) - 1
"""The largest integer of a weight."""
_LEVELS = 255
# Bias in units of input scale times weight scale must fit 32 bits, with room for the sum.
_MAX_BIAS = 2**30
_LEAST_SCALE = 1e-12


@dataclass(frozen=True, slots=True)
class Range:
    """The real values that 8 bits stand for; contains zero, so that zero padding is exact."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Real value of one step."""
        return max(self.high - self.low, 1e-8) / _LEVELS

    @property
    def zero_point(self) -> int:
        """The integer that means zero."""
        return min(_LEVELS, max(0, round(-self.low / self.scale)))

    def round(self, values: Floats) -> Floats:
        """What is left of ``values`` after 8 bits."""
        zero = np.float32(self.zero_point)
        integers = np.clip(np.rint(values / np.float32(self.scale)) + zero, 0, _LEVELS)
        rounded: Floats = ((integers - zero) * np.float32(self.scale)).astype(np.float32)
        return rounded


class Graph:
    """Who makes and who reads each tensor of a model, and its constants by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Look through the top level of ``model``'s graph."""
        graph = model.graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        # What subgraphs read must keep its meaning, as what the model gives out.
        self.outputs = {port.name for port in graph.output}
        for node in graph.node:
            self.outputs |= _read_inside(node)
        self._weights = {tensor.name: tensor for tensor in graph.initializer}

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """Values of an initializer, None for any other tensor."""
        tensor = self._weights.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def floats(self, name: str) -> Floats:
        """Values of an initializer that is there."""
        values = self.constant(name)
        assert values is not None
        return values.astype(np.float32)

    def is_quantizable(self, node: onnx.NodeProto) -> bool:
        """Whether it is a convolution with constant float weights."""
        if node.op_type != "Conv":
            return False
        constants = [self.constant(name) for name in node.input[1:] if name]
        return all(values is not None and values.dtype == np.float32 for values in constants)

    def activation_of(self, conv: onnx.NodeProto) -> onnx.NodeProto | None:
        """The ReLU, leaky ReLU or PReLU that alone reads a convolution's result."""
        readers = self.readers[conv.output[0]]
        if len(readers) != 1 or conv.output[0] in self.outputs:
            return None
        return readers[0] if readers[0].op_type in ("Relu", "LeakyRelu", "PRelu") else None

    def slopes(self, prelu: onnx.NodeProto) -> Floats | None:
        """A PReLU's slopes, one a channel or one for all; None where they are no such constants."""
        values = self.constant(prelu.input[1])
        if values is None or values.dtype != np.float32:
            return None
        per_channel = values.ndim <= 1 and values.size == 1
        per_channel |= values.ndim >= 3 and values.size == values.shape[-3]
        return values.reshape(-1).astype(np.float32) if per_channel else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What becomes integers, and how."""

    chosen: frozenset[str]
    """The convolutions, by the name of their result; all of them quantizable."""
    ranges: Mapping[str, Range]
    """Of every tensor that :func:`quantized_tensors` names."""
    split: bool
    """Whether PReLUs between them become split channels (see the module)."""


def is_split(graph: Graph, prelu: onnx.NodeProto, chosen: Collection[str]) -> bool:
    """Whether a PReLU can be split between integer convolutions (see the module)."""
    maker = graph.maker.get(prelu.input[0])
    value = prelu.output[0]
    return (
        prelu.op_type == "PRelu"
        and maker is not None
        and maker.output[0] in chosen
        and graph.activation_of(maker) is prelu
        and graph.slopes(prelu) is not None
        and value not in graph.outputs
        and all(
            reader.output[0] in chosen and reader.input[0] == value and group_of(reader) == 1
            for reader in graph.readers[value]
        )
    )


def quantized_tensors(graph: Graph, chosen: Collection[str]) -> list[str]:
    """Names of the activations whose range :func:`write_qdq` needs."""
    wanted: dict[str, None] = {}
    for node in graph.nodes:
        if node.output[0] in chosen:
            wanted |= dict.fromkeys((node.input[0], rounded_at(graph, node)))
    return list(wanted)


def split_source(graph: Graph, recipe: Recipe, conv: onnx.NodeProto) -> onnx.NodeProto | None:
    """The PReLU whose split channels an integer convolution reads, if it does."""
    maker: onnx.NodeProto | None = graph.maker.get(conv.input[0])
    if recipe.split and maker is not None and is_split(graph, maker, recipe.chosen):
        return maker
    return None


def scaled_weights(graph: Graph, recipe: Recipe, conv: onnx.NodeProto) -> tuple[Floats, Floats]:
    """An integer convolution's weights, those for split channels included, and their scales.

    Returns:
        (outputs, inputs, kernel height, kernel width), not yet rounded; and (outputs,), the real value
        of one.
    """
    weights = graph.floats(conv.input[1])
    prelu = split_source(graph, recipe, conv)
    if prelu is not None:
        slopes = graph.slopes(prelu)
        assert slopes is not None
        weights = np.concatenate([weights, weights * slopes.reshape(1, -1, 1, 1)], axis=1)
    scales = np.abs(weights).max(axis=(1, 2, 3)) / MOST_WEIGHT
    if len(conv.input) > 2 and conv.input[2]:
        step = source_range(graph, recipe, conv).scale
        scales = np.maximum(scales, np.abs(graph.floats(conv.input[2])) / (step * _MAX_BIAS))
    return weights, np.maximum(scales, _LEAST_SCALE).astype(np.float32)


def source_range(graph: Graph, recipe: Recipe, conv: onnx.NodeProto) -> Range:
    """The range of what an integer convolution reads."""
    prelu = split_source(graph, recipe, conv)
    return recipe.ranges[conv.input[0] if prelu is None else prelu.input[0]]


def write_qdq(
    model: onnx.ModelProto, recipe: Recipe, integers: Mapping[str, Floats] | None = None
) -> onnx.ModelProto:
    """A copy of ``model`` with some convolutions in integers.

    Args:
        model: opset 13 or later, constants as initializers.
        recipe: which, and how.
        integers: weights of some of them as whole numbers, by the name of the result, in the shape that
            :func:`scaled_weights` gives; the others are rounded to the nearest.
    """
    return _Writer(model, recipe, integers or {}).write()


class _Writer:
    """A tensor that becomes integers keeps its name for what comes back from them, so that nothing
    that reads it changes; the exact values go by ``…_exact``.
    """

    def __init__(
        self, model: onnx.ModelProto, recipe: Recipe, integers: Mapping[str, Floats]
    ) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._graph = Graph(model)  # what is changed below is the copy
        self._recipe = recipe
        self._integers = integers
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._rounded: set[str] = set()
        chosen = recipe.chosen
        self._results = {
            rounded_at(graph, node) for node in graph.nodes if node.output[0] in chosen
        }
        self._split = {
            node.output[0] for node in graph.nodes if recipe.split and is_split(graph, node, chosen)
        }

    def write(self) -> onnx.ModelProto:
        for node in list(self._model.graph.node):
            value = node.output[0]
            if value in self._split:
                self._split_channels(node.input[0], value)
                continue
            if value in self._recipe.chosen:
                self._make_integer(node)
            self._nodes.append(node)
            if value in self._results:
                node.output[0] = f"{value}_exact"
                self._round(node.output[0], value, value)
        graph = self._model.graph
        del graph.node[:]
        graph.node.extend(self._nodes)
        del graph.value_info[:]
        used = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *self._constants.values()])
        return self._model

    def _make_integer(self, conv: onnx.NodeProto) -> None:
        source, _, *bias = conv.input
        name = conv.output[0]
        weights, scales = scaled_weights(self._graph, self._recipe, conv)
        integers = self._integers.get(name)
        if integers is None:
            integers = np.rint(weights / scales.reshape(-1, 1, 1, 1))
        units = scales * np.float32(source_range(self._graph, self._recipe, conv).scale)
        if source not in self._results | self._split:
            if source not in self._rounded:
                self._rounded.add(source)
                self._round(source, f"{source}_rounded", source)
            source = f"{source}_rounded"
        stored = self._real_constant(f"{name}_weight", integers.astype(np.int8), scales)
        conv.input[:] = [source, stored]
        if bias and bias[0]:
            sums = np.rint(self._graph.floats(bias[0]) / units).astype(np.int32)
            conv.input.append(self._real_constant(f"{name}_bias", sums, units))

    def _round(self, source: str, result: str, name: str) -> None:
        """Put ``source`` through 8 bits; ``name`` has the range."""
        step = self._step(name)
        integers = self._add("QuantizeLinear", [source, *step], f"{name}_integers")
        readers = self._graph.readers[name]
        if not readers or any(reader.output[0] not in self._split for reader in readers):
            self._add("DequantizeLinear", [integers, *step], result)

    def _split_channels(self, source: str, result: str) -> None:
        scale, zero = self._step(source)
        lowest = self._constant("lowest_integer", np.array(0, np.uint8))
        highest = self._constant("highest_integer", np.array(_LEVELS, np.uint8))
        integers = f"{source}_integers"
        above = self._add("Clip", [integers, zero, highest], f"{result}_above")
        below = self._add("Clip", [integers, lowest, zero], f"{result}_below")
        both = self._add("Concat", [above, below], f"{result}_both", axis=1)
        self._add("DequantizeLinear", [both, scale, zero], result)

    def _step(self, name: str) -> tuple[str, str]:
        """Names of a tensor's scale and zero point."""
        known = self._recipe.ranges[name]
        scale = self._constant(f"{name}_scale", np.array(known.scale, np.float32))
        return scale, self._constant(f"{name}_zero", np.array(known.zero_point, np.uint8))

    def _real_constant(self, name: str, integers: npt.NDArray[np.integer], scales: Floats) -> str:
        """A constant with a scale for each output channel, as a real tensor; returns its name."""
        inputs = [
            self._constant(f"{name}_integers", integers),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero", np.zeros(scales.shape, integers.dtype)),
        ]
        return self._add("DequantizeLinear", inputs, f"{name}_real", axis=0)

    def _constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self._constants.setdefault(name, numpy_helper.from_array(values, name))
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], f"{output}_{op}", **attributes))
        return output


def rounded_at(graph: Graph, conv: onnx.NodeProto) -> str:
    """The tensor at which a convolution's result is rounded: behind a ReLU, which costs nothing."""
    activation = graph.activation_of(conv)
    behind = activation is not None and activation.op_type == "Relu"
    return str(activation.output[0] if activation is not None and behind else conv.output[0])


def group_of(conv: onnx.NodeProto) -> int:
    """Into how many groups a convolution's channels are divided."""
    return next((a.i for a in conv.attribute if a.name == "group"), 1)


def _read_inside(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node read."""
    graphs = [a.g for a in node.attribute if a.HasField("g")]
    inner = [other for graph in graphs for other in graph.node]
    return {name for other in inner for name in other.input}.union(*map(_read_inside, inner))
