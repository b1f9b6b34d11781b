"""Writes convolutions as QDQ: unsigned 8-bit activations, signed 8-bit weights per output channel.

A convolution whose input, weights and output are quantised is what ONNX Runtime runs in integers.
Everything else stays float, between a DequantizeLinear and the next QuantizeLinear.

ONNX Runtime has no integer PReLU, and its float one, between integer convolutions, costs more than
they do. Where a PReLU lies between two of them, the quantised values are split instead, at the
integer that means zero: the part above and the part below become twice the channels, and the slopes
become weights of the next convolution, W·PReLU(x) = W·max(x, 0) + (W·slope)·min(x, 0). That takes twice the
multiplications in integers, but no float and no second rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Floats = npt.NDArray[np.float32]

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
        self.outputs = {port.name for port in graph.output}
        self._weights = {tensor.name: tensor for tensor in graph.initializer}

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """Values of an initializer, None for any other tensor."""
        tensor = self._weights.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

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
            reader.output[0] in chosen and reader.input[0] == value and _group(reader) == 1
            for reader in graph.readers[value]
        )
    )


def quantized_tensors(graph: Graph, chosen: Collection[str]) -> list[str]:
    """Names of the activations whose range :func:`write_qdq` needs."""
    wanted: dict[str, None] = {}
    for node in graph.nodes:
        if node.output[0] in chosen:
            wanted |= dict.fromkeys((node.input[0], _rounded_at(graph, node)))
    return list(wanted)


def write_qdq(
    model: onnx.ModelProto,
    chosen: Collection[str],
    ranges: Mapping[str, Range],
    *,
    split: bool,
    weight_bits: int = 8,
) -> onnx.ModelProto:
    """A copy of ``model`` with some convolutions in integers.

    Args:
        model: opset 13 or later, constants as initializers.
        chosen: the convolutions, by the name of their result; all of them quantizable.
        ranges: of every tensor that :func:`quantized_tensors` names.
        split: write PReLUs between them as split channels.
        weight_bits: 7 keeps sums of two products within 16 bits, for processors that saturate there.
    """
    return _Writer(model, chosen, ranges, split, weight_bits).write()


class _Writer:
    """A tensor that becomes integers keeps its name for what comes back from them, so that nothing
    that reads it changes; the exact values go by ``…_exact``.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        chosen: Collection[str],
        ranges: Mapping[str, Range],
        split: bool,
        weight_bits: int,
    ) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._graph = Graph(self._model)
        self._chosen = chosen
        self._ranges = ranges
        self._most_weight = 2 ** (weight_bits - 1) - 1
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._extra: set[str] = set()
        self._results = {
            _rounded_at(graph, node) for node in graph.nodes if node.output[0] in chosen
        }
        self._split = {
            node.output[0]: node for node in graph.nodes if split and is_split(graph, node, chosen)
        }

    def write(self) -> onnx.ModelProto:
        for node in self._graph.nodes:
            value = node.output[0]
            if value in self._split:
                self._split_channels(node.input[0], value)
                continue
            if value in self._chosen:
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
        source, weight_name, *bias_name = conv.input
        weights = self._values(weight_name)
        known = self._ranges[self._split[source].input[0] if source in self._split else source]
        if source in self._split:
            slopes = self._graph.slopes(self._split[source])
            assert slopes is not None
            weights = np.concatenate([weights, weights * slopes.reshape(1, -1, 1, 1)], axis=1)
        elif source not in self._results:
            rounded = f"{source}_rounded"
            if rounded not in self._extra:
                self._extra.add(rounded)
                self._round(source, rounded, source)
            source = rounded
        name = conv.output[0]
        scales = np.abs(weights).max(axis=(1, 2, 3)) / self._most_weight
        biases = self._values(bias_name[0]) if bias_name and bias_name[0] else None
        if biases is not None:
            scales = np.maximum(scales, np.abs(biases) / (known.scale * _MAX_BIAS))
        scales = np.maximum(scales, _LEAST_SCALE).astype(np.float32)
        integers = np.rint(weights / scales.reshape(-1, 1, 1, 1)).astype(np.int8)
        conv.input[:] = [source, self._constant_integers(f"{name}_weight", integers, scales)]
        if biases is not None:
            units = scales * np.float32(known.scale)
            sums = np.rint(biases / units).astype(np.int32)
            conv.input.append(self._constant_integers(f"{name}_bias", sums, units))

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
        known = self._ranges[name]
        scale = self._constant(f"{name}_scale", np.array(known.scale, np.float32))
        return scale, self._constant(f"{name}_zero", np.array(known.zero_point, np.uint8))

    def _constant_integers(
        self, name: str, integers: npt.NDArray[np.integer], scales: Floats
    ) -> str:
        """A constant with a scale for each output channel, as a real tensor; returns its name."""
        inputs = [
            self._constant(f"{name}_integers", integers),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero", np.zeros(scales.shape, integers.dtype)),
        ]
        return self._add("DequantizeLinear", inputs, f"{name}_real", axis=0)

    def _values(self, name: str) -> Floats:
        values = self._graph.constant(name)
        assert values is not None
        return values.astype(np.float32)

    def _constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self._constants.setdefault(name, numpy_helper.from_array(values, name))
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: int) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], f"{output}_{op}", **attributes))
        return output


def _rounded_at(graph: Graph, conv: onnx.NodeProto) -> str:
    """The tensor at which a convolution's result is rounded: behind a ReLU, which costs nothing."""
    activation = graph.activation_of(conv)
    follows = activation is not None and activation.op_type == "Relu"
    return activation.output[0] if activation is not None and follows else conv.output[0]


def _group(conv: onnx.NodeProto) -> int:
    return next((a.i for a in conv.attribute if a.name == "group"), 1)
