"""Layer norm over the channels of an image, with its means as convolutions.

ONNX Runtime's ReduceMean over the channels is slower than a convolution with equal weights to one
channel. What is multiplied and added to the normalised features afterwards goes into the weights of
the convolutions that follow, where there are only such.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from srpipe.models.rewrite.editor import Editor, Floats, attribute, is_a, pads_nothing

_OPSET_WITH_AXES_INPUT = 18


@dataclass(frozen=True, slots=True)
class _Norm:
    """(x - mean) / sqrt(variance + epsilon)."""

    nodes: list[NodeProto]
    x: str
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Affine:
    """gain * normalised + bias, each a number for every channel."""

    nodes: list[NodeProto]
    gain: Floats
    bias: Floats


def norm_by_convolutions(graph: Editor) -> int:
    """Rewrite layer norms over the channels; returns how many there were."""
    places = 0
    for division in graph.nodes("Div"):
        norm = _match(graph, division)
        channels = None if norm is None else graph.channels(norm.x)
        if norm is None or channels is None:
            continue
        affine = _match_affine(graph, division.output[0], channels)
        if affine is not None and _fold(graph, affine):
            graph.replace(
                [*norm.nodes, *affine.nodes],
                _normalise(graph, norm, channels, affine.nodes[-1].output[0]),
            )
        else:
            graph.replace(norm.nodes, _normalise(graph, norm, channels, division.output[0]))
        places += 1
    return places


def _normalise(graph: Editor, norm: _Norm, channels: int, output: str) -> list[NodeProto]:
    share = graph.weight(np.full((1, channels, 1, 1), 1 / channels))
    mean = graph.node("Conv", [norm.x, share])
    centred = graph.node("Sub", [norm.x, mean.output[0]])
    square = graph.node("Mul", [centred.output[0], centred.output[0]])
    variance = graph.node("Conv", [square.output[0], share, graph.weight([norm.epsilon])])
    deviation = graph.node("Sqrt", variance.output)
    inverse = graph.node("Reciprocal", deviation.output)
    result = graph.node("Mul", [centred.output[0], inverse.output[0]], output)
    return [mean, centred, square, variance, deviation, inverse, result]


def _match(graph: Editor, division: NodeProto) -> _Norm | None:
    """The norm that ends in a division, if nothing else uses what it computes on the way."""
    centred = graph.maker(division.input[0], "Sub")
    root = graph.maker(division.input[1], "Sqrt")
    if centred is None or root is None:
        return None
    mean = _channel_mean(graph, centred.input[1])
    shifted = graph.maker(root.input[0], "Add")
    if mean is None or shifted is None or mean.input[0] != centred.input[0]:
        return None
    split = graph.split_constant(shifted)
    if split is None or split[1].size != 1:
        return None
    variance = _channel_mean(graph, split[0])
    square = None if variance is None else _square(graph, variance.input[0])
    if variance is None or square is None or square.input[0] != centred.output[0]:
        return None
    nodes = [mean, centred, square, variance, shifted, root, division]
    inside = {id(node) for node in nodes}
    for node in nodes[:-1]:
        users = graph.users(node.output[0])
        if users is None or any(id(user) not in inside for user in users):
            return None
    return _Norm(nodes, str(centred.input[0]), float(split[1].flat[0]))


def _channel_mean(graph: Editor, name: str) -> NodeProto | None:
    node = graph.maker(name, "ReduceMean")
    if node is None or not attribute(node, "keepdims", 1):
        return None
    if graph.opset < _OPSET_WITH_AXES_INPUT:
        axes = attribute(node, "axes")
    else:
        axes = graph.ints(node.input[1]) if len(node.input) == 2 else None
    return node if axes is not None and list(axes) in ([1], [-3]) else None


def _square(graph: Editor, name: str) -> NodeProto | None:
    power = graph.maker(name, "Pow")
    if power is not None:
        exponent = graph.constant(power.input[1])
        return power if exponent is not None and exponent.size == 1 and exponent == 2 else None
    product = graph.maker(name, "Mul")
    return product if product is not None and product.input[0] == product.input[1] else None


def _match_affine(graph: Editor, name: str, channels: int) -> _Affine | None:
    product = graph.only_user(name, "Mul")
    total = None if product is None else graph.only_user(product.output[0], "Add")
    if product is None or total is None:
        return None
    gain, bias = graph.split_constant(product), graph.split_constant(total)
    shapes = ((channels, 1, 1), (1, channels, 1, 1))
    if gain is None or bias is None or gain[1].shape not in shapes or bias[1].shape not in shapes:
        return None
    return _Affine([product, total], gain[1].reshape(-1), bias[1].reshape(-1))


def _fold(graph: Editor, affine: _Affine) -> bool:
    """Put gain and bias into the convolutions that follow, if nothing else follows."""
    users = graph.users(affine.nodes[-1].output[0])
    if not users:
        return False
    found: list[tuple[NodeProto, Floats, Floats]] = []
    for user in users:
        kernel = graph.floats(user.input[1]) if is_a(user, "Conv") else None
        if kernel is None or attribute(user, "group", 1) != 1 or not pads_nothing(user):
            return False
        bias = (
            graph.floats(user.input[2])
            if len(user.input) == 3
            else np.zeros(len(kernel), np.float32)
        )
        if bias is None:
            return False
        found.append((user, kernel, bias))
    for user, kernel, bias in found:
        wide = kernel.astype(np.float64)
        names = [
            graph.weight(wide * affine.gain.reshape(1, -1, 1, 1)),
            graph.weight(bias + wide.sum(axis=(2, 3)) @ affine.bias),
        ]
        folded = graph.node("Conv", [user.input[0], *names], user.output[0])
        folded.attribute.extend(user.attribute)
        graph.replace([user], [folded])
    return True
