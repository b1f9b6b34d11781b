from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.models.dynamic import Freed, make_dynamic
from srpipe.models.freeing.ports import Port
from srpipe.models.freeing.search import NodeError, read_graph
from srpipe.models.freeing.worlds import Worlds
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


def check(bricks: list[str], batch: int = 1, size: tuple[int, int] = SIZE) -> Freed:
    """Free a net, and compare it with the same bricks built for other batches and sizes."""
    original = build(bricks, batch, *size)
    kept = original.SerializeToString()
    freed = make_dynamic(original)
    assert original.SerializeToString() == kept
    onnx.checker.check_model(freed.model)
    assert check_batch(freed.model.SerializeToString()) <= 1e-5
    sizes = [size, (40, 32)] if freed.size else [size]
    for height, width in sizes:
        pixels = images(3, height, width)
        expected = run(build(bricks, 3, height, width), pixels)
        np.testing.assert_allclose(run(freed.model, pixels), expected, atol=1e-4)
    assert declared(freed.model) == (
        ["batch", 3, "height", "width"] if freed.size else ["batch", 3, *size]
    )
    return freed


@pytest.mark.parametrize("brick", [*LOCAL, *GLOBAL])
@pytest.mark.parametrize("batch", [1, 2])
def test_brick_is_freed(brick: str, batch: int) -> None:
    freed = check([brick], batch)
    assert freed.size, freed.reason
    assert bool(freed.rewritten) == (brick != "split")


def test_declared_sizes_alone() -> None:
    freed = check(["conv"], batch=4, size=(32, 32))
    assert (freed.size, freed.rewritten, freed.reason) == (True, (), "")
    assert len(freed.model.graph.node) == len(build(["conv"], 4, 32, 32).graph.node)


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([*LOCAL, *GLOBAL, "table"]), min_size=2, max_size=4),
    st.sampled_from([1, 2]),
    st.sampled_from([(24, 40), (32, 32)]),
)
def test_any_bricks(bricks: list[str], batch: int, size: tuple[int, int]) -> None:
    freed = check(bricks, batch, size)
    if "table" in bricks:
        assert not freed.size


