"""Gives the channels between two convolutions ranges alike, without changing what the model computes.

All channels of a tensor share one 8-bit scale, so a channel of small values keeps few of its levels.
Dividing an output channel of one convolution by a number and multiplying the inputs of the next by it
changes nothing, as ReLU, leaky ReLU and PReLU let positive factors through (Nagel et al.,
arXiv 1906.04721). The factors balance activations against weights as SmoothQuant does (Xiao et al.,
arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from srpipe.models.qdq import Floats, Graph, group_of

# How much of the difference between channels goes from activations to weights: measured on
# SRVGGNetCompact, 0.75 loses less than 0.5 or 1.
_SHARE = 0.75
_LEAST = 1e-6
_MAX_FACTOR = 1e3


def equalize(model: onnx.ModelProto, peaks: Mapping[str, Floats]) -> onnx.ModelProto:
    """A copy of ``model`` whose convolutions feed one another channels of similar range.

    Args:
        model: constants as initializers.
        peaks: for the result of each convolution, by its name, the largest magnitude in each channel.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = Graph(result)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for conv in graph.nodes:
        if conv.output[0] not in peaks:
            continue
        readers = _equal_readers(graph, conv)
        names = [name for node in (conv, *readers) for name in node.input[1:] if name]
        if not readers or any(len(graph.readers[name]) > 1 for name in names):
            continue
        values = {name: numpy_helper.to_array(tensors[name]).copy() for name in names}
        reach = np.max([np.abs(values[r.input[1]]).max(axis=(0, 2, 3)) for r in readers], axis=0)
        factors = _factors(peaks[conv.output[0]], reach)
        values[conv.input[1]] /= factors.reshape(-1, 1, 1, 1)
        for name in conv.input[2:]:
            values[name] /= factors
        for reader in readers:
            values[reader.input[1]] *= factors.reshape(1, -1, 1, 1)
        for name, array in values.items():
            tensors[name].CopyFrom(numpy_helper.from_array(array, name))
    return result


def _equal_readers(graph: Graph, conv: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The convolutions that alone read ``conv``'s result, through an activation or not; else none."""
    activation = graph.activation_of(conv)
    value = conv.output[0] if activation is None else activation.output[0]
    readers = graph.readers[value]
    if value in graph.outputs or not all(
        graph.is_quantizable(reader) and reader.input[0] == value and group_of(reader) == 1
        for reader in readers
    ):
        return []
    return readers


def _factors(peaks: Floats, reach: Floats) -> Floats:
    wanted = np.maximum(peaks, _LEAST) ** _SHARE / np.maximum(reach, _LEAST) ** (1 - _SHARE)
    wanted = wanted / np.exp(np.log(wanted).mean())
    factors: Floats = np.clip(wanted, 1 / _MAX_FACTOR, _MAX_FACTOR).astype(np.float32)
    return factors
