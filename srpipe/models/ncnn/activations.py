"""ncnn's activations, as layers and as what a convolution does with its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from srpipe.errors import ModelError
from srpipe.models.ncnn.format import Layer, Number
from srpipe.models.ncnn.graph import Graph

_FLOAT_MAX = float(np.finfo(np.float32).max)


def leaky_relu(graph: Graph, x: str, slope: float) -> str:
    """Negative numbers times ``slope``."""
    return graph.apply("LeakyRelu", x, alpha=slope) if slope else graph.apply("Relu", x)


def prelu(graph: Graph, x: str, slopes: Sequence[float]) -> str:
    """Negative numbers times a slope of their channel, or of all."""
    if len(slopes) == 1:
        return leaky_relu(graph, x, float(slopes[0]))
    return graph.apply("PRelu", x, graph.constant(np.reshape(slopes, (-1, 1, 1))))


def clip(graph: Graph, x: str, least: float, most: float) -> str:
    """Numbers kept within two bounds."""
    return graph.apply("Clip", x, graph.constant(least), graph.constant(most))


def mish(graph: Graph, x: str) -> str:
    """Numbers x as x · tanh(log(1 + eˣ))."""
    return graph.apply("Mul", x, graph.apply("Tanh", graph.apply("Softplus", x)))


def hard_swish(graph: Graph, x: str, alpha: float, beta: float) -> str:
    """Numbers x as x · clip(alpha · x + beta, 0, 1)."""
    return graph.apply("Mul", x, graph.apply("HardSigmoid", x, alpha=alpha, beta=beta))


def swish(graph: Graph, x: str) -> str:
    """Numbers x as x · sigmoid(x)."""
    return graph.apply("Mul", x, graph.apply("Sigmoid", x))


def gelu(graph: Graph, x: str, fast: bool) -> str:
    """Numbers x times the share of a normal distribution below x; ``fast`` by tanh."""
    if fast:
        cube = graph.apply("Mul", graph.apply("Mul", x, x), x)
        bent = graph.apply("Add", x, graph.apply("Mul", cube, graph.constant(0.044715)))
        scaled = graph.apply("Mul", bent, graph.constant(0.79788452))
        share = graph.apply("Tanh", scaled)
    else:
        share = graph.apply("Erf", graph.apply("Mul", x, graph.constant(0.5**0.5)))
    half = graph.apply("Mul", x, graph.constant(0.5))
    return graph.apply("Mul", half, graph.apply("Add", share, graph.constant(1.0)))


# What a convolution's parameter 9 stands for: how many numbers it needs, and what it does with them.
_FUSED: dict[int, tuple[int, Callable[..., str]]] = {
    1: (0, lambda graph, x: leaky_relu(graph, x, 0.0)),
    2: (1, leaky_relu),
    3: (2, clip),
    4: (0, lambda graph, x: graph.apply("Sigmoid", x)),
    5: (0, mish),
    6: (2, hard_swish),
}


def fused(graph: Graph, layer: Layer, x: str) -> str:
    """The activation in parameters 9 and 10 of a convolution or inner product.

    Raises:
        ModelError: unknown, or its numbers are missing.
    """
    kind, params = layer.integer(9), layer.array(10)
    if kind == 0:
        return x
    if kind not in _FUSED:
        raise ModelError(f"{layer} has activation type {kind}, which is unknown.")
    count, function = _FUSED[kind]
    if len(params) < count:
        raise ModelError(f"{layer} has activation type {kind} without its {count} numbers.")
    numbers: tuple[Number, ...] = params[:count]
    return function(graph, x, *(float(number) for number in numbers))


def _prelu_layer(graph: Graph, layer: Layer, x: str) -> str:
    return prelu(graph, x, graph.weights.raw(layer.integer(0)).tolist())


ACTIVATIONS: dict[str, Callable[[Graph, Layer, str], str]] = {
    "Clip": lambda g, layer, x: clip(
        g, x, layer.number(0, -_FLOAT_MAX), layer.number(1, _FLOAT_MAX)
    ),
    "ELU": lambda g, layer, x: g.apply("Elu", x, alpha=layer.number(0, 0.1)),
    "GELU": lambda g, layer, x: gelu(g, x, fast=layer.integer(0) != 0),
    "HardSigmoid": lambda g, layer, x: g.apply(
        "HardSigmoid", x, alpha=layer.number(0, 0.2), beta=layer.number(1, 0.5)
    ),
    "HardSwish": lambda g, layer, x: hard_swish(g, x, layer.number(0, 0.2), layer.number(1, 0.5)),
    "Mish": lambda g, layer, x: mish(g, x),
    "PReLU": _prelu_layer,
    "ReLU": lambda g, layer, x: leaky_relu(g, x, layer.number(0)),
    "Sigmoid": lambda g, layer, x: g.apply("Sigmoid", x),
    "Swish": lambda g, layer, x: swish(g, x),
    "TanH": lambda g, layer, x: g.apply("Tanh", x),
}
"""Layers that change every number by itself, or with one of its channel's: type → function."""