def test_a_table_keeps_the_size_fixed() -> None:
    freed = check(["windows", "table", "shuffle"])
    assert not freed.size
    assert "node Add 'add" in freed.reason
    table = next(
        tensor.name for tensor in build(["windows", "table"], 1, *SIZE).graph.initializer
        if tuple(tensor.dims) == (1, FEATURES, *SIZE)
    )  # fmt: skip
    assert f"operand '{table}'" in freed.reason


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("size", [(64, 64), SIZE])
def test_a_reading_that_no_run_confirms(table: bool, size: tuple[int, int]) -> None:
    """8 of 64 may be a window's size or their number: only a larger image could tell."""
    net = Net(1, *size)
    net.grid(table)
    model = net.model()
    freed = make_dynamic(model)
    assert not freed.size
    assert "node Reshape" in freed.reason
    pixels = images(3, *size)
    apart = np.concatenate([run(model, pixels[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(run(freed.model, pixels), apart, atol=1e-5)


def test_a_baked_number_of_pixels_keeps_the_size_fixed() -> None:
    freed = check(["summed", "conv"])
    assert not freed.size
    assert "node Mul 'mul2' (operand 'k2')" in freed.reason


def test_instance_norm_on_joined_images() -> None:
    assert check(["instances"]).size
    with pytest.raises(ModelError, match="node InstanceNormalization 'instancenormalization"):
        make_dynamic(build(["instances"], 2, *SIZE))


@pytest.mark.parametrize("batch", [1, 2])
def test_what_mixes_the_batch_is_named(batch: int) -> None:
    with pytest.raises(ModelError, match=r"node ReduceMean 'reducemean\d+'.*merges the images"):
        make_dynamic(build(["flat", "mean_of_batch", "conv"], batch, *SIZE))
    with pytest.raises(ModelError, match=r"node Softmax 'softmax\d+': it mixes the images"):
        make_dynamic(build(["windows", "softmax_of_batch", "conv"], batch, *SIZE))


def test_squeezed_batch_is_named() -> None:
    net = Net(1, *SIZE)
    squeezed = net.node("Squeeze", net.x, net.ints(0))
    net.x = net.node("Unsqueeze", squeezed, net.ints(0))
    with pytest.raises(
        ModelError, match=r"node Squeeze 'squeeze1' .*operand 'k1'.*removes the batch"
    ):
        make_dynamic(net.model())


def test_squeezed_batch_without_axes_is_named() -> None:
    net = Net(1, *SIZE)
    net.x = net.node("Unsqueeze", net.node("Squeeze", net.x), net.ints(0))
    with pytest.raises(ModelError, match=r"node Squeeze 'squeeze1': it removes the batch"):
        make_dynamic(net.model())


def with_foreign_operator(batch: int = 1) -> onnx.ModelProto:
    net = Net(batch, *SIZE)
    net.nodes.append(helper.make_node("Gelu", [net.x], ["gelu"], name="g", domain="com.microsoft"))
    net.x = "gelu"
    return net.model()


def declare(model: onnx.ModelProto, *dims: int | str) -> onnx.ModelProto:
    """Write other dimensions on the input, and none on the output."""
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for dim in dims:
        shape.dim.add(**{"dim_value" if isinstance(dim, int) else "dim_param": dim})
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def test_operator_of_another_domain_is_named() -> None:
    with pytest.raises(ModelError, match="node Gelu 'g': it is no operator of ONNX"):
        make_dynamic(with_foreign_operator())


@pytest.mark.parametrize("channels", [3, "c"])
def test_a_model_that_takes_any_batch_and_size_stays_as_it_is(channels: int | str) -> None:
    model = declare(with_foreign_operator(), "n", channels, "h", "w")
    freed = make_dynamic(model)
    assert (freed.size, freed.reason, freed.rewritten) == (True, "", ())
    assert list(freed.model.graph.node) == list(model.graph.node)
    assert declared(freed.model) == ["n", 3, "h", "w"]


def test_free_by_its_words_only() -> None:
    """Everything is declared free, but images of a batch mix where no rule of shapes can follow."""
    net = Net(1, *SIZE)
    net.nodes.append(helper.make_node("Gelu", [net.x], ["gelu"], name="g", domain="com.microsoft"))
    net.x = "gelu"
    net.softmax_of_batch()
    with pytest.raises(ModelError, match="node Gelu 'g': it is no operator of ONNX"):
        make_dynamic(declare(net.model(), "n", 3, "h", "w"))


def test_channels_that_are_not_declared() -> None:
    freed = make_dynamic(declare(build(["conv"], 1, *SIZE), "n", "c", "h", "w"))
    assert declared(freed.model) == ["batch", 3, "height", "width"]
    folded = onnx.ModelProto()
    folded.CopyFrom(build(["conv"], 1, *SIZE))
    turn = helper.make_node("Softmax", ["image"], ["input"], axis=1)
    folded.graph.node.insert(0, turn)
    folded.graph.input[0].name = "image"
    freed = make_dynamic(declare(folded, "n", "c", "h", "w"))
    assert declared(freed.model) == ["batch", 3, "height", "width"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(64, 32, 32), (16, 32, 24), (24, 32, 16), (32, 32, 64)])
def test_more_channels_than_pixels(layout: str, shape: tuple[int, int, int]) -> None:
    channels = shape[0] if layout == "NCHW" else shape[2]
    weight = np.random.default_rng(2).normal(0, 0.1, (channels, channels, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["planes", "w"], ["mixed"], name="conv")]
    there, back = ([0, 3, 1, 2], [0, 2, 3, 1]) if layout == "NHWC" else ([0, 1, 2, 3],) * 2
    nodes.insert(0, helper.make_node("Transpose", ["shifted"], ["planes"], perm=there))
    nodes.insert(0, helper.make_node("Sub", ["input", "half"], ["shifted"]))
    nodes.append(helper.make_node("Transpose", ["mixed"], ["output"], perm=back))
    half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, *shape])
        for name in ("input", "output")
    ]
    graph = helper.make_graph(
        nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w"), half]
    )
    opsets = [helper.make_opsetid("", 17)]
    freed = make_dynamic(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    free: list[int | str] = ["height", "width"]
    free.insert(0 if layout == "NCHW" else 2, channels)
    assert (freed.size, declared(freed.model)) == (True, ["batch", *free])


def damaged(kind: str) -> tuple[onnx.ModelProto, str]:
    """A model that ONNX Runtime refuses, and what srpipe's own reading says of it."""
    net = Net(1, *SIZE, opset=11 if kind == "roi" else 17)
    if kind == "roi":
        net.x = net.node("Resize", net.x, "", net.constant(np.ones(4, np.float32)))
    net.x = net.node("Concat", net.x, axis=1)
    net.conv(after=3)
    nodes = [*net.nodes, helper.make_node("Identity", [net.x], ["output"])]
    model = onnx.ModelProto()
    model.CopyFrom(build(["conv"], 1, *SIZE))
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend([] if kind == "empty" else nodes)
    model.graph.initializer.extend(net.weights)
    model.opset_import[0].version = net.opset
    if kind == "axis":
        del next(node for node in model.graph.node if node.op_type == "Concat").attribute[:]
    if kind == "weight":
        model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-3]
    said = {
        "roi": r"node Resize 'resize1'.*: it is not as ONNX defines it",
        "axis": r"node Concat 'concat1': it is not as ONNX defines it",
        "empty": r"output 'output' is computed by no node",
        "weight": r"constant 'k0' of \[4, 3, 3, 3\] is damaged",
    }
    return model, said[kind]


