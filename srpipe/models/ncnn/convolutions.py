"""ncnn's layers with large weights: convolutions, their transposes, inner products."""

from __future__ import annotations

from typing import Any

import numpy as np

from srpipe.errors import ModelError
from srpipe.models.ncnn.activations import fused
from srpipe.models.ncnn.format import Layer, Values
from srpipe.models.ncnn.graph import Blob, Graph

_SAME_PADS = {-233: "SAME_UPPER", -234: "SAME_LOWER"}


def convolution(graph: Graph, layer: Layer, x: Blob, group: int = 1) -> Blob:
    """Convolution and ConvolutionDepthWise."""
    _refuse(layer, {8: "int8 weights", 19: "weights that are computed"})
    height, width = kernel = _pair(layer, 1, 11)
    weights, bias = _weights(graph, layer, group, height * width, (5, 6))
    per_group = weights.size // (layer.integer(0) * height * width)
    weights = weights.reshape(layer.integer(0), per_group, height, width)
    if layer.number(18) and any(_pads(layer)):
        pads = [0, 0, *_pads(layer)[:2], 0, 0, *_pads(layer)[2:]]
        padded = graph.apply(
            "Pad", x.tensor, graph.constant(pads, np.int64), graph.constant(layer.number(18))
        )
        attributes: dict[str, Any] = {}
    else:
        padded, attributes = x.tensor, _pad_attributes(layer)
    attributes |= {"strides": _pair(layer, 3, 13), "dilations": _pair(layer, 2, 12)}
    inputs = [padded, graph.constant(weights), *bias]
    y = graph.apply("Conv", *inputs, kernel_shape=kernel, group=group, **attributes)
    single = x.single and kernel == [1, 1] and not any(_pads(layer))
    return Blob(fused(graph, layer, y), single)


def grouped_convolution(graph: Graph, layer: Layer, x: Blob) -> Blob:
    """ConvolutionDepthWise: a convolution in groups of channels."""
    return convolution(graph, layer, x, layer.integer(7, 1))


def deconvolution(graph: Graph, layer: Layer, x: Blob, group: int = 1) -> Blob:
    """Deconvolution and DeconvolutionDepthWise."""
    _refuse(layer, {20: "a fixed output size", 21: "a fixed output size"})
    height, width = kernel = _pair(layer, 1, 11)
    weights, bias = _weights(graph, layer, group, height * width, (5, 6))
    # From (group, out, in) to ONNX's (group and in, out).
    outputs = layer.integer(0) // group
    per_group = weights.size // (layer.integer(0) * height * width)
    weights = weights.reshape(group, outputs, per_group, height, width).swapaxes(1, 2)
    weights = weights.reshape(group * per_group, outputs, height, width)
    y = graph.apply(
        "ConvTranspose", x.tensor, graph.constant(weights), *bias,
        kernel_shape=kernel, group=group, strides=_pair(layer, 3, 13),
        dilations=_pair(layer, 2, 12), output_padding=_pair(layer, 18, 19, 0),
        **_pad_attributes(layer),
    )  # fmt: skip
    return Blob(fused(graph, layer, y))


def grouped_deconvolution(graph: Graph, layer: Layer, x: Blob) -> Blob:
    """DeconvolutionDepthWise: a deconvolution in groups of channels."""
    return deconvolution(graph, layer, x, layer.integer(7, 1))


def inner_product(graph: Graph, layer: Layer, x: Blob) -> Blob:
    """InnerProduct of a vector, as in squeeze and excitation."""
    _refuse(layer, {8: "int8 weights"})
    if not x.single:
        raise ModelError(f"{layer} needs images of one size only: models for any size have none.")
    weights, bias = _weights(graph, layer, 1, 1, (1, 2))
    weights = weights.reshape(layer.integer(0), -1, 1, 1)
    y = graph.apply("Conv", x.tensor, graph.constant(weights), *bias, kernel_shape=[1, 1])
    return Blob(fused(graph, layer, y), single=True)


def input_channels(layer: Layer) -> int | None:
    """How many channels a convolution takes; None for other layers."""
    if layer.kind not in ("Convolution", "ConvolutionDepthWise"):
        return None
    height, width = _pair(layer, 1, 11)
    per_output = layer.integer(0) * height * width
    return layer.integer(6) * layer.integer(7, 1) // per_output if per_output else None


def _weights(
    graph: Graph, layer: Layer, group: int, area: int, keys: tuple[int, int]
) -> tuple[Values, list[str]]:
    """All weights in the file's order, and the tensor of the bias, if there is one."""
    bias_key, size_key = keys
    size, outputs = layer.integer(size_key), layer.integer(0)
    if min(size, outputs, area, group) < 1 or outputs % group or size % (outputs * area):
        raise ModelError(f"{layer} has {size} weights, which do not fit its other parameters.")
    weights = graph.weights.flagged(size)
    bias = [graph.constant(graph.weights.raw(outputs))] if layer.integer(bias_key) else []
    return weights, bias


def _pair(layer: Layer, width_key: int, height_key: int, least: int = 1) -> list[int]:
    """Height and width of a parameter whose height is its width unless told, its width the least."""
    width = layer.integer(width_key, least)
    pair = [layer.integer(height_key, width), width]
    if min(pair) < least:
        raise ModelError(f"{layer} has {pair} as parameters {height_key} and {width_key}.")
    return pair


def _pads(layer: Layer) -> list[int]:
    """Top, left, bottom, right; ONNX's order."""
    left = layer.integer(4)
    top = layer.integer(14, left)
    return [top, left, layer.integer(16, top), layer.integer(15, left)]


def _pad_attributes(layer: Layer) -> dict[str, Any]:
    pads = _pads(layer)
    if pads[0] in _SAME_PADS:
        return {"auto_pad": _SAME_PADS[pads[0]]}
    if min(pads) < 0:
        raise ModelError(f"{layer} has padding {pads}, which is unknown.")
    return {"pads": pads}


def _refuse(layer: Layer, keys: dict[int, str]) -> None:
    for key, what in keys.items():
        if layer.integer(key):
            raise ModelError(f"{layer} has {what}, which srpipe does not convert.")
