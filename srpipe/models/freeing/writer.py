"""Writes a reading into a graph: numbers that move are computed from the input's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srpipe.models.freeing.edits import Edit, Numbers, Spread
from srpipe.models.freeing.inference import Array, Value, allows_zero
from srpipe.models.freeing.ports import Port
from srpipe.models.freeing.search import NodeError, Reading, describe, edited
from srpipe.models.freeing.worlds import AXES, Dim, Vector, Worlds, moves

# From this version of the format on, constants need not be inputs too.
_PLAIN_CONSTANTS = 4


def write_reading(
    model: onnx.ModelProto, port: Port, worlds: Worlds, reading: Reading
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A new model with the edits of a reading and free dimensions, and the nodes that were changed.

    Raises:
        NodeError: a node needs a number that cannot be computed from the input's size.
    """
    new = onnx.ModelProto()
    new.CopyFrom(model)
    new.ir_version = max(new.ir_version, _PLAIN_CONSTANTS)
    writer = _Writer(new.graph, port, worlds, reading)
    changed = []
    for index, edit in reading.edits.items():
        if edit.changes:
            node = new.graph.node[index]
            changed.append(node.name or node.output[0])
            writer.rewrite(index, edit)
    writer.finish()
    _drop_unused(new.graph)
    _declare(new.graph, port, worlds, reading)
    return new, tuple(changed)


class _Writer:
    def __init__(
        self, graph: onnx.GraphProto, port: Port, worlds: Worlds, reading: Reading
    ) -> None:
        self._graph, self._port, self._worlds, self._reading = graph, port, worlds, reading
        self._nodes: list[onnx.NodeProto] = []
        self._at = onnx.NodeProto()
        self._made: dict[tuple[object, ...], str] = {}
        self._used = {name for node in graph.node for name in (*node.input, *node.output)}

    def rewrite(self, index: int, edit: Edit) -> None:
        """Change one node in place."""
        node = self._graph.node[index]
        original = list(node.input)
        new, self._at = edited(node, edit), node
        for position, operand in edit.operands.items():
            if isinstance(operand, Numbers):
                given = self._reading.values[original[0]] if node.op_type == "Reshape" else None
                entries: Sequence[Dim | int] = operand.dims
                if node.op_type == "Reshape":
                    given = self._reading.values[original[0]]
                    entries = _compact(given, operand.dims, allows_zero(node))
                new.input[position] = self._list(entries)
            elif isinstance(operand, Spread):
                name = self._constant(operand.array)
                if operand.dims is not None:
                    name = self._node("Expand", name, self._list(operand.dims))
                new.input[position] = name
        node.CopyFrom(new)

    def finish(self) -> None:
        """Put the new nodes before all others."""
        rest = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*self._nodes, *rest])

    def _list(self, entries: Sequence[Dim | int]) -> str:
        """An int64 list of numbers, constant where nothing in it moves."""
        if all(isinstance(entry, int) or not entry.moves for entry in entries):
            return self._ints([e if isinstance(e, int) else e.vector[0] for e in entries])
        parts = [
            self._ints([entry]) if isinstance(entry, int) else self._dim(entry) for entry in entries
        ]
        return self._node("Concat", *parts)

    def _dim(self, dim: Dim) -> str:
        """One dimension as an int64 list of one."""
        constant = math.prod(factor[0] for factor in dim.factors if not moves(factor))
        parts = [self._factor(factor) for factor in dim.factors if moves(factor)]
        if constant != 1 or not parts:
            parts.append(self._ints([constant]))
        name = parts[0]
        for part in parts[1:]:
            name = self._node("Mul", name, part)
        return name

    def _factor(self, factor: Vector) -> str:
        formula = self._worlds.fit(factor)
        if formula is None:
            raise NodeError(f"{describe(self._at)}: no formula gives its number {factor[0]}")
        up, down = formula.coefficient.numerator, formula.coefficient.denominator
        name = ""
        for axis, offset in formula.terms:
            term = self._axis(axis)
            if offset.denominator != 1:
                term = self._node("Mul", term, self._ints([offset.denominator]))
                down *= offset.denominator
            if offset:
                term = self._node("Add", term, self._ints([offset.numerator]))
            name = self._node("Mul", name, term) if name else term
        common = math.gcd(up, down)
        up, down = up // common, down // common
        if up != 1:
            name = self._node("Mul", name, self._ints([up]))
        if down != 1:
            name = self._node("Div", name, self._ints([down]))
        if formula.added:
            name = self._node("Add", name, self._ints([formula.added]))
        return name

    def _axis(self, axis: int) -> str:
        return self._part(self._port.input_name, self._port.axes[axis])

    def _part(self, tensor: str, position: int) -> str:
        return self._node("Gather", self._node("Shape", tensor), self._ints([position]))

    def _node(self, op_type: str, *inputs: str) -> str:
        key = (op_type, *inputs)
        if key not in self._made:
            name = self._name(op_type.lower())
            self._made[key] = name
            node = helper.make_node(op_type, inputs, [name], name=name)
            if op_type == "Concat":
                node.attribute.append(helper.make_attribute("axis", 0))
            self._nodes.append(node)
        return self._made[key]

    def _ints(self, numbers: Sequence[int]) -> str:
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, array: Array) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            name = self._name("constant")
            self._made[key] = name
            self._graph.initializer.append(numpy_helper.from_array(array, name))
        return self._made[key]

    def _name(self, stem: str) -> str:
        number = len(self._made)
        while f"free_{stem}_{number}" in self._used:
            number += 1
        self._used.add(f"free_{stem}_{number}")
        return f"free_{stem}_{number}"


def _compact(given: Value, dims: Sequence[Dim], zeros: bool) -> list[Dim | int]:
    """A Reshape's numbers with 0 for what is copied and -1 for the only one left.

    A rest of -1 would hide that another number was rounded down, so it is taken only alone.
    """
    entries: list[Dim | int] = []
    for i, dim in enumerate(dims):
        copied = not zeros and i < len(given.dims) and given.dims[i].vector == dim.vector
        entries.append(0 if copied and dim.moves else dim if dim.moves else dim.vector[0])
    left = [i for i, entry in enumerate(entries) if isinstance(entry, Dim)]
    if len(left) == 1:
        entries[left[0]] = -1
    return entries


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that nothing reads any more."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(_names_inside(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    gone = {tensor.name for tensor in graph.initializer} - needed
    inputs = [value for value in graph.input if value.name not in gone]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    del graph.input[:]
    graph.input.extend(inputs)


def _names_inside(node: onnx.NodeProto) -> set[str]:
    graphs = [a.g for a in node.attribute if a.HasField("g")]
    return {
        name
        for graph in graphs
        for inner in graph.node
        for name in (*inner.input, *_names_inside(inner))
    }


def _declare(graph: onnx.GraphProto, port: Port, worlds: Worlds, reading: Reading) -> None:
    """Name the free dimensions of input and outputs; other declared shapes are out of date."""
    del graph.value_info[:]
    given = next(value for value in graph.input if value.name == port.input_name)
    for axis in worlds.free:
        given.type.tensor_type.shape.dim[port.axes[axis]].dim_param = AXES[axis]
    for output in graph.output:
        dims = reading.values[output.name].dims
        shape = output.type.tensor_type.shape
        del shape.dim[:]
        for i, dim in enumerate(dims):
            names = [AXES[a] for a in worlds.free if dim.vector == worlds.axis(a).vector]
            if dim.moves:
                shape.dim.add().dim_param = names[0] if names else f"{output.name}_{i}"
            else:
                shape.dim.add().dim_value = dim.vector[0]
