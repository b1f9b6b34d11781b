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
from onnx import helper

from srpipe.errors import ModelError, SettingsError
from srpipe.models.global_nodes import (
    attributes_of,
    constant_of,
    global_nodes,
    growing_dims,
    opset_of,
    reduced_axes,
)
from srpipe.models.graph import metadata_of
from srpipe.models.local_mean import local_mean
from srpipe.models.trial import Trial, noise_for, only_input
from srpipe.settings import DEFAULT_TLC_WINDOW_PX, MAX_TILE_SIZE_PX

_LEAST_OPSET = 11  # CumSum, and Pad with amounts computed in the graph
_POINTWISE = {
    "Abs", "BatchNormalization", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "PRelu",
    "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh",
}  # fmt: skip
_BROADCAST = {"Add", "Div", "Expand", "Max", "Min", "Mul", "Pow", "Sub"}
# The first two that the model takes are measured: multiples of 32, and of 96.
_SIZES_PX = (((64, 96), (32, 64)), ((192, 288), (96, 192)))
_WHOLE = 1 << 20  # a window larger than any image
_TOLERANCE = 1e-4
_MOST_NAMED = 3
_NO_LONGER_TRUE = ("seam_", "receptive_radius_px", "halo_px")

_Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Pool:
    """A node that takes the mean over height and width."""

    node: onnx.NodeProto
    pixels_per_px: float
    """Pixels of its input per input pixel of the model, on an axis."""
    half: bool
    """It works in float16."""


def localise_pooling(
    model: onnx.ModelProto, window_px: int = DEFAULT_TLC_WINDOW_PX
) -> onnx.ModelProto:
    """Replace global pooling by the mean over a window around each position.

    What is not larger than the window is pooled as before.

    Args:
        model: a graph of one NCHW input, left as it is.
        window_px: side of the window, input pixels.

    Raises:
        ModelError: there is no global pooling, a node after it cannot work on a map, or another node
            would still work on the whole image; the message names it.
        SettingsError: the window is no size, or smaller than a pixel of a pooled map.
    """
    if not 1 <= window_px <= _WHOLE:
        raise SettingsError(
            f"a window of {window_px} pixels cannot be: it must be 1 to {_WHOLE}, and the usual one "
            f"is {DEFAULT_TLC_WINDOW_PX}."
        )
    nodes = [node for node in model.graph.node if _is_global_pool(model, node)]
    if not nodes:
        raise ModelError(
            "the model takes no mean over the whole image that stays a map of one pixel: there is "
            "nothing to make local."
        )
    version = opset_of(model)
    if version < _LEAST_OPSET:
        raise ModelError(
            f"the model is of opset {version}: it must be {_LEAST_OPSET} or later; export it anew."
        )
    size_px, shapes, growing, half = _measure(model)
    _check_rest(model, nodes, shapes, growing)
    pools = [_pool(node, shapes, size_px, node.output[0] in half) for node in nodes]
    for pool in pools:
        _check_followers(model, pool.node, shapes)
        if round(window_px * pool.pixels_per_px) < 1:
            raise SettingsError(
                f"a window of {window_px} pixels is too small for {_label(pool.node)}, where a pixel "
                f"stands for {1 / pool.pixels_per_px:g}: the usual window is {DEFAULT_TLC_WINDOW_PX}."
            )
    _check_result(model, pools, size_px)
    local = _localised(model, pools, window_px)
    facts = metadata_of(model)
    told_px = facts.get("tile_size", "0")
    tile_px = max(2 * window_px, int(told_px) if told_px.isdecimal() else 0)
    # How far it sees and how its seams look is no longer what it was.
    kept = {key: text for key, text in facts.items() if not key.startswith(_NO_LONGER_TRUE)}
    told = {"tlc_window_px": str(window_px), "tile_size": str(min(tile_px, MAX_TILE_SIZE_PX))}
    helper.set_model_props(local, kept | told)
    return local


def _is_global_pool(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = reduced_axes(model, node)
    keeps = attributes_of(node).get("keepdims", 1) == 1
    return axes is not None and keeps and {axis % 4 for axis in axes} == {2, 3}


def _measure(
    model: onnx.ModelProto,
) -> tuple[tuple[int, int], _Shapes, dict[str, set[int]], set[str]]:
    """Input size, shapes of all tensors then, their dimensions that grow, and names of float16 ones."""
    names = [name for node in model.graph.node for name in node.output if name]
    trial = Trial(model, names)
    reason = ""
    for sizes in _SIZES_PX:
        images = [noise_for(model, *size) for size in sizes]
        try:
            shapes, half = _shapes(model, trial, names, images[0])
            others, _ = _shapes(model, trial, names, images[1])
        except ModelError as error:
            reason = str(error)
            continue
        size_px = images[0].shape[2:]
        if images[1].shape[2:] != size_px:
            growing = growing_dims(shapes, others)
        else:  # only one size can be had: what looks like a map is one
            growing = {
                name: {i for i in (2, 3) if shape[i] > 1} if _is_map(shape, size_px) else set()
                for name, shape in shapes.items()
            }
        return (size_px[0], size_px[1]), shapes, growing, half
    raise ModelError(f"the model cannot be measured: {reason}")


def _shapes(
    model: onnx.ModelProto, trial: Trial, names: Sequence[str], image: np.ndarray
) -> tuple[_Shapes, set[str]]:
    tensors = dict(zip(names, trial.run(image), strict=True))
    tensors[only_input(model).name] = image
    shapes = {name: tuple(np.shape(tensor)) for name, tensor in tensors.items()}
    return shapes, {n for n, tensor in tensors.items() if np.asarray(tensor).dtype == np.float16}


def _is_map(shape: tuple[int, ...], size_px: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * size_px[1] == shape[3] * size_px[0]


def _check_rest(
    model: onnx.ModelProto,
    pools: Sequence[onnx.NodeProto],
    shapes: _Shapes,
    growing: dict[str, set[int]],
) -> None:
    """A model that takes anything else from the whole image would not be local."""
    local = {node.output[0] for node in pools}
    rest = [node for node in global_nodes(model, shapes, growing) if node.output[0] not in local]
    if rest:
        more = f" and {len(rest) - _MOST_NAMED} more" if len(rest) > _MOST_NAMED else ""
        raise ModelError(
            f"{', '.join(map(_label, rest[:_MOST_NAMED]))}{more} would still work on the whole image: "
            "only means over height and width that keep both dimensions can be made local."
        )


def _pool(node: onnx.NodeProto, shapes: _Shapes, size_px: tuple[int, int], half: bool) -> _Pool:
    shape = shapes[node.input[0]]
    if not _is_map(shape, size_px):
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
    attributes = attributes_of(node)
    if node.op_type == "Concat":
        return attributes["axis"] in (1, -3)
    if node.op_type == "Conv":
        plain = attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        pads, strides = attributes.get("pads", [0]), attributes.get("strides", [1])
        weight = constant_of(model, node.input[1])
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
