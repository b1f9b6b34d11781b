"""Small models built as those of the ecosystem are: other numbers, orders, attention, pooling."""

from __future__ import annotations

from collections.abc import MutableSequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.onnx_models import save


def in_other_numbers(source: Path, path: Path, value_range: tuple[float, float]) -> Path:
    """The same float32 NCHW model for colours from ``value_range`` instead of 0 to 1."""
    low, high = value_range
    black, span = _floats("black", np.array(low)), _floats("span", np.array(high - low))
    before = [("Sub", "black", {}), ("Div", "span", {})]
    return _wrap(source, path, before, [("Mul", "span", {}), ("Add", "black", {})], [black, span])


def in_bgr(source: Path, path: Path) -> Path:
    """The same NCHW model for colours in reverse order."""
    turned = numpy_helper.from_array(np.array([2, 1, 0], np.int64), "turned")
    turn = [("Gather", "turned", {"axis": 1})]
    return _wrap(source, path, turn, turn, [turned])


def with_baked_batch(source: Path, path: Path) -> Path:
    """The same RGB NCHW model with a Reshape that takes one image, whatever the dimensions say."""
    one = numpy_helper.from_array(np.array([1, 3, 0, 0], np.int64), "one")
    return _wrap(source, path, [("Reshape", "one", {})], [], [one])


def window_attention_model(path: Path, depth: int = 8) -> Path:
    """A convolution, then attention within windows of 64 pixels (8x8 tokens of 8x8 pixels).

    As in SCUNet, sizes must be multiples of 64, which no dimension of the file says, and windows lie
    on a lattice of 64: off it every pixel comes out otherwise. What happens at a tile's border reaches
    as far as the window it is in.
    """
    rng = np.random.default_rng(11)
    weights = [
        _floats("w_in", rng.normal(0, 0.2, (3, 3, 3, 3))),
        _floats("w_embed", rng.normal(0, 0.1, (depth, 192, 1, 1))),
        *(_floats(name, rng.normal(0, 1, (depth, depth))) for name in ("w_q", "w_k", "w_v")),
        _floats("w_spread", rng.normal(0, 0.1, (192, depth, 1, 1))),
        # The batch and the number of windows stay what they are.
        numpy_helper.from_array(np.array([0, 0, 0, 64, depth], np.int64), "as_windows"),
        numpy_helper.from_array(np.array([0, 0, 0, 64 * depth], np.int64), "as_depth"),
    ]
    node = helper.make_node
    nodes = [
        node("Conv", ["input", "w_in"], ["near"], pads=[1] * 4),
        node("SpaceToDepth", ["near"], ["patches"], blocksize=8),
        node("Conv", ["patches", "w_embed"], ["tokens"]),
        node("SpaceToDepth", ["tokens"], ["gathered"], blocksize=8),
        node("Transpose", ["gathered"], ["last"], perm=[0, 2, 3, 1]),
        node("Reshape", ["last", "as_windows"], ["windows"]),
        *(node("MatMul", ["windows", f"w_{name}"], [name]) for name in "qkv"),
        node("Transpose", ["k"], ["k_turned"], perm=[0, 1, 2, 4, 3]),
        node("MatMul", ["q", "k_turned"], ["scores"]),
        node("Softmax", ["scores"], ["shares"], axis=-1),
        node("MatMul", ["shares", "v"], ["mixed"]),
        node("Reshape", ["mixed", "as_depth"], ["flat"]),
        node("Transpose", ["flat"], ["first"], perm=[0, 3, 1, 2]),
        node("DepthToSpace", ["first"], ["scattered"], blocksize=8),
        node("Conv", ["scattered", "w_spread"], ["spread"]),
        node("DepthToSpace", ["spread"], ["change"], blocksize=8),
        node("Add", ["input", "change"], ["output"]),
    ]
    return save(path, nodes, weights, ["batch", 3, "height", "width"])


def channel_attention_model(path: Path, features: int = 8) -> Path:
    """A NAFNet block: gated convolutions, and features weighted by their mean over the whole input."""
    rng = np.random.default_rng(13)
    weights = [
        _floats("w_in", rng.normal(0, 0.3, (2 * features, 3, 3, 3))),
        _floats("w_weigh", rng.normal(0, 1, (features, features, 1, 1))),
        _floats("w_out", rng.normal(0, 0.03, (3, features, 3, 3))),
    ]
    node = helper.make_node
    nodes = [
        node("Conv", ["input", "w_in"], ["both"], pads=[1] * 4),
        node("Split", ["both"], ["gate", "gated"], axis=1),
        node("Mul", ["gate", "gated"], ["features"]),
        node("GlobalAveragePool", ["features"], ["means"]),
        node("Conv", ["means", "w_weigh"], ["shares"]),
        node("Mul", ["features", "shares"], ["weighed"]),
        node("Conv", ["weighed", "w_out"], ["change"], pads=[1] * 4),
        node("Add", ["input", "change"], ["output"]),
    ]
    return save(path, nodes, weights, ["batch", 3, "height", "width"])


def _floats(name: str, values: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


def _wrap(
    source: Path,
    path: Path,
    before: list[tuple[str, str, dict[str, int]]],
    after: list[tuple[str, str, dict[str, int]]],
    weights: list[TensorProto],
) -> Path:
    """Put ``(operator, second input, attributes)`` before the input and after the output."""
    model = onnx.load(source)
    graph = model.graph
    inner = list(graph.node)
    start, end = f"start{len(inner)}", f"end{len(inner)}"
    ahead, behind = _chain("input", start, before), _chain(end, "output", after)
    for node in inner:
        _rename(node.input, "input", start if ahead else "input")
        _rename(node.output, "output", end if behind else "output")
    del graph.node[:]
    graph.node.extend([*ahead, *inner, *behind])
    graph.initializer.extend(weights)
    onnx.save(model, path)
    return path


def _chain(start: str, end: str, steps: list[tuple[str, str, dict[str, int]]]) -> list[NodeProto]:
    names = [start, *(f"{start}_{end}_{i}" for i in range(1, len(steps))), end]
    return [
        helper.make_node(operator, [names[i], second], [names[i + 1]], **attributes)
        for i, (operator, second, attributes) in enumerate(steps)
    ]


def _rename(names: MutableSequence[str], old: str, new: str) -> None:
    for i, name in enumerate(names):
        if name == old:
            names[i] = new
