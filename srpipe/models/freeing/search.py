"""Follows shapes through a graph, and tries the readings of its nodes until none contradicts another.

A contradiction goes back to the last open reading that the contradicting node depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import is_not

import onnx

from srpipe.models.freeing.edits import AS_IT_IS, Edit, operand_value
from srpipe.models.freeing.inference import Rules, StuckError, Value, depends_on
from srpipe.models.freeing.node import Node
from srpipe.models.freeing.ports import Port
from srpipe.models.freeing.readings import readings
from srpipe.models.freeing.worlds import AXES, BATCH, HEIGHT, WIDTH, Dim, Vector, Worlds

# Nodes looked at, in all and for each node of the graph: a graph that needs more has no reading.
_LEAST_TRIES, _TRIES_A_NODE = 1000, 5


class NodeError(StuckError):
    """A node stands in the way; ``str`` names it and says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A graph read without contradiction."""

    edits: Mapping[int, Edit]
    """By the node's position; nodes that stay as they are may be missing."""
    values: Mapping[str, Value]
    """What is known of every tensor."""


@dataclass(slots=True)
class _Choice:
    """A node with readings left to try."""

    index: int
    left: Iterator[Edit]
    blamed: int = 0
    """The nodes (a bit for each) that contradictions behind it depended on."""


def describe(node: onnx.NodeProto, operand: str = "") -> str:
    """A node's type, name and operand, for messages."""
    name = node.name or (node.output[0] if node.output else "")
    return f"node {node.op_type} {name!r}" + (f" (operand {operand!r})" if operand else "")


def read_graph(model: onnx.ModelProto, port: Port, worlds: Worlds) -> Iterator[Reading]:
    """The readings of a whole graph, likeliest first.

    Raises:
        NodeError: there is none; it names the node that the search could not get past.
    """
    search = _Search(model, port, worlds)
    yield from search.run()


