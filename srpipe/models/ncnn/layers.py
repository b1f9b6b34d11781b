"""What each ncnn layer is in ONNX: the table of types, and the layers with small weights or none.

Parameter numbers are those of ncnn's "operators.md"; where that page and ncnn's code disagree, the
tests compare with ncnn itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from srpipe.errors import ModelError
from srpipe.models.ncnn.activations import ACTIVATIONS
from srpipe.models.ncnn.convolutions import (
    convolution,
    deconvolution,
    grouped_convolution,
    grouped_deconvolution,
    inner_product,
)
from srpipe.models.ncnn.format import Layer
from srpipe.models.ncnn.graph import Blob, Graph
from srpipe.models.ncnn.sizes import (
    TO_THE_END,
    crop,
    interp,
    padding,
    pixel_shuffle,
    pooling,
    slice_axis,
)

_REST = -233  # ncnn's word for "what is left", or "not given"
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sub", "Div", "Pow")
_FIRST_REVERSED = 7  # operations from here on swap their operands
_UNARY = (
    "Abs", "Neg", "Floor", "Ceil", "Square", "Sqrt", "Rsqrt", "Exp", "Log", "Sin", "Cos", "Tan",
    "Asin", "Acos", "Atan", "Reciprocal", "Tanh", "Log10", "Round", "Trunc",
)  # fmt: skip
_ELTWISE = ("Mul", "Add", "Max")

Convert = Callable[[Graph, Layer, Sequence[Blob]], Sequence[Blob]]


def _one(function: Callable[[Graph, Layer, Blob], Blob]) -> Convert:
    """Of a function with one blob in and one out."""
    return lambda graph, layer, inputs: [function(graph, layer, *_take(layer, inputs, 1))]


def _each_number(function: Callable[[Graph, Layer, str], str]) -> Convert:
    """Of a function that keeps the shape."""
    return _one(lambda graph, layer, x: Blob(function(graph, layer, x.tensor), x.single))


def _take(layer: Layer, inputs: Sequence[Blob], count: int) -> Sequence[Blob]:
    if len(inputs) != count:
        raise ModelError(f"{layer} has {len(inputs)} inputs, where {count} belong.")
    return inputs


def _broadcast(graph: Graph, layer: Layer, op: str, a: Blob, b: Blob) -> Blob:
    return Blob(graph.apply(op, a.tensor, b.tensor), a.single and b.single)


def _binary(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    number = layer.integer(0)
    if not 0 <= number < len(_BINARY):
        raise ModelError(f"{layer} has operation {number}, which srpipe does not convert.")
    if layer.integer(1):
        (a,) = _take(layer, inputs, 1)
        b = Blob(graph.constant(layer.number(2)), single=True)
    else:
        a, b = _take(layer, inputs, 2)
    operands = (b, a) if number >= _FIRST_REVERSED else (a, b)
    return [_broadcast(graph, layer, _BINARY[number], *operands)]


def _eltwise(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    number, coefficients = layer.integer(0), layer.array(1)
    if not 0 <= number < len(_ELTWISE):
        raise ModelError(f"{layer} has operation {number}, which is unknown.")
    if number == 1 and coefficients:
        if len(coefficients) != len(inputs):
            raise ModelError(
                f"{layer} has {len(coefficients)} coefficients for {len(inputs)} inputs."
            )
        inputs = [
            blob if factor == 1
            else Blob(graph.apply("Mul", blob.tensor, graph.constant(factor)), blob.single)
            for blob, factor in zip(inputs, coefficients, strict=True)
        ]  # fmt: skip
    total, *others = inputs
    for other in others:
        total = _broadcast(graph, layer, _ELTWISE[number], total, other)
    return [total]


def _unary(graph: Graph, layer: Layer, x: str) -> str:
    number = layer.integer(0)
    if not 0 <= number < len(_UNARY):
        raise ModelError(f"{layer} has operation {number}, which is unknown.")
    match _UNARY[number]:
        case "Square":
            return graph.apply("Mul", x, x)
        case "Rsqrt":
            return graph.apply("Reciprocal", graph.apply("Sqrt", x))
        case "Log10":
            return graph.apply("Mul", graph.apply("Log", x), graph.constant(1 / np.log(10)))
        case "Trunc":
            return graph.apply(
                "Mul", graph.apply("Sign", x), graph.apply("Floor", graph.apply("Abs", x))
            )
        case op:
            return graph.apply(op, x)


def _concat(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    if any(blob.constant for blob in inputs):
        raise ModelError(
            f"{layer} joins a constant, which has a batch of 1: srpipe cannot convert it."
        )
    single = all(blob.single for blob in inputs)
    axis = slice_axis(layer, layer.integer(0), single)
    names = [blob.tensor for blob in inputs]
    return [Blob(graph.apply("Concat", *names, axis=axis), single and axis == 1)]


def _slice(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    (x,) = _take(layer, inputs, 1)
    sizes = [int(size) for size in layer.array(0)]
    axis = slice_axis(layer, layer.integer(1), x.single)
    if len(sizes) != len(layer.outputs) or (_REST in sizes[:-1] and set(sizes) != {_REST}):
        raise ModelError(f"{layer} has sizes {sizes}, which srpipe does not convert.")
    if set(sizes) == {_REST}:
        return [
            Blob(name, x.single) for name in graph.add("Split", [x.tensor], len(sizes), axis=axis)
        ]
    parts, start = [], 0
    for size in sizes:
        end = TO_THE_END if size == _REST else start + size
        bounds = [graph.constant([number], np.int64) for number in (start, end, axis)]
        parts.append(Blob(graph.apply("Slice", x.tensor, *bounds), x.single))
        start = end
    return parts


def _scale(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    size, has_bias = layer.integer(0), layer.integer(1)
    if size == _REST:
        if has_bias:
            raise ModelError(f"{layer} has a bias without a size, which is unknown.")
        return [_broadcast(graph, layer, "Mul", *_take(layer, inputs, 2))]
    (x,) = _take(layer, inputs, 1)
    y = graph.apply("Mul", x.tensor, _per_channel(graph, size))
    if has_bias:
        y = graph.apply("Add", y, _per_channel(graph, size))
    return [Blob(y, x.single)]


def _per_channel(graph: Graph, size: int) -> str:
    return graph.constant(graph.weights.raw(size).reshape(-1, 1, 1))


def _batch_norm(graph: Graph, layer: Layer, x: str) -> str:
    slope, mean, variance, bias = (
        graph.constant(graph.weights.raw(layer.integer(0))) for _ in range(4)
    )
    inputs = (x, slope, bias, mean, variance)
    return graph.apply("BatchNormalization", *inputs, epsilon=layer.number(1))


def _power(graph: Graph, layer: Layer, x: str) -> str:
    scaled = graph.apply("Mul", x, graph.constant(layer.number(1, 1.0)))
    shifted = graph.apply("Add", scaled, graph.constant(layer.number(2)))
    return graph.apply("Pow", shifted, graph.constant(layer.number(0, 1.0)))


def _dropout(graph: Graph, layer: Layer, x: str) -> str:
    scale = layer.number(0, 1.0)
    return x if scale == 1 else graph.apply("Mul", x, graph.constant(scale))


def _vector(graph: Graph, layer: Layer, x: Blob) -> Blob:
    """Flatten and Reshape, of what has a height and width of 1 before and after."""
    sizes = [layer.integer(key, _REST) for key in (2, 11, 1, 0)]
    given = [size for size in sizes if size != _REST]
    if not x.single or any(size != 1 for size in given[1:]):
        raise ModelError(f"{layer} needs images of one size only: models for any size have none.")
    return x


def _memory_data(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    width, height, channels = (layer.integer(key) for key in (0, 1, 2))
    if width < 1 or layer.integer(11) or bool(height) != bool(channels):
        raise ModelError(f"{layer} has a shape that srpipe does not convert.")
    shape = (1, channels, height, width) if channels else (1, width, 1, 1)
    count = int(np.prod(shape))
    raw = layer.integer(21, 1)
    values = graph.weights.raw(count) if raw else graph.weights.flagged(count)
    return [Blob(graph.constant(values.reshape(shape)), shape[2:] == (1, 1), constant=True)]


LAYERS: dict[str, Convert] = {
    **{kind: _each_number(function) for kind, function in ACTIVATIONS.items()},
    "AbsVal": _each_number(lambda graph, layer, x: graph.apply("Abs", x)),
    "BatchNorm": _each_number(_batch_norm),
    "Bias": _each_number(lambda g, layer, x: g.apply("Add", x, _per_channel(g, layer.integer(0)))),
    "BinaryOp": _binary,
    "Concat": _concat,
    "Convolution": _one(convolution),
    "ConvolutionDepthWise": _one(grouped_convolution),
    "Crop": crop,
    "Deconvolution": _one(deconvolution),
    "DeconvolutionDepthWise": _one(grouped_deconvolution),
    "Dropout": _each_number(_dropout),
    "Eltwise": _eltwise,
    "Flatten": _one(_vector),
    "InnerProduct": _one(inner_product),
    "Interp": interp,
    "MemoryData": _memory_data,
    "Noop": _one(lambda graph, layer, x: x),
    "Padding": _one(padding),
    "PixelShuffle": _one(pixel_shuffle),
    "Pooling": _one(pooling),
    "Power": _each_number(_power),
    "Reshape": _one(_vector),
    "Scale": _scale,
    "Slice": _slice,
    "Split": lambda graph, layer, inputs: [*_take(layer, inputs, 1)] * len(layer.outputs),
    "UnaryOp": _each_number(_unary),
}
"""Layer type → function that adds its nodes and returns its blobs."""
