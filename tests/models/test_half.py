from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from srpipe.errors import ModelError
from srpipe.models.graph import load_graph, metadata_of
from srpipe.models.half import to_half
from srpipe.models.trial import Trial
from srpipe.models.zoo import find_model
from tests.conftest import photograph_pixels
from tests.models.nets import Net


def photograph(height: int, width: int) -> np.ndarray:
    pixels = photograph_pixels(height, width).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels, np.float32) / 255


def assert_same(model: onnx.ModelProto, image: np.ndarray, tolerance: float) -> onnx.ModelProto:
    half = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    ports = (*half.graph.input, *half.graph.output)
    assert {port.type.tensor_type.elem_type for port in ports} == {TensorProto.FLOAT}
    expected, result = Trial(model).run(image)[0], Trial(half).run(image)[0]
    assert result.dtype == np.float32
    difference = np.abs(result - expected).max()
    assert 0 < difference <= tolerance * np.abs(expected).max()
    return half


def test_bundled_model() -> None:
    model = load_graph(find_model("lite-x2"))
    half = assert_same(model, photograph(64, 96), 4e-3)
    assert half.ByteSize() < 0.55 * model.ByteSize()
    assert metadata_of(half) == metadata_of(model)
    kinds = {w.data_type for w in half.graph.initializer if w.data_type != TensorProto.INT64}
    assert kinds == {TensorProto.FLOAT16}


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_and_prelu(mode: str) -> None:
    net = Net()
    slope = net.weight(np.full((6, 1, 1), 0.2))
    x = net.add("PRelu", net.conv("input", 3, 6), slope)
    x = net.add("Resize", x, "", net.weight([1.0, 1.0, 2.0, 2.0]), mode=mode)
    x = net.add("Clip", net.conv(x, 6, 3), net.weight(0.0), net.weight(3.4e38))
    filled = net.add("ConstantOfShape", net.add("Shape", x))
    assert_same(net.model(net.add("Add", net.add("Mul", x, net.weight(0.5)), filled)),
                photograph(32, 48), 2e-3)  # fmt: skip


def test_channel_attention_and_norm() -> None:
    assert_same(Net().nafnet(), photograph(64, 64), 5e-3)


def test_squares_beyond_float16() -> None:
    net = Net()
    loud = net.add("Mul", "input", net.weight([[[[-900.0]], [[0.0]], [[3000.0]]]]))
    model, image = net.model(net.layer_norm(loud)), photograph(32, 32) + 0.2
    # On a CPU, ONNX Runtime would compute most of it in float32.
    (result,) = ReferenceEvaluator(to_half(model)).run(None, {"input": image})
    expected = Trial(model).run(image)[0]
    np.testing.assert_allclose(result, expected, rtol=0, atol=5e-3)
    assert np.ptp(expected) > 1


def test_sizes_computed_in_floating_point() -> None:
    net = Net()
    width = net.add("Gather", net.add("Shape", "input"), net.weight([3]))
    less = net.add("Sub", net.add("Cast", width, to=TensorProto.FLOAT), net.weight([2.0]))
    end = net.add("Cast", less, to=TensorProto.INT64)
    cut = net.add("Slice", "input", net.weight([0]), end, net.weight([3]))
    assert_same(net.model(cut), np.random.default_rng(0).random((1, 3, 1, 4101), np.float32), 1e-3)


def test_weight_beyond_float16_is_named() -> None:
    net = Net()
    large = net.add("Mul", "input", net.weight([65504.0, np.inf], "unlimited"))
    large = net.add("Mul", large, net.weight(-70000.0, "loud"))
    with pytest.raises(ModelError, match="weight loud holds 70000, beyond float16's 65504"):
        to_half(net.model(large))


def test_only_float32_models() -> None:
    half = to_half(Net().nafnet())
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(ModelError, match="input input is not float32"):
        to_half(half)


def test_the_model_given_is_left_alone() -> None:
    model = Net().nafnet()
    before = model.SerializeToString()
    to_half(model)
    assert model.SerializeToString() == before
    assert numpy_helper.to_array(model.graph.initializer[0]).dtype == np.float32
