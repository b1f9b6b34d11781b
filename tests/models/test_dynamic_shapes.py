"""Models of one batch or size that become free, compared with the same nets built for other batches."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.models.dynamic_shapes import Freed, make_dynamic
from srpipe.models.verify import Runner, check_batch
from tests.models.bricks import FEATURES, GLOBAL, LOCAL, Net, build

SIZE = (24, 40)


def run(model: onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
    return Runner(model.SerializeToString()).run(batch)


def images(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).random((batch, 3, height, width), np.float32)


def declared(model: onnx.ModelProto) -> list[int | str]:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in dims]


def declare(model: onnx.ModelProto, *dims: int | str) -> onnx.ModelProto:
    """Write other dimensions on the input, and none on the output."""
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for dim in dims:
        shape.dim.add(**{"dim_value" if isinstance(dim, int) else "dim_param": dim})
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def check(bricks: list[str], batch: int = 1, size: tuple[int, int] = SIZE) -> Freed:
    """Free a net, and compare it with the same bricks built for another batch, and size."""
    original = build(bricks, batch, *size)
    kept = original.SerializeToString()
    freed = make_dynamic(original)
    assert original.SerializeToString() == kept
    onnx.checker.check_model(freed.model)
    assert check_batch(freed.model.SerializeToString()) <= 1e-5
    for height, width in [size, (40, 32)] if freed.size else [size]:
        pixels = images(3, height, width)
        expected = run(build(bricks, 3, height, width), pixels)
        np.testing.assert_allclose(run(freed.model, pixels), expected, atol=1e-4)
    sizes = ["height", "width"] if freed.size else list(size)
    assert declared(freed.model) == ["batch", 3, *sizes]
    assert bool(freed.reason) == (not freed.size)
    return freed


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("brick", [*LOCAL, *GLOBAL, "table", "summed", "grid"])
def test_the_batch_of_a_brick_is_freed(brick: str, batch: int) -> None:
    check([brick, "conv"], batch)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.sampled_from([*LOCAL, *GLOBAL, "table"]), min_size=2, max_size=4),
    st.sampled_from([1, 2]),
    st.sampled_from([(24, 40), (32, 32)]),
)
def test_any_bricks(bricks: list[str], batch: int, size: tuple[int, int]) -> None:
    check(bricks, batch, size)


def test_declared_sizes_alone() -> None:
    freed = check(["conv"], batch=4, size=(32, 32))
    assert (freed.size, freed.rewritten) == (True, ())
    assert len(freed.model.graph.node) == len(build(["conv"], 4, 32, 32).graph.node)


def test_nodes_with_a_baked_batch_are_named() -> None:
    assert check(["flat"]).rewritten == ("node Reshape 'reshape1'", "node Reshape 'reshape3'")


def test_a_size_that_would_change_the_result_stays() -> None:
    """A sum over the image, divided by a baked number of pixels, runs at any size, and is wrong."""
    assert "depends on the size" in check(["summed", "conv"]).reason


def test_a_size_at_which_the_graph_fails_stays() -> None:
    assert "the graph fails" in check(["table", "conv"]).reason


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("brick", "node"), [("mean_of_batch", "ReduceMean"), ("softmax_of_batch", "Softmax")]
)
def test_what_mixes_the_batch_is_named(brick: str, node: str, batch: int) -> None:
    with pytest.raises(ModelError, match=rf"node {node} '{node.lower()}\d+' mixes the images"):
        make_dynamic(build(["flat", brick, "conv"], batch, *SIZE))


def test_images_joined_as_channels() -> None:
    check(["instances"])
    with pytest.raises(ModelError, match=r"takes no batch of 3 .*'reshape1'"):
        make_dynamic(build(["instances"], 2, *SIZE))


def test_a_removed_batch_is_named() -> None:
    net = Net(1, *SIZE)
    net.x = net.node("Unsqueeze", net.node("Squeeze", net.x, net.ints(0)), net.ints(0))
    with pytest.raises(ModelError, match=r"takes no batch of 3 .*'squeeze1'"):
        make_dynamic(net.model())


def test_operators_of_other_domains() -> None:
    net = Net(1, *SIZE)
    net.nodes.append(helper.make_node("Gelu", [net.x], ["gelu"], name="g", domain="com.microsoft"))
    net.x = "gelu"
    freed = make_dynamic(net.model())
    assert freed.size
    assert declared(freed.model) == ["batch", 3, "height", "width"]


@pytest.mark.parametrize("channels", [3, "c"])
def test_what_is_free_already(channels: int | str) -> None:
    model = declare(build(["conv"], 1, *SIZE), "n", channels, "h", "w")
    freed = make_dynamic(model)
    assert freed.size
    assert list(freed.model.graph.node) == list(model.graph.node)
    assert declared(freed.model) == ["batch", 3, "height", "width"]


def test_a_free_height_stays_free() -> None:
    net = Net(1, 64, 64)
    net.x = net.reshape(net.x, 1, FEATURES, -1, 64)
    model = declare(net.model(), "n", 3, "h", 64)
    freed = make_dynamic(model)
    assert declared(freed.model) == ["batch", 3, "height", 64]
    pixels = images(3, 40, 64)
    apart = np.concatenate([run(model, pixels[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(run(freed.model, pixels), apart, atol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(64, 32, 32), (16, 32, 24), (24, 32, 16)])
def test_layouts(layout: str, shape: tuple[int, int, int]) -> None:
    channels = shape[0] if layout == "NCHW" else shape[2]
    weight = np.random.default_rng(2).normal(0, 0.1, (channels, channels, 1, 1)).astype(np.float32)
    there, back = ([0, 3, 1, 2], [0, 2, 3, 1]) if layout == "NHWC" else ([0, 1, 2, 3],) * 2
    nodes = [
        helper.make_node("Transpose", ["input"], ["planes"], perm=there),
        helper.make_node("Conv", ["planes", "w"], ["mixed"], name="conv"),
        helper.make_node("Transpose", ["mixed"], ["output"], perm=back),
    ]
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, *shape])
        for name in ("input", "output")
    ]
    graph = helper.make_graph(
        nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")]
    )
    opsets = [helper.make_opsetid("", 17)]
    freed = make_dynamic(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    free: list[int | str] = ["height", "width"]
    free.insert(0 if layout == "NCHW" else 2, channels)
    assert (freed.size, declared(freed.model)) == (True, ["batch", *free])


def test_a_model_that_fails_itself() -> None:
    net = Net(1, *SIZE)
    net.x = net.reshape(net.reshape(net.x, 1, FEATURES, -1), *net.shape)
    model = declare(net.model(), 1, 3, SIZE[0], SIZE[1] + 8)
    with pytest.raises(ModelError, match="fails at every size"):
        make_dynamic(model)


def test_a_damaged_weight_that_nothing_reads() -> None:
    model = build(["conv"], 1, *SIZE)
    tensor = model.graph.initializer.add()
    tensor.CopyFrom(model.graph.initializer[0])
    tensor.name, tensor.raw_data = "unused", tensor.raw_data[:-3]
    with pytest.raises(ModelError, match="unused"):
        make_dynamic(model)


def test_no_image_model() -> None:
    net = Net(1, *SIZE)
    model = net.finish(net.node("Flatten", net.x), [1, FEATURES * SIZE[0] * SIZE[1]])
    with pytest.raises(ModelError, match="no image-to-image model"):
        make_dynamic(model)
