"""What a model's graph holds: dimensions, operators, parameters, and the work of a pixel."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from srpipe.errors import ModelError, OutOfMemoryError
from srpipe.io.session import Session
from srpipe.models.graph import load_graph, save_graph
from srpipe.plan.geometry import round_up
from srpipe.plan.model_info import ModelInfo

_TRIAL_PX = 128
_FLOATS = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
}
_QUANTIZED = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}
# Inputs, by number, that say how to compute and were not learned.
_NOT_LEARNED = {
    "Resize": {1, 2, 3},
    "Upsample": {1},
    "QuantizeLinear": {1, 2},
    "DequantizeLinear": {1, 2},
}
_MULTIPLYING = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_COSTS = "srpipe_costs"


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the file describes it."""

    name: str
    type: str
    """ONNX's name of its element type: FLOAT, FLOAT16, …"""
    dims: tuple[int | str, ...]
    """A number where the dimension is fixed; its name, perhaps empty, where it is dynamic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """What a model's graph holds."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: dict[str, int]
    """How often each operator occurs, the most frequent first; graphs inside nodes included."""
    parameters: int
    """Learned numbers."""
    flops_per_pixel: float | None
    """Of Conv, ConvTranspose, MatMul and Gemm, two for each multiplication and addition, per input
    pixel of a tile of about 128x128; None where they cannot be counted."""
    opset: int
    """Version of ONNX's own operators."""
    producer: str
    """The program that wrote the file, with its version."""

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)


def read_facts(info: ModelInfo) -> GraphFacts:
    """Read a model's graph, and run it once to count its work.

    Raises:
        ModelError: the file cannot be loaded.
    """
    model = load_graph(info.path)
    initializers = {tensor.name for tensor in model.graph.initializer}
    operators = Counter(node.op_type for node in _nodes(model.graph))
    return GraphFacts(
        inputs=tuple(_port(v) for v in model.graph.input if v.name not in initializers),
        outputs=tuple(_port(v) for v in model.graph.output),
        operators=dict(operators.most_common()),
        parameters=_count_parameters(model.graph),
        flops_per_pixel=_count_flops(model, info),
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
    )


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    dims = (
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param
        for d in tensor.shape.dim
    )
    return Port(value.name, TensorProto.DataType.Name(tensor.elem_type), tuple(dims))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of graphs inside nodes included."""
    for node in graph.node:
        yield node
        for inner in _graphs_of(node):
            yield from _nodes(inner)


def _graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _count_parameters(graph: onnx.GraphProto) -> int:
    tensors = dict(_constants(graph))
    learned = set()
    for node in _nodes(graph):
        for i, name in enumerate(node.input):
            if name not in tensors or i in _NOT_LEARNED.get(node.op_type, ()):
                continue
            quantized = node.op_type == "DequantizeLinear" and tensors[name].data_type in _QUANTIZED
            # A single number is an exponent, an epsilon, a factor somebody chose.
            if quantized or (tensors[name].data_type in _FLOATS and tensors[name].dims):
                learned.add(name)
    return sum(int(np.prod(tensors[name].dims)) for name in learned)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], a.t) for a in node.attribute if a.name == "value")
        for inner in _graphs_of(node):
            yield from _constants(inner)


def _count_flops(model: onnx.ModelProto, info: ModelInfo) -> float | None:
    """Run the model with outputs added that tell the sizes its multiplications have.

    Shape inference cannot: it loses track where a graph computes sizes, as windows and padding do.
    """
    multiplying = [node for node in model.graph.node if node.op_type in _MULTIPLYING]
    if sum(node.op_type in _MULTIPLYING for node in _nodes(model.graph)) > len(multiplying):
        return None  # inside a loop or a condition
    if not multiplying:
        return 0.0
    side_px = round_up(max(_TRIAL_PX, info.least_px), info.multiple_px)
    height, width = info.height_px or side_px, info.width_px or side_px
    shape = [info.batch or 1, info.channels, height, width]
    if info.layout == "NHWC":
        shape = [shape[0], height, width, info.channels]
    batch = np.full(shape, 0.5, info.dtype)
    _add_cost_output(model.graph, multiplying)
    with tempfile.TemporaryDirectory(prefix="srpipe-") as folder:
        path = Path(folder, "costs.onnx")
        save_graph(model, path)
        try:
            costs = Session(str(path), "cpu", 0).run_free(info.input_name, _COSTS, batch)
        except (ModelError, OutOfMemoryError):
            return None
    if costs is None:
        return None
    elements, numerator, divisor = costs.reshape(-1, 3).T.astype(np.float64)
    flops = 2 * elements * numerator / np.maximum(divisor, 1)
    return float(flops.sum() / (shape[0] * height * width))


def _add_cost_output(graph: onnx.GraphProto, multiplying: list[onnx.NodeProto]) -> None:
    """Add an output of three numbers for each node: its multiplications are a * b / c."""
    extra = _SizeNodes()
    names: list[str] = []
    for node in multiplying:
        first, second, result = node.input[0], node.input[1], node.output[0]
        match node.op_type:
            case "Conv":  # each result takes one filter's weights
                names += [extra.count(result), extra.count(second), extra.dim(second, 0)]
            case "ConvTranspose":  # each input pixel meets the weights of its channel
                names += [extra.count(first), extra.count(second), extra.dim(second, 0)]
            case "MatMul":
                names += [extra.count(result), extra.dim(first, -1), extra.one]
            case _:
                transposed = any(a.name == "transA" and a.i for a in node.attribute)
                axis = 0 if transposed else 1
                names += [extra.count(result), extra.dim(first, axis), extra.one]
    graph.node.extend(extra.nodes)
    graph.node.append(helper.make_node("Concat", names, [_COSTS], axis=0))
    graph.output.append(helper.make_tensor_value_info(_COSTS, TensorProto.INT64, [len(names)]))


class _SizeNodes:
    """Nodes that give a tensor's size, or the length of an axis, as a vector of one number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.one = self._constant([1])
        self._any = self._constant([-1])

    def count(self, tensor: str) -> str:
        return self._add("Reshape", self._add("Size", tensor), self._any)

    def dim(self, tensor: str, axis: int) -> str:
        return self._add("Gather", self._add("Shape", tensor), self._constant([axis]))

    def _constant(self, values: list[int]) -> str:
        value = helper.make_tensor("", TensorProto.INT64, [len(values)], values)
        return self._add("Constant", value=value)

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"srpipe_size_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name
