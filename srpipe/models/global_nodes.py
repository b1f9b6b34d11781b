"""Nodes that mix pixels of a whole image: however large it is, each result depends on all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Shape = tuple[int, ...]

# The first dimension that they take together; all after it belong to it.
_NORMALIZING = {
    "InstanceNormalization": 2,
    "MeanVarianceNormalization": 2,
    "GroupNormalization": 1,
}
_SOFTMAX = {"Softmax", "LogSoftmax", "Hardmax"}
_ONE_AXIS = {"ArgMax": 0, "ArgMin": 0, "LpNormalization": -1}


def growing_dims(shapes: Mapping[str, Shape], others: Mapping[str, Shape]) -> dict[str, set[int]]:
    """Which dimensions of each tensor differ between two sizes of the image."""
    return {
        name: {i for i, (a, b) in enumerate(zip(shape, others[name], strict=False)) if a != b}
        for name, shape in shapes.items()
    }


def global_nodes(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], growing: Mapping[str, set[int]]
) -> list[onnx.NodeProto]:
    """The nodes that mix what lies along a dimension that grows with the image.

    Args:
        model: the graph; graphs inside nodes are not looked at.
        shapes: of the tensors, at some size.
        growing: the dimensions of each that grow with height or width.
    """
    found = []
    for node in model.graph.node:
        name = node.input[0] if node.input else ""
        mixed = _mixed_dims(model, node, len(shapes[name])) if name in shapes else ()
        if growing.get(name, set()).intersection(mixed):
            found.append(node)
    return found


def _mixed_dims(model: onnx.ModelProto, node: onnx.NodeProto, rank: int) -> Iterable[int]:
    """Dimensions of a node's first input that each of its results depends on as a whole."""
    op = node.op_type
    told = attributes_of(node)
    if op.startswith("Reduce"):
        axes = reduced_axes(model, node)
        if axes is None:
            return () if told.get("noop_with_empty_axes") else range(rank)
        return [axis % rank for axis in axes]
    if op.startswith("Global"):
        return range(2, rank)
    if op in _NORMALIZING:
        return range(_NORMALIZING[op], rank)
    if op == "LayerNormalization":
        return range(told.get("axis", -1) % rank, rank)
    if op in _SOFTMAX:
        if opset_of(model) < 13:
            return range(told.get("axis", 1) % rank, rank)
        return [told.get("axis", -1) % rank]
    if op in _ONE_AXIS:
        return [told.get("axis", _ONE_AXIS[op]) % rank]
    return [rank - 1] if op == "MatMul" else ()


def reduced_axes(model: onnx.ModelProto, node: onnx.NodeProto) -> list[int] | None:
    """The axes of a Reduce node as they are written; None where none are, or they are computed."""
    axes = attributes_of(node).get("axes")
    if axes is None and len(node.input) > 1:
        axes = constant_of(model, node.input[1])
    return None if axes is None else [int(axis) for axis in np.reshape(axes, -1)]


def constant_of(model: onnx.ModelProto, name: str) -> np.ndarray | None:
    """The weight or constant of a name."""
    for weight in model.graph.initializer:
        if weight.name == name:
            return numpy_helper.to_array(weight)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            return None if value is None else numpy_helper.to_array(value)
    return None


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators."""
    own = (entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return max((int(entry.version) for entry in own), default=0)
