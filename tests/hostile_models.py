"""Models that hang ONNX Runtime, want more memory than there is, or crash it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import save


def endless_model(path: Path) -> Path:
    """The image, added to itself 2^60 times in a loop."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["go_on"]),
            helper.make_node("Add", ["before", "input"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["trips", "", "input"], ["output"], body=body)
    trips = numpy_helper.from_array(np.array(2**60, np.int64), "trips")
    return save(path, [loop], [trips], ["n", 3, "h", "w"])


def greedy_model(path: Path, n_bytes: int) -> Path:
    """The image, plus the mean of that many bytes of zeros."""
    # Part of the size is a dimension of the image: nothing can be computed beforehand.
    nodes = [
        helper.make_node("Shape", ["input"], ["batch"], start=0, end=1),
        helper.make_node("Mul", ["batch", "size"], ["length"]),
        helper.make_node("ConstantOfShape", ["length"], ["zeros"]),
        helper.make_node("ReduceMean", ["zeros"], ["mean"], keepdims=0),
        helper.make_node("Add", ["input", "mean"], ["output"]),
    ]
    size = numpy_helper.from_array(np.array([n_bytes // 4], np.int64), "size")
    return save(path, nodes, [size], ["n", 3, "h", "w"])


def crashing_model(path: Path) -> Path:
    """The image, plus the least whole number divided by -1, at which the processor gives up."""
    nodes = [
        helper.make_node("Shape", ["input"], ["batch"], start=0, end=1),
        helper.make_node("Sub", ["batch", "batch"], ["zero"]),
        helper.make_node("Add", ["zero", "least"], ["number"]),
        helper.make_node("Div", ["number", "minus"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["input", "float"], ["output"]),
    ]
    numbers = {"least": -(2**63), "minus": -1}
    constants = [numpy_helper.from_array(np.array([v], np.int64), k) for k, v in numbers.items()]
    return save(path, nodes, constants, ["n", 3, "h", "w"])


def huge_model(path: Path, batch: int, height: int, width: int) -> Path:
    """The image, of a size that no memory holds."""
    nodes = [helper.make_node("Identity", ["input"], ["output"])]
    return save(path, nodes, [], [batch, 3, height, width])


def models(folder: Path) -> dict[str, Path]:
    """One of each kind."""
    return {
        "endless": endless_model(folder / "endless.onnx"),
        "6 GB": greedy_model(folder / "6gb.onnx", 6 * 10**9),
        "600 GB": greedy_model(folder / "600gb.onnx", 6 * 10**11),
        "crash": crashing_model(folder / "crash.onnx"),
        "huge": huge_model(folder / "huge.onnx", 1, 100_000, 100_000),
    }
