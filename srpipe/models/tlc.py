"""Global pooling made local: the test-time local converter.

A net trained on crops of 256 pixels learns means over 256 pixels; run on a whole image it meets means
over something else, and run on tiles every tile has its own. Chu et al., "Improving Image Restoration
by Revisiting Global Information Aggregation" (ECCV 2022), replace each global mean, at test time
and without training, by the mean over a window around each position. The window always lies inside the
image: at a border it stays the last one that fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srpipe.errors import ModelError, SettingsError
from srpipe.models.graph import metadata_of
from srpipe.models.local_mean import local_mean
from srpipe.models.trial import Trial, noise_for, only_input
from srpipe.settings import MAX_TILE_SIZE_PX

DEFAULT_WINDOW_PX = 384
"""One and a half times the usual training crop of 256, as in the paper."""

_LEAST_OPSET = 11  # CumSum, and Pad with amounts computed in the graph
_POINTWISE = {
    "Abs", "BatchNormalization", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "PRelu",
    "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh",
}  # fmt: skip
_BROADCAST = {"Add", "Div", "Expand", "Max", "Min", "Mul", "Pow", "Sub"}
# The first that the model takes is measured: multiples of 32, and of 96.
_SIZES_PX = ((64, 96), (192, 288))
_WHOLE = 1 << 20  # a window larger than any image
_TOLERANCE = 1e-4
_GLOBAL = {"GlobalLpPool", "GlobalMaxPool", "InstanceNormalization"}
_MOST_NAMED = 5
_NO_LONGER_TRUE = ("seam_", "receptive_radius_px")

_Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Pool:
    """A node that takes the mean over height and width."""

    node: onnx.NodeProto
    pixels_per_px: float
    """Pixels of its input per input pixel of the model, on an axis."""
    half: bool
    """It works in float16."""


def localise_pooling(model: onnx.ModelProto, window_px: int = DEFAULT_WINDOW_PX) -> onnx.ModelProto:
    """Replace global pooling by the mean over a window around each position.

    What is not larger than the window is pooled as before.

    Args:
        model: a graph of one NCHW input, left as it is.
        window_px: side of the window, input pixels.

    Raises:
        ModelError: there is no global pooling, or a node after it cannot work on a map; the message
            names it.
        SettingsError: the window is smaller than a pixel of a pooled map.
    """
    if window_px < 1:
        raise SettingsError(f"a window of {window_px} pixels is none: use 1 or more.")
    nodes = [node for node in model.graph.node if _is_global_pool(model, node)]
    if not nodes:
        raise ModelError(
            "the model pools nothing over the whole image: there is nothing to make local."
        )
    global_ones = [node for node in model.graph.node if _stays_global(model, node)]
    if global_ones:
        names = ", ".join(_label(node) for node in global_ones[:_MOST_NAMED])
        raise ModelError(
            f"{names} would still look at the whole image: the model cannot be made local."
        )
    version = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if version < _LEAST_OPSET:
        raise ModelError(
            f"the model is of opset {version}: it must be {_LEAST_OPSET} or later; export it anew."
        )
    size_px, shapes, half = _measure(model)
    pools = [_pool(node, shapes, size_px, node.output[0] in half) for node in nodes]
    for pool in pools:
        _check_followers(model, pool.node, shapes)
        if round(window_px * pool.pixels_per_px) < 1:
            raise SettingsError(
                f"a window of {window_px} pixels is too small for {_label(pool.node)}, where a pixel "
                f"stands for {1 / pool.pixels_per_px:g}: the usual window is {DEFAULT_WINDOW_PX}."
            )
    _check_result(model, pools, size_px)
    local = _localised(model, pools, window_px)
    facts = metadata_of(model)
    told_px = facts.get("tile_size", "0")
    tile_px = max(2 * window_px, int(told_px) if told_px.isdigit() else 0)
    tile_px = min(tile_px, MAX_TILE_SIZE_PX)
    # How far it sees and how its seams look is no longer what it was.
    kept = {key: text for key, text in facts.items() if not key.startswith(_NO_LONGER_TRUE)}
    told = {"tlc_window_px": str(window_px), "tile_size": str(tile_px)}
    helper.set_model_props(local, kept | told)
    return local


def _is_global_pool(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    keeps = all(a.i == 1 for a in node.attribute if a.name == "keepdims")
    return node.op_type == "ReduceMean" and keeps and _reduced_axes(model, node) == {2, 3}


def _stays_global(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Whether a node takes something else of the whole image than a mean that can be made local."""
    if node.op_type in _GLOBAL:
        return True
    reduces = node.op_type.startswith("Reduce") and {2, 3} <= _reduced_axes(model, node)
    return reduces and not _is_global_pool(model, node)


def _reduced_axes(model: onnx.ModelProto, node: onnx.NodeProto) -> set[int]:
    axes = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1:
        axes = _constant(model, node.input[1])
    return set() if axes is None else {int(axis) % 4 for axis in axes}


