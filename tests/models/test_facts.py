from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.io.model_probe import probe_model
from srpipe.models.facts import GraphFacts, Port, read_facts
from srpipe.models.zoo import bundled_models
from tests.onnx_models import conv_model, save

FREE = ["n", 3, "h", "w"]


def facts_of(
    tmp_path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[int | str] = FREE,
) -> GraphFacts:
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    return read_facts(probe_model(save(tmp_path / "m.onnx", nodes, tensors, shape)))


def random(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (np.random.default_rng(0).normal(0, 0.1, shape) * 10).astype(dtype)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"layout": "NHWC"},
        {"dtype": "float16"},
        {"batch": 2, "height": 32, "width": 48},
        {"scale": 4, "layers": 3, "features": 5},
        {"channels": 1},
    ],
    ids=str,
)
def test_convolutions(tmp_path: Path, facts: dict[str, Any]) -> None:
    found = read_facts(probe_model(conv_model(tmp_path / "m.onnx", **facts)))
    channels, features = facts.get("channels", 3), facts.get("features", 8)
    layers, scale = facts.get("layers", 2), facts.get("scale", 2)
    widths = [channels, *[features] * (layers - 1), channels * scale**2]
    kernels = sum(9 * a * b for a, b in pairwise(widths))
    assert found.parameters == kernels + sum(widths[1:])
    assert found.flops_per_pixel == 2 * kernels


def test_groups_and_folded_pixels(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx", multiple=4, layers=1, scale=1)
    found = read_facts(probe_model(path))
    folded, plain = 48 * 9, 3 * 3 * 9  # a kernel of its own for each of 48 planes of 1/16 the size
    assert found.parameters == folded + plain + 3
    assert found.flops_per_pixel == 2 * (folded / 16 + plain)


@pytest.mark.parametrize("groups", [1, 3])
def test_transposed_convolution(tmp_path: Path, groups: int) -> None:
    node = helper.make_node(
        "ConvTranspose", ["input", "w"], ["output"], strides=[2, 2], pads=[1] * 4, group=groups
    )
    found = facts_of(tmp_path, [node], {"w": random(3, 3 // groups, 4, 4)})
    assert found.flops_per_pixel == 2 * 3 * 3 // groups * 16
    assert found.parameters == 3 * 3 // groups * 16


def test_matrix_product(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["input", "w"], ["output"])
    found = facts_of(tmp_path, [node], {"w": random(3, 3)}, ["n", "h", "w", 3])
    assert (found.flops_per_pixel, found.parameters) == (18, 9)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_of_a_global_mean(tmp_path: Path, transposed: int) -> None:
    """Channel attention: seven numbers from three, once for the whole tile, and back."""
    first = random(3, 7).T if transposed else random(3, 7)
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["row"]),
        helper.make_node("Gemm", ["row", "w", "b"], ["seven"], transB=transposed),
        helper.make_node("Transpose", ["seven"], ["column"]),
        helper.make_node("Gemm", ["column", "v"], ["three"], transA=1),
        helper.make_node("Reshape", ["three", "shape"], ["factor"]),
        helper.make_node("Mul", ["input", "factor"], ["output"]),
    ]
    weights = {
        "w": np.ascontiguousarray(first), "b": random(7), "v": random(7, 3),
        "shape": np.array([-1, 3, 1, 1], np.int64),
    }  # fmt: skip
    found = facts_of(tmp_path, nodes, weights)
    assert found.parameters == 21 + 7 + 21
    assert found.flops_per_pixel == pytest.approx(2 * (21 + 21) / 128**2)


def test_sizes_that_the_graph_computes(tmp_path: Path) -> None:
    """Shape inference does not follow these, as it does not follow NAFNet's padding."""
    nodes = [
        helper.make_node("Shape", ["input"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["shape_f"], to=TensorProto.FLOAT),
        helper.make_node("Floor", ["shape_f"], ["floored"]),
        helper.make_node("Cast", ["floored"], ["again"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["input", "again"], ["same"]),
        helper.make_node("Conv", ["same", "w"], ["output"], pads=[1] * 4),
    ]
    assert facts_of(tmp_path, nodes, {"w": random(3, 3, 3, 3)}).flops_per_pixel == 2 * 81


def test_work_inside_a_condition_is_not_counted(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("Conv", ["input", "w"], [name], pads=[1] * 4)
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [output])

    node = helper.make_node(
        "If", ["yes"], ["output"], then_branch=branch("a"), else_branch=branch("b")
    )
    weights = {"w": random(3, 3, 3, 3), "yes": np.array(True)}
    found = facts_of(tmp_path, [node], weights)
    assert found.flops_per_pixel is None
    assert found.operators == {"Conv": 2, "If": 1}
    assert found.parameters == 81


def test_quantized_weights_are_parameters_and_their_scales_are_not(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bf"], axis=0),
        helper.make_node("Conv", ["x", "wf", "bf"], ["output"], pads=[1] * 4),
    ]
    weights = {
        "s": np.array(1 / 255, np.float32), "z": np.array(0, np.uint8),
        "w": random(3, 3, 3, 3, dtype="int8"), "ws": random(3) ** 2 + 1, "wz": np.zeros(3, np.int8),
        "b": np.zeros(3, np.int32), "bs": np.ones(3, np.float32),
    }  # fmt: skip
    found = facts_of(tmp_path, nodes, weights)
    assert found.parameters == 81 + 3
    assert found.flops_per_pixel == 2 * 81


def test_constants_that_were_not_learned(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(random(3, 1, 1))),
        helper.make_node("Pow", ["input", "two"], ["a"]),
        helper.make_node("Mul", ["a", "w"], ["b"]),
        helper.make_node("Mul", ["b", "w"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["output"], mode="nearest"),
    ]
    found = facts_of(tmp_path, nodes, {"scales": np.array([1, 1, 2, 2], np.float32)})
    assert (found.parameters, found.flops_per_pixel) == (3, 0)


def test_dimensions_operators_and_origin(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx", batch=1, layers=3)
    model = onnx.load(path)
    model.producer_name, model.producer_version = "tests", "7"
    model.graph.input[0].type.tensor_type.shape.dim[3].Clear()
    onnx.save(model, path)
    found = read_facts(probe_model(path))
    assert found.inputs == (Port("input", "FLOAT", (1, 3, "height", "")),)
    assert [port.name for port in found.outputs] == ["output"]
    assert found.operators == {"Conv": 3, "Relu": 2, "DepthToSpace": 1, "Resize": 1, "Add": 1}
    assert (found.opset, found.producer) == (17, "tests 7")


def test_bundled_models_say_their_parameters() -> None:
    for path in bundled_models().values():
        info = probe_model(path)
        assert str(read_facts(info).parameters) == info.metadata["parameters"]


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(ModelError, match="does not exist"):
        read_facts(info)
