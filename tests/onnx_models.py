"""Small ONNX models of every kind srpipe takes, made with fixed random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = int | str


def conv_model(
    path: Path,
    *,
    scale: int = 2,
    channels: int = 3,
    layers: int = 2,
    features: int = 8,
    layout: str = "NCHW",
    dtype: str = "float32",
    batch: Dim = "batch",
    height: Dim = "height",
    width: Dim = "width",
    multiple: int = 1,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A convolution net plus its repeated input; its receptive radius is ``layers`` pixels.

    ``multiple`` adds a convolution on blocks of that many pixels, so that other sizes fail inside
    the graph, and so many more pixels, twice, to the radius.
    """
    rng = np.random.default_rng(7)
    nodes, weights = [], []

    def constant(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values.astype(dtype), name))
        return name

    x = "input"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [x], ["planes"], perm=[0, 3, 1, 2]))
        x = "planes"
    start = x
    if multiple > 1:
        depth = channels * multiple**2
        kernel = rng.normal(0, 0.3, (depth, 1, 3, 3))
        nodes += [
            helper.make_node("SpaceToDepth", [x], ["folded"], blocksize=multiple),
            helper.make_node(
                "Conv", ["folded", constant("wf", kernel)], ["mixed"], group=depth, pads=[1] * 4
            ),
            helper.make_node("DepthToSpace", ["mixed"], ["unfolded"], blocksize=multiple),
        ]
        x = "unfolded"
    width_in = channels
    for i in range(layers):
        last = i == layers - 1
        width_out = channels * scale**2 if last else features
        deviation = (0.1 if last else 1.0) * (9 * width_in) ** -0.5
        kernel = rng.normal(0, deviation, (width_out, width_in, 3, 3))
        names = [x, constant(f"w{i}", kernel), constant(f"b{i}", rng.normal(0, 0.01, width_out))]
        nodes.append(helper.make_node("Conv", names, [f"c{i}"], pads=[1, 1, 1, 1]))
        x = f"c{i}"
        if not last:
            nodes.append(helper.make_node("Relu", [x], [f"r{i}"]))
            x = f"r{i}"
        width_in = width_out
    if scale > 1:
        nodes.append(helper.make_node("DepthToSpace", [x], ["detail"], blocksize=scale))
        x = "detail"
    weights.append(numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales"))
    nodes.append(
        helper.make_node(
            "Resize", [start, "", "scales"], ["base"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )
    )  # fmt: skip
    end = "output" if layout == "NCHW" else "sum"
    nodes.append(helper.make_node("Add", [x, "base"], [end]))
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["sum"], ["output"], perm=[0, 2, 3, 1]))
    dims = [batch, channels, height, width]
    shape = dims if layout == "NCHW" else [batch, height, width, channels]
    return save(path, nodes, weights, shape, dtype, metadata)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    shape: list[Dim],
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
    output_rank: int = 4,
) -> Path:
    """Write a model with one input of ``shape`` and one output of unknown size."""
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("output", kind, [f"o{i}" for i in range(output_rank)])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def elementwise_model(
    path: Path,
    op: str,
    *inputs: float | np.ndarray,
    then: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """``op(x, *inputs)`` on RGB at scale 1: Log of black gives infinities, Identity gives x.

    ``then``: another operator that follows with the same inputs.
    """
    weights = [
        numpy_helper.from_array(np.asarray(value, np.float32), f"k{i}")
        for i, value in enumerate(inputs)
    ]
    names = [w.name for w in weights]
    nodes = [helper.make_node(op, ["input", *names], ["middle" if then else "output"])]
    if then:
        nodes.append(helper.make_node(then, ["middle", *names], ["output"]))
    return save(path, nodes, weights, ["n", 3, "h", "w"], metadata=metadata)


def classifier_model(path: Path) -> Path:
    """An image in, a vector out: no image-to-image model."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["output"]),
    ]
    return save(path, nodes, [], ["n", 3, "h", "w"], output_rank=2)