class _Search:
    def __init__(self, model: onnx.ModelProto, port: Port, worlds: Worlds) -> None:
        opsets = {opset.domain: opset.version for opset in model.opset_import}
        opsets[""] = opsets.get("", opsets.get("ai.onnx", 1))
        self._rules = Rules(worlds, opsets, model.ir_version)
        self._worlds, self._port = worlds, port
        self._nodes = list(model.graph.node)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._constants |= {
            node.output[0]: attribute.t
            for node in self._nodes
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }
        self._values = {
            tensor.name: self._rules.tensor(tensor) for tensor in model.graph.initializer
        }
        given = next(value for value in model.graph.input if value.name == port.input_name)
        dims = [worlds.constant(dim.dim_value) for dim in given.type.tensor_type.shape.dim]
        for axis, position in enumerate(port.axes):
            dims[position] = worlds.axis(axis)
        self._values[port.input_name] = Value(given.type.tensor_type.elem_type, tuple(dims), None)
        self._seen: dict[int, list[Dim]] = {}
        self._met: set[Vector] = set()
        self._meet(self._values[port.input_name])
        self._edits: dict[int, Edit] = {}
        self._choices: list[_Choice] = []
        self._kept: dict[int, tuple[list[Value | None], list[Value]]] = {}
        self._producers = {name: i for i, node in enumerate(self._nodes) for name in node.output}
        self._ancestors: list[int] = []
        for i, node in enumerate(self._nodes):
            bits = 1 << i
            for name in node.input:
                if name in self._producers and self._producers[name] < i:
                    bits |= self._ancestors[self._producers[name]]
            self._ancestors.append(bits)
        self._deepest: tuple[int, NodeError] | None = None

    def run(self) -> Iterator[Reading]:
        i, tries, found, fresh = 0, 0, False, True
        most = _LEAST_TRIES + _TRIES_A_NODE * len(self._nodes)
        while True:
            if i == len(self._nodes):
                error = self._wrong_result()
                if error is None:
                    found = True
                    yield Reading(dict(self._edits), dict(self._values))
                    blame = (1 << i) - 1
                else:
                    self._note(i, error)
                    blame = self._blame_of_result()
                back = self._go_back(blame)
            else:
                if fresh:
                    self._choices.append(_Choice(i, readings(self._node(i))))
                tries += 1
                if self._advance(self._choices[-1]):
                    i, fresh = i + 1, True
                    continue
                choice = self._choices.pop()
                back = self._go_back(choice.blamed | self._ancestors[i] & ~(1 << i))
            if back is None or tries > most:
                break
            i, fresh = back, False
        if not found:
            assert self._deepest is not None
            raise self._deepest[1]

    def _go_back(self, blame: int) -> int | None:
        """Return to the last choice that is to blame; None if there is none."""
        while self._choices:
            choice = self._choices[-1]
            if blame >> choice.index & 1:
                choice.blamed |= blame & ~(1 << choice.index)
                self._edits = {i: e for i, e in self._edits.items() if i < choice.index}
                return choice.index
            self._choices.pop()
        return None

    def _advance(self, choice: _Choice) -> bool:
        """Try the readings that a node has left until one fits; whether one did."""
        node = self._nodes[choice.index]
        try:
            for edit in choice.left:
                try:
                    self._apply(choice.index, edit)
                except StuckError as error:
                    self._note(choice.index, NodeError(self._complaint(node, error)))
                    continue
                return True
        except StuckError as error:
            self._note(choice.index, NodeError(self._complaint(node, error)))
        return False

    def _apply(self, index: int, edit: Edit) -> None:
        proto, inputs = edited(self._nodes[index], edit), self._inputs(self._nodes[index])
        inputs += [None] * (len(proto.input) - len(inputs))
        for position, operand in edit.operands.items():
            inputs[position] = None if operand is None else operand_value(operand, self._rules)
        results = self._infer(index, proto, inputs[: len(proto.input)], edit)
        for name, value in zip((name for name in proto.output if name), results, strict=True):
            self._values[name] = value
            self._meet(value)
        if edit.changes or not edit.sure:
            self._edits[index] = edit

    def _infer(
        self, index: int, proto: onnx.NodeProto, inputs: list[Value | None], edit: Edit
    ) -> list[Value]:
        """The results of a node, kept for when it is passed again with the same inputs."""
        if edit is not AS_IT_IS:
            return self._rules.infer(proto, inputs, edit.dims)
        before, results = self._kept.get(index, (None, []))
        if before is None or len(before) != len(inputs) or any(map(is_not, before, inputs)):
            results = self._rules.infer(proto, inputs)
            self._kept[index] = (inputs, results)
        return results

    def _node(self, index: int) -> Node:
        proto = self._nodes[index]
        opset = self._rules.opsets[""]
        inputs = self._inputs(proto)
        return Node(proto, inputs, self._worlds, opset, self._constants.get, self._seen)

    def _inputs(self, node: onnx.NodeProto) -> list[Value | None]:
        for name in node.input:
            if name and name not in self._values:
                raise NodeError(f"{describe(node, name)} reads what nothing computes before it")
        return [self._values[name] if name else None for name in node.input]

    def _meet(self, value: Value) -> None:
        for dim in value.dims:
            if dim.moves and dim.vector not in self._met:
                self._met.add(dim.vector)
                self._seen.setdefault(dim.vector[0], []).append(dim)

    def _note(self, index: int, error: NodeError) -> None:
        """Keep the first complaint of the node that the search got farthest to."""
        if self._deepest is None or index > self._deepest[0]:
            self._deepest = (index, error)

    def _complaint(self, node: onnx.NodeProto, error: StuckError) -> str:
        baked = [name for name in node.input if self._is_baked(name)]
        return f"{describe(node, ', '.join(baked))}: {error}"

    def _is_baked(self, name: str) -> bool:
        return name in self._constants or (
            name in self._values and self._values[name].constant is not None
        )

    def _wrong_result(self) -> NodeError | None:
        """Why the output is no batch of images of the input's size, or None."""
        value = self._values.get(self._port.output_name)
        if value is None:
            return NodeError(f"output {self._port.output_name!r} is computed by no node")
        vectors = value.vectors
        if len(vectors) != 4:
            return NodeError(
                f"output {self._port.output_name!r} has {len(vectors)} dimensions, not 4"
            )
        for axis, position in enumerate(self._port.axes):
            if axis not in self._worlds.free:
                continue
            given, got = self._worlds.axis(axis).vector, vectors[position]
            scale = got[0] // given[0]
            if not scale or got != tuple(n * scale for n in given) or (axis == BATCH and scale > 1):
                culprit = self._loser(axis)
                node = describe(culprit) if culprit else f"output {self._port.output_name!r}"
                return NodeError(f"{node}: its result does not grow with the {AXES[axis]}")
        return None

    def _blame_of_result(self) -> int:
        producer = self._producers.get(self._port.output_name)
        return 0 if producer is None else self._ancestors[producer]

    def _loser(self, axis: int) -> onnx.NodeProto | None:
        """The last node above the output at which an axis gets lost."""
        name = self._port.output_name
        for i in reversed(range(len(self._nodes))):
            node: onnx.NodeProto = self._nodes[i]
            if not self._blame_of_result() >> i & 1 or node.op_type == "Shape":
                continue
            given = [self._values[name] for name in node.input if name]
            got = [self._values[name] for name in node.output if name]
            if any(depends_on(v, self._worlds, axis) for v in given) and not any(
                depends_on(v, self._worlds, axis) for v in got
            ):
                return node
        producer = self._producers.get(name)
        return None if producer is None else self._nodes[producer]


def edited(node: onnx.NodeProto, edit: Edit) -> onnx.NodeProto:
    """A node with other attributes and type, and with names for operands that it did not have."""
    if not edit.changes:
        return node
    new = onnx.NodeProto()
    new.CopyFrom(node)
    new.op_type = edit.op_type or node.op_type
    kept = [attribute for attribute in node.attribute if attribute.name not in edit.attributes]
    added = [
        onnx.helper.make_attribute(name, value)
        for name, value in edit.attributes.items()
        if value is not None
    ]
    del new.attribute[:]
    new.attribute.extend([*kept, *added])
    names = list(node.input)
    for position, operand in edit.operands.items():
        names += [""] * (position + 1 - len(names))
        names[position] = "" if operand is None else f"{node.output[0]}/operand_{position}"
    while names and not names[-1]:
        names.pop()
    del new.input[:]
    new.input.extend(names)
    return new


def global_results(model: onnx.ModelProto, reading: Reading, worlds: Worlds) -> list[str]:
    """Tensors that gather a whole image: computed from height and width, but without them."""
    names = []
    for node in model.graph.node:
        values = [reading.values[name] for name in node.input if name]
        got = [(name, reading.values[name]) for name in node.output if name]
        wide = any(depends_on(v, worlds, axis) for v in values for axis in (HEIGHT, WIDTH))
        if not wide or node.op_type == "Shape":
            continue
        names += [
            name for name, value in got
            if value.dtype in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
            and not any(depends_on(value, worlds, axis) for axis in (HEIGHT, WIDTH))
        ]  # fmt: skip
    return names
