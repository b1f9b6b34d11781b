"""Float16 inside, float32 outside: half the weights and, on a GPU, less than half the time.

ONNX Runtime's own converter does the work. Around it: weights that float16 cannot hold are an error
and not clamped; squares, means and roots of normalisation stay float32, for a deviation of 256 already
has a square that float16 cannot hold; and so do sizes computed in floating point, which float16 counts
only to 2048.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.models.local_mean import is_local_mean
from srpipe.models.trial import Array, Trial, only_input

_MAX = float(np.finfo(np.float16).max)
_PRECISE = {
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Pow", "Reciprocal",
    "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Sqrt",
}  # fmt: skip


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn weights and inner arithmetic into float16; inputs and outputs stay float32.

    Args:
        model: a graph of one float32 input, left as it is.

    Raises:
        ModelError: it does not work on float32; a weight is beyond float16's 65504, which the
            message names; or the graph does not load afterwards.
    """
    port = only_input(model)
    if port.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise ModelError(
            f"the model's input {port.name} is not float32: only float32 models become float16."
        )
    # Late: its module takes a while to load.
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = onnx.ModelProto()
    half.CopyFrom(model)
    _tidy(half.graph)
    precise = _kept_precise(half.graph, _precise_operators())
    _check_range(half.graph, precise)
    converted: onnx.ModelProto = convert_float_to_float16(
        half, keep_io_types=True, op_block_list=[], node_block_list=sorted(precise)
    )
    graph = converted.graph
    _join_precise(graph)
    nodes = list(_in_order(graph))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # its types are those of before
    Trial(converted)
    return converted


def check_half_range(model: onnx.ModelProto, tile: Array) -> None:
    """Run a float32 model, and refuse it where a number inside is beyond float16.

    ONNX Runtime computes most of a float16 model in float32 on a CPU, where that would not show.

    Args:
        model: as for :func:`to_half`.
        tile: a batch from black to white, in the model's own numbers and layout.

    Raises:
        ModelError: it names the node.
    """
    named = onnx.ModelProto()
    named.CopyFrom(model)
    _tidy(named.graph)
    precise = _kept_precise(named.graph, _precise_operators())
    nodes = [node for node in named.graph.node if node.name not in precise]
    trial = Trial(named, [node.output[0] for node in nodes])
    for image in (tile, np.full_like(tile, tile.max())):
        for node, result in zip(nodes, trial.run(image), strict=True):
            if result.dtype != np.float32:
                continue
            largest = float(np.abs(result).max(initial=0))
            if largest > _MAX:
                raise ModelError(
                    f"node {node.op_type} {node.output[0]} gives {largest:.6g}, beyond float16's "
                    f"{_MAX:.0f}: the model must stay float32."
                )


def _precise_operators() -> set[str]:
    # Late: its module takes a while to load.
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    return {*DEFAULT_OP_BLOCK_LIST, *_PRECISE}


def _tidy(graph: onnx.GraphProto) -> None:
    """Constants become weights, which the converter treats by their use; every node gets a name."""
    nodes = []
    for i, node in enumerate(graph.node):
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            weight = graph.initializer.add()
            weight.CopyFrom(value)
            weight.name = node.output[0]
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if not is_local_mean(node):
            copy.name = f"{node.op_type}_{i}"
        nodes.append(copy)
    del graph.node[:]
    graph.node.extend(nodes)
    weights = {weight.name for weight in graph.initializer}
    ports = [port for port in graph.input if port.name not in weights]
    del graph.input[:]
    graph.input.extend(ports)


def _kept_precise(graph: onnx.GraphProto, operators: set[str]) -> set[str]:
    """Names of the nodes that stay float32."""
    weights = {weight.name for weight in graph.initializer}
    sizes: set[str] = set()
    kept: dict[str, onnx.NodeProto] = {}
    for node in _in_order(graph):
        inputs = [name for name in node.input if name and name not in weights]
        if node.op_type in ("Shape", "Size") or (inputs and sizes.issuperset(inputs)):
            sizes.update(node.output)
            kept[node.name] = node
        elif node.op_type in operators or is_local_mean(node):
            kept[node.name] = node
    # What lies between two of them is not worth a round trip: variance plus epsilon, then the root.
    while True:
        given = {name for node in kept.values() for name in node.output}
        wanted = {name for node in kept.values() for name in node.input}
        more = {
            node.name: node
            for node in graph.node
            if node.name not in kept
            and wanted.intersection(node.output)
            and given.issuperset(name for name in node.input if name and name not in weights)
        }
        if not more:
            return set(kept)
        kept |= more


def _check_range(graph: onnx.GraphProto, precise: set[str]) -> None:
    used = {
        name
        for node in graph.node
        if node.name not in precise
        # Bounds beyond float16's may be any number as large.
        for name in (node.input[:1] if node.op_type == "Clip" else node.input)
    }
    for weight in graph.initializer:
        if weight.name not in used or weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        worst = float(np.abs(values[np.isfinite(values)]).max(initial=0))
        if worst > _MAX:
            raise ModelError(
                f"weight {weight.name} holds {worst:.6g}, beyond float16's {_MAX:.0f}: the model must "
                "stay float32."
            )


def _join_precise(graph: onnx.GraphProto) -> None:
    """Between two float32 nodes the converter goes through float16 and back: take that out."""
    down = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast"
        and (node.name.endswith("_cast_to_fp16_node") or node.name.startswith("graph_input_cast"))
    }
    for node in graph.node:
        to = [a.i for a in node.attribute if a.name == "to"]
        if node.op_type == "Cast" and to == [TensorProto.FLOAT] and node.input[0] in down:
            source = down[node.input[0]]
            node.CopyFrom(helper.make_node("Identity", [source], node.output, name=node.name))
    read = {name for node in graph.node for name in _read_by(node)}
    read.update(port.name for port in graph.output)
    nodes = [n for n in graph.node if n.output[0] not in down or n.output[0] in read]
    del graph.node[:]
    graph.node.extend(nodes)


def _in_order(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes, each after those it reads from."""
    makers = {name: node for node in graph.node for name in node.output if name}
    done: set[str] = set()
    for node in graph.node:
        waiting = [node]
        while waiting:
            now = waiting[-1]
            if now.output[0] in done:
                waiting.pop()
                continue
            needs = [makers[name] for name in _read_by(now) if name in makers]
            missing = [maker for maker in needs if maker.output[0] not in done]
            if missing:
                waiting += missing
            else:
                done.add(now.output[0])
                waiting.pop()
                yield now


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors a node reads, those read inside its branches and loops included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _read_by(inner)
