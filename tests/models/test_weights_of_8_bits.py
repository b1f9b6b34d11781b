"""INT8 models whose weights use all 8 bits compute what their integers say, on every processor.

Without VNNI (``qemu-x86_64 -cpu Haswell``) ONNX Runtime's default is wrong by half of these results.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from srpipe.io.session import Session
from srpipe.models.verify import Runner

N = 16
UNIT, WEIGHT_UNIT = np.float32(1 / 255), np.float32(0.01)
WEIGHTS = np.random.default_rng(0).choice([-127, 120, 127], (N, N, 3, 3), p=[0.1, 0.4, 0.5])
BATCH = 0.8 + 0.2 * np.random.default_rng(1).random((1, N, 12, 12), np.float32)


def separate(kind: str) -> list[onnx.NodeProto]:
    """A float convolution between nodes that quantise, as srpipe and most others write it."""
    return [
        helper.make_node("DequantizeLinear", ["q", "unit", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_units", "w_zeros"], ["real"], axis=0),
        helper.make_node(kind, ["x", "real"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "large", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "large", "zero"], ["output"]),
    ]


def fused(kind: str) -> list[onnx.NodeProto]:
    """A convolution of integers."""
    names = ["q", "unit", "zero", "w", "w_units", "w_zeros", "large", "zero"]
    return [
        helper.make_node(kind, names, ["r"]),
        helper.make_node("DequantizeLinear", ["r", "large", "zero"], ["output"]),
    ]


def sums(kind: str) -> list[onnx.NodeProto]:
    """A convolution of integers whose sums are not rounded."""
    return [
        helper.make_node(kind, ["q", "w", "zero", "w_zero"], ["r"]),
        helper.make_node("Cast", ["r"], ["sums"], to=1),
        helper.make_node("Mul", ["sums", "product"], ["output"]),
    ]


@pytest.mark.parametrize(
    ("write", "kind"), [(separate, "Conv"), (fused, "QLinearConv"), (sums, "ConvInteger")]
)
def test_weights_of_8_bits(
    tmp_path: Path, write: Callable[[str], list[onnx.NodeProto]], kind: str
) -> None:
    constants = {
        "unit": UNIT, "zero": np.uint8(0), "large": np.float32(1), "w": WEIGHTS.astype(np.int8),
        "w_units": np.full(N, WEIGHT_UNIT), "w_zeros": np.zeros(N, np.int8), "w_zero": np.int8(0),
        "product": UNIT * WEIGHT_UNIT,
    }  # fmt: skip
    nodes = [helper.make_node("QuantizeLinear", ["input", "unit", "zero"], ["q"]), *write(kind)]
    used = {name for node in nodes for name in node.input}
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", N, "h", "w"])
        for name in ("input", "output")
    ]
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items() if n in used]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    windows = np.lib.stride_tricks.sliding_window_view(np.rint(BATCH / UNIT), (3, 3), (2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, WEIGHTS) * UNIT * WEIGHT_UNIT
    tolerance = 0.51 if write is not sums else 1e-3
    for result in (
        Session(str(path), "cpu", 1).run_free("input", "output", BATCH),
        Runner(path).run(BATCH),
    ):
        np.testing.assert_allclose(result, np.clip(expected, 0, 255), atol=tolerance)