@pytest.mark.parametrize("kind", ["roi", "axis", "empty", "weight"])
def test_damaged_graphs(kind: str) -> None:
    model, said = damaged(kind)
    with pytest.raises(ModelError, match="cannot be loaded as an ONNX model"):
        make_dynamic(model)
    port = Port(input_name="input", output_name="output", axes=(0, 2, 3), channels=3)
    with pytest.raises((NodeError, ModelError), match=said):
        next(read_graph(model, port, Worlds((1, *SIZE), (0, 1, 2))))


def test_a_damaged_weight_that_nothing_reads() -> None:
    model = build(["conv"], 1, *SIZE)
    tensor = model.graph.initializer.add()
    tensor.CopyFrom(model.graph.initializer[0])
    tensor.name, tensor.raw_data = "unused", tensor.raw_data[:-3]
    with pytest.raises(ModelError, match=r"the constant 'unused' of .* is damaged"):
        make_dynamic(model)


def test_no_image_model() -> None:
    net = Net(1, *SIZE)
    model = net.finish(net.node("Flatten", net.x), [1, FEATURES * SIZE[0] * SIZE[1]])
    with pytest.raises(ModelError, match="no image-to-image model"):
        make_dynamic(model)


def test_free_height_with_a_baked_batch_and_width() -> None:
    """Declared free, but the numbers inside say otherwise."""
    net = Net(1, 64, 64)
    net.x = net.reshape(net.x, 1, FEATURES, -1, 64)
    model = net.model()
    for axis, name in enumerate(["n", "", "h", ""]):
        if name:
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    freed = make_dynamic(model)
    assert freed.size
    pixels = images(3, 40, 64)
    apart = np.concatenate([run(model, pixels[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(run(freed.model, pixels), apart, atol=1e-5)


def test_old_export() -> None:
    """Numbers as attributes, and weights that are inputs as well."""
    net = Net(1, *SIZE, opset=9)
    padded = net.node("Pad", net.x, pads=[0, 0, 2, 3, 0, 0, 2, 3])
    ends = [SIZE[0] + 2, SIZE[1] + 3]
    net.x = net.node("Slice", padded, axes=[2, 3], starts=[2, 3], ends=ends)
    net.flat()
    first = net.node("Split", net.x, axis=0, split=[1])
    net.x = net.node("Upsample", first, net.constant(np.ones(4, np.float32)))
    model = net.model()
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    freed = make_dynamic(model)
    assert freed.size
    onnx.checker.check_model(freed.model)
    assert check_batch(freed.model.SerializeToString()) <= 1e-5
    assert run(freed.model, images(2, 32, 48)).shape == (2, 3, 32, 48)


def test_model_that_fails_itself() -> None:
    net = Net(1, *SIZE)
    net.x = net.reshape(net.reshape(net.x, 1, FEATURES, -1), *net.shape)
    model = declare(net.model(), 1, 3, SIZE[0], SIZE[1] + 8)
    with pytest.raises(ModelError, match=r"node Reshape 'reshape2' .*does not fit the fixed size"):
        make_dynamic(model)


def test_channels_last() -> None:
    net = Net(1, *SIZE)
    net.flat()
    model = net.model()
    turned = helper.make_node("Transpose", ["image"], ["input"], perm=[0, 3, 1, 2])
    nodes = [turned, *model.graph.node]
    nodes[-1].output[0] = "planes"
    nodes.append(helper.make_node("Transpose", ["planes"], ["output"], perm=[0, 2, 3, 1]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for value in (model.graph.input[0], model.graph.output[0]):
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for size in (1, *SIZE, 3):
            shape.dim.add().dim_value = size
    model.graph.input[0].name = "image"
    freed = make_dynamic(model)
    assert declared(freed.model) == ["batch", "height", "width", 3]
    assert check_batch(freed.model.SerializeToString()) <= 1e-5
