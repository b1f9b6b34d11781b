"""Converts ncnn's .param and .bin to an ONNX model for any batch, height and width."""

from __future__ import annotations

from pathlib import Path

import onnx

from srpipe.errors import ModelError
from srpipe.models.fit_size import SizeRule, fit_size
from srpipe.models.graph import add_metadata
from srpipe.models.ncnn.convolutions import input_channels
from srpipe.models.ncnn.format import Layer, Weights, read_param
from srpipe.models.ncnn.graph import INPUT_NAME, Blob, Graph
from srpipe.models.ncnn.layers import LAYERS

_CHANNELS_KEY = 2
_USUAL_CHANNELS = 3


def convert_ncnn(param: Path, weights: Path) -> tuple[onnx.ModelProto, SizeRule]:
    """Turn an ncnn model into an ONNX model whose output is a whole multiple of its input's size.

    Models that lose pixels at the edge (valid convolutions) get an edge padding in front and, where
    they need it, a crop behind. Weights are float32. Its metadata tell name, scale, value range (1),
    colour order (RGB) and source, and a size multiple where the graph works on a lattice.

    Args:
        param: the text file with the layers.
        weights: the .bin file with float32 or float16 weights.

    Raises:
        ModelError: missing, damaged, with layers that srpipe does not convert (all of them are
            named), or no image-to-image model.
    """
    layers = read_param(param)
    unknown = sorted({layer.kind for layer in layers} - {*LAYERS, "Input"})
    if unknown:
        raise ModelError(
            f"{param} has layers that srpipe does not convert: {', '.join(unknown)}. "
            "An ONNX or PyTorch file of the model may work."
        )
    try:
        plain = plain_graph(layers, Weights(weights))
        model, rule = fit_size(plain)
    except ModelError as error:
        raise ModelError(f"{param} cannot be converted: {error}") from None
    entries = {"name": param.stem, "scale": str(rule.scale), "source": "ncnn"}
    entries |= {"value_range": "1", "color_order": "rgb"}
    # Other sizes run too, but tiles off the lattice differ: waifu2x CUNet by 8 levels, on it by 0.5.
    if rule.multiple_px > 1:
        entries["size_multiple"] = str(rule.multiple_px)
    add_metadata(model, entries)
    return model, rule


def plain_graph(layers: list[Layer], weights: Weights) -> onnx.ModelProto:
    """The layers as they are: the output has the size that ncnn gives it.

    Raises:
        ModelError: as :func:`convert_ncnn`.
    """
    graph = Graph(weights)
    blobs: dict[str, Blob] = {}
    images = [layer for layer in layers if layer.kind == "Input"]
    if len(images) != 1 or len(images[0].outputs) != 1:
        raise ModelError(f"it has {len(images)} input layers: srpipe needs one, with one image.")
    for layer in layers:
        if layer.kind == "Input":
            made = [Blob(INPUT_NAME)]
        else:
            graph.begin(layer)
            made = list(LAYERS[layer.kind](graph, layer, _inputs(layer, blobs)))
        if len(made) != len(layer.outputs) or any(name in blobs for name in layer.outputs):
            raise ModelError(f"{layer} has outputs {', '.join(layer.outputs)}, which do not fit.")
        blobs |= dict(zip(layer.outputs, made, strict=True))
    model = graph.finish(_output(layers, blobs), _input_channels(layers, images[0]))
    weights.finish()
    return model


def _inputs(layer: Layer, blobs: dict[str, Blob]) -> list[Blob]:
    missing = [name for name in layer.inputs if name not in blobs]
    if missing:
        raise ModelError(f"{layer} reads {', '.join(missing)}, which no layer before it makes.")
    return [blobs[name] for name in layer.inputs]


def _output(layers: list[Layer], blobs: dict[str, Blob]) -> Blob:
    """The blob that no layer reads."""
    read = {blobs[name].tensor for layer in layers for name in layer.inputs}
    ends = [name for name, blob in blobs.items() if blob.tensor not in read]
    if len(ends) != 1:
        raise ModelError(f"it has {len(ends)} outputs ({', '.join(ends)}): srpipe needs one.")
    return blobs[ends[0]]


def _input_channels(layers: list[Layer], image: Layer) -> int:
    """As the input layer says, or the first convolution behind it."""
    told = image.integer(_CHANNELS_KEY)
    if told > 0:
        return told
    names = set(image.outputs)
    for layer in layers:
        if names.isdisjoint(layer.inputs):
            continue
        if layer.kind == "Split":
            names |= set(layer.outputs)
        channels = input_channels(layer)
        if channels is not None:
            return channels
    return _USUAL_CHANNELS