def _constant(model: onnx.ModelProto, name: str) -> np.ndarray | None:
    for weight in model.graph.initializer:
        if weight.name == name:
            return numpy_helper.to_array(weight)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            return None if value is None else numpy_helper.to_array(value)
    return None


def _measure(model: onnx.ModelProto) -> tuple[tuple[int, int], _Shapes, set[str]]:
    """Input size, shapes of all tensors at that size, and names of those in float16."""
    names = [name for node in model.graph.node for name in node.output if name]
    trial = Trial(model, names)
    reason = ""
    for height, width in _SIZES_PX:
        image = noise_for(model, height, width)
        try:
            tensors = dict(zip(names, trial.run(image), strict=True))
        except ModelError as error:
            reason = str(error)
            continue
        tensors[only_input(model).name] = image
        shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
        half = {name for name, tensor in tensors.items() if np.asarray(tensor).dtype == np.float16}
        return (image.shape[2], image.shape[3]), shapes, half
    raise ModelError(f"the model cannot be measured: {reason}")


def _pool(node: onnx.NodeProto, shapes: _Shapes, size_px: tuple[int, int], half: bool) -> _Pool:
    shape = shapes[node.input[0]]
    if len(shape) != 4 or shape[2] * size_px[1] != shape[3] * size_px[0]:
        raise ModelError(
            f"{_label(node)} pools a tensor of {shape} at an image of {size_px[1]}x{size_px[0]}: that "
            "is no map of the image, and cannot be made local."
        )
    return _Pool(node, shape[2] / size_px[0], half)


def _check_followers(model: onnx.ModelProto, pool: onnx.NodeProto, shapes: _Shapes) -> None:
    """Everything between the pooling and where its result meets a map must work on a map too."""
    map_size = shapes[pool.input[0]][2:]
    ends = {port.name for port in model.graph.output}
    waiting, seen = [pool.output[0]], set()
    while waiting:
        name = waiting.pop()
        if name in ends:
            raise ModelError(f"{_label(pool)} gives an output of the model: it must stay global.")
        for node in model.graph.node:
            if name not in node.input or node.output[0] in seen:
                continue
            seen.add(node.output[0])
            size = shapes[node.output[0]][2:]
            if size == (1, 1) and _works_on_maps(model, node):
                waiting.append(node.output[0])
            elif size != map_size or node.op_type not in _BROADCAST:
                raise ModelError(
                    f"{_label(node)}, which follows {_label(pool)}, cannot work on a map in its "
                    "place: the pooling of this model cannot be made local."
                )


def _works_on_maps(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    if node.op_type in _POINTWISE | _BROADCAST - {"Expand"}:
        return True
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Concat":
        return attributes["axis"] in (1, -3)
    if node.op_type == "Conv":
        plain = attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        pads, strides = attributes.get("pads", [0]), attributes.get("strides", [1])
        weight = _constant(model, node.input[1])
        pixel = weight is not None and weight.shape[2:] == (1, 1)
        return plain and pixel and not any(pads) and set(strides) == {1}
    return False


def _check_result(model: onnx.ModelProto, pools: Sequence[_Pool], size_px: tuple[int, int]) -> None:
    """The new graph runs with a small window, and with a large one does what the old one does."""
    image = noise_for(model, *size_px)
    before = Trial(model).run(image)[0].astype(np.float32)
    small = Trial(_localised(model, pools, min(size_px) // 2)).run(image)[0]
    large = Trial(_localised(model, pools, _WHOLE)).run(image)[0].astype(np.float32)
    tolerance = _TOLERANCE * (100 if any(pool.half for pool in pools) else 1)
    limit = tolerance * max(1.0, float(np.abs(before).max()))
    if small.shape != before.shape or not float(np.abs(large - before).max()) <= limit:
        raise ModelError(
            "the model with local pooling does not do what it did on an image within the window: its "
            f"graph is of a kind that cannot be made local (pooling at {_label(pools[0].node)})."
        )


def _localised(model: onnx.ModelProto, pools: Sequence[_Pool], window_px: int) -> onnx.ModelProto:
    local = onnx.ModelProto()
    local.CopyFrom(model)
    by_output = {pool.node.output[0]: (i, pool) for i, pool in enumerate(pools)}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.output[0] in by_output:
            i, pool = by_output[node.output[0]]
            window = max(1, round(window_px * pool.pixels_per_px))
            source, target = pool.node.input[0], pool.node.output[0]
            nodes += local_mean(f"local_mean_{i}", source, target, window, half=pool.half)
        else:
            nodes.append(node)
    del local.graph.node[:]
    local.graph.node.extend(nodes)
    # Sizes written down for what was one pixel no longer hold.
    del local.graph.value_info[:]
    return local


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]}"
