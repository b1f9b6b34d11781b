"""What the processor is said to do, against what it does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srpipe.io.processor import available_cores, saturates_sums
from srpipe.models.graph import save_graph
from tests.models.test_quantize import _run


def test_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_sums_of_8_bits_are_exact_where_they_are_said_to_be(tmp_path: Path) -> None:
    """The largest weights times the largest values, as ONNX Runtime's integer convolution does it."""
    n = 64
    constants = {
        "unit": np.float32(1), "zero": np.uint8(0), "large": np.float32(n * 9 * 127),
        "weights": np.full((n, n, 3, 3), 127, np.int8), "ones": np.ones(n, np.float32),
        "zeros": np.zeros(n, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "unit", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "unit", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "ones", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "large", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "large", "zero"], ["output"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", n, "h", "w"])
        for name in ("input", "output")
    ]
    weights = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "sums", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "sums.onnx"
    save_graph(model, path)
    result = _run(path, np.full((1, n, 16, 16), 255, np.float32))
    exact = np.allclose(result, 255 * n * 9 * 127)
    assert exact or saturates_sums()
