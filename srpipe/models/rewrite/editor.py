"""A graph that rewrites look things up in and change: who makes and uses a tensor, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper, shape_inference

Floats = npt.NDArray[np.float32]

_STANDARD = ("", "ai.onnx")


class Editor:
    """One model's graph; it is changed in place when the changes are finished."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take a model; nodes whose results nobody uses go at once."""
        self._model = model
        self._graph = model.graph
        self._stored = {tensor.name: tensor for tensor in self._graph.initializer}
        for node in self._graph.node:
            if node.op_type == "Constant" and (value := attribute(node, "value")) is not None:
                self._stored[node.output[0]] = value
        self._kept = {port.name for port in self._graph.output} | set(_inner_names(self._graph))
        self._nodes: list[NodeProto] = _alive(self._graph.node, self._kept)
        self._dims: dict[str, list[int | None]] | None = None
        self._count = 0
        self._makers: dict[str, NodeProto] = {}
        self._users: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self._nodes:
            self._enter(node)

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        versions = (e.version for e in self._model.opset_import if e.domain in _STANDARD)
        return int(next(versions, 0))

    def nodes(self, op_type: str) -> list[NodeProto]:
        """The nodes of one of ONNX's own operators, in order."""
        return [node for node in self._nodes if is_a(node, op_type)]

    def maker(self, name: str, op_type: str) -> NodeProto | None:
        """The node that makes a tensor, if it is of that operator."""
        node = self._makers.get(name)
        return node if node is not None and is_a(node, op_type) else None

    def users(self, name: str) -> list[NodeProto] | None:
        """The nodes that use a tensor, one twice where it takes it twice; None where it is wanted
        elsewhere too: as an output, or by a graph inside a node.
        """
        return None if name in self._kept else self._users[name]

    def only_user(self, name: str, op_type: str) -> NodeProto | None:
        """The only node that uses a tensor, if it is of that operator."""
        users = self.users(name)
        return users[0] if users and len(users) == 1 and is_a(users[0], op_type) else None

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The values of a tensor that never changes."""
        tensor = self._stored.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def floats(self, name: str) -> Floats | None:
        """As :meth:`constant`, where they are float32."""
        values = self.constant(name)
        return values if values is not None and values.dtype == np.float32 else None

    def ints(self, name: str) -> list[int] | None:
        """As :meth:`constant`, where they are integers."""
        values = self.constant(name)
        if values is None or values.dtype.kind != "i":
            return None
        return [int(number) for number in values.reshape(-1)]

    def split_constant(self, node: NodeProto) -> tuple[str, Floats] | None:
        """The changing and the constant input of a node of two inputs."""
        for i, name in enumerate(node.input):
            values = self.floats(name)
            if values is not None and len(node.input) == 2:
                return str(node.input[1 - i]), values
        return None

    def channels(self, name: str) -> int | None:
        """The length of axis 1 of a tensor of four dimensions, where it never changes."""
        dims = self.dims(name)
        return dims[1] if dims is not None and len(dims) == 4 else None

    def dims(self, name: str) -> list[int | None] | None:
        """A tensor's dimensions, None where one is free; None where nothing is known.

        What the file says of its inner tensors is not believed.
        """
        if self._dims is None:
            bare = onnx.ModelProto()
            bare.CopyFrom(self._model)
            del bare.graph.value_info[:]
            try:
                found = shape_inference.infer_shapes(bare, data_prop=True).graph
            except (shape_inference.InferenceError, ValueError):
                found = onnx.GraphProto()  # nothing is known
            self._dims = {
                value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
                for value in (*found.value_info, *found.input)
                if value.type.tensor_type.HasField("shape")
            }
        return self._dims.get(name)

    def weight(self, values: npt.ArrayLike) -> str:
        """A new float32 constant; returns its name."""
        return self.stored(np.asarray(values, np.float32))

    def stored(self, values: npt.NDArray[Any]) -> str:
        """A new constant; returns its name."""
        tensor = numpy_helper.from_array(values, self._new_name("constant"))
        self._graph.initializer.append(tensor)
        self._stored[tensor.name] = tensor
        return str(tensor.name)

    def node(
        self, op_type: str, inputs: Sequence[str], output: str = "", **attributes: Any
    ) -> NodeProto:
        """A new node, not in the graph yet; it makes ``output``, or a new tensor."""
        output = output or self._new_name(op_type.lower())
        return helper.make_node(op_type, inputs, [output], name=output, **attributes)

    def replace(self, old: Sequence[NodeProto], new: Sequence[NodeProto]) -> None:
        """Put new nodes in the place of the last of the old ones, which go."""
        gone = {id(node) for node in old}
        last = max(i for i, node in enumerate(self._nodes) if id(node) in gone)
        self._nodes[last + 1 : last + 1] = new
        self._nodes = [node for node in self._nodes if id(node) not in gone]
        for node in old:
            for name in node.input:
                self._users[name] = [user for user in self._users[name] if user is not node]
        for node in new:
            self._enter(node)

    def rename(self, old: str, new: str) -> None:
        """Let all nodes that use one tensor use another."""
        for node in self._users.pop(old, []):
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
            self._users[new].append(node)

    def finish(self) -> None:
        """Write the changes back; nodes and constants that nobody uses any more go."""
        nodes = _alive(self._nodes, self._kept)
        # Out of the message before it is cleared: nodes in it would be emptied with it.
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        used = {name for node in copies for name in node.input} | self._kept
        unused = [t for t in self._graph.initializer if t.name not in used]
        for tensor in unused:
            self._graph.initializer.remove(tensor)
        # Shapes of tensors that are gone, or are made otherwise now.
        del self._graph.value_info[:]

    def _enter(self, node: NodeProto) -> None:
        self._makers |= dict.fromkeys(node.output, node)
        for name in node.input:
            self._users[name].append(node)

    def _new_name(self, hint: str) -> str:
        while True:
            self._count += 1
            name = f"srpipe.{hint}.{self._count}"
            if name not in self._makers and name not in self._stored:
                return name


def is_a(node: NodeProto, op_type: str) -> bool:
    """Whether a node is of one of ONNX's own operators."""
    return bool(node.op_type == op_type and node.domain in _STANDARD)


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def pads_nothing(node: NodeProto) -> bool:
    """Whether a convolution adds no border."""
    automatic = attribute(node, "auto_pad", b"NOTSET")
    return automatic in (b"NOTSET", b"VALID") and not any(attribute(node, "pads", []))


def _inner_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that graphs inside nodes use."""
    for node in graph.node:
        for entry in node.attribute:
            for inner in (entry.g, *entry.graphs):
                yield from (name for within in inner.node for name in within.input)
                yield from (port.name for port in inner.output)
                yield from _inner_names(inner)


def _alive(nodes: Iterable[NodeProto], kept: set[str]) -> list[NodeProto]:
    """The nodes, in order, on which something in ``kept`` depends."""
    wanted = set(kept)
    alive = []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            alive.append(node)
            wanted.update(node.input)
    return alive[::-1]
