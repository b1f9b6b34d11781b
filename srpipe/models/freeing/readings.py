"""The readings of a node: what its baked numbers can mean, likeliest first.

A reading that is wrong contradicts the shapes further down, or the runs that prove the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srpipe.models.freeing.edits import AS_IT_IS, Edit, Numbers, Operand, Spread, collapse
from srpipe.models.freeing.inference import Array, StuckError, Value, allows_zero, resolve_shape
from srpipe.models.freeing.regroup import regroup
from srpipe.models.freeing.worlds import BATCH, HEIGHT, WIDTH, Dim, Vector, Worlds, moves

_MOST_READINGS = 64
# Larger ends of a Slice mean "to the end", smaller than the negative "to the start".
_ALL = 2**31 - 1
_TO_THE_END = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Node:
    """A node and what is known where it stands."""

    proto: onnx.NodeProto
    inputs: Sequence[Value | None]
    worlds: Worlds
    opset: int
    constants: Callable[[str], onnx.TensorProto | None]
    """The whole constant behind a name."""
    seen: Mapping[int, Sequence[Dim]]
    """Dimensions that move and were met so far, by their number in world 0."""

    def attribute(self, name: str) -> list[int] | int | None:
        """An int or int list among the attributes, None where there is none."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value if isinstance(value, int) else list(value)
        return None

    def input(self, index: int) -> Value | None:
        """An input, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def rows(self, index: int) -> list[Vector] | None:
        """The numbers of an int list among the inputs, in each world."""
        value = self.input(index)
        if value is None or value.data is None:
            return None
        columns = [array.reshape(-1).tolist() for array in value.data]
        return [tuple(row) for row in zip(*columns, strict=True)]

    def numbers(self, rows: Sequence[int | Dim | Vector]) -> Numbers:
        """Numbers and dimensions as an operand."""
        dims = [
            self.worlds.constant(row) if isinstance(row, int)
            else row if isinstance(row, Dim)
            else Dim((row,))
            for row in rows
        ]  # fmt: skip
        return Numbers(tuple(dims))

    def spatial(self, vector: Vector) -> bool:
        """Whether a number changes with height or width."""
        return any(self.worlds.depends(vector, axis) for axis in (HEIGHT, WIDTH))


def readings(node: Node) -> Iterator[Edit]:
    """All readings of a node.

    Raises:
        StuckError: none is possible, and why.
    """
    rule = _RULES.get(node.proto.op_type)
    if rule is not None:
        yield from itertools.islice(rule(node), _MOST_READINGS)
        return
    yield AS_IT_IS
    if node.proto.op_type in _BROADCASTING:
        yield from _collapsed(node)


def _reshape(node: Node) -> Iterator[Edit]:
    data, rows = node.input(0), node.rows(1)
    if data is None or rows is None:
        raise StuckError("its shape is computed from pixels")
    if not data.moves:
        yield AS_IT_IS
        return
    zeros = allows_zero(node.proto)
    told = [
        resolve_shape([v[w] for v in data.vectors], [row[w] for row in rows], zeros)
        for w in range(len(node.worlds.sizes))
    ]
    if told[0] is None:
        raise StuckError("its shape does not fit the fixed size")
    fits = None if None in told else list(zip(*(sizes for sizes in told if sizes), strict=True))
    computed = any(moves(row) for row in rows)
    if computed and fits is not None:
        yield AS_IT_IS
    small = any(f[0] == 1 and node.spatial(f) for dim in data.dims for f in dim.factors)
    for grouping in regroup(data.dims, told[0]):
        vectors = [dim.vector for dim in grouping.dims]
        if any(moves(row) and row != v for row, v in zip(rows, vectors, strict=True)):
            continue
        sure = grouping.sure and not small
        if vectors == fits:
            yield Edit(dims=grouping.dims, sure=sure)
        else:
            operand = Numbers(grouping.dims)
            yield Edit(operands={1: operand}, dims=grouping.dims, sure=sure)


def _expand(node: Node) -> Iterator[Edit]:
    """Expand: a number is the size itself, batch, or a size met before; 1 keeps what is there."""
    data, rows = node.input(0), node.rows(1)
    if data is None or rows is None:
        yield AS_IT_IS
        return
    offset = len(rows) - len(data.dims)
    choices: list[list[Dim | Vector]] = []
    for i, row in enumerate(rows):
        dim = data.dims[i - offset] if i >= offset else node.worlds.constant(1)
        if moves(row) or (dim.vector[0] != 1 and not dim.moves):
            choices.append([row])
        elif dim.moves:
            choices.append([node.worlds.constant(1)])
        else:
            choices.append(_meanings(node, row, i, len(rows)))
    yield from _combinations(node, 1, rows, choices)


def _filled(node: Node) -> Iterator[Edit]:
    """ConstantOfShape: as Expand of a single number."""
    rows = node.rows(0)
    if rows is None:
        yield AS_IT_IS
        return
    choices = [
        [row] if moves(row) else _meanings(node, row, i, len(rows)) for i, row in enumerate(rows)
    ]
    yield from _combinations(node, 0, rows, choices)


def _tile(node: Node) -> Iterator[Edit]:
    data, rows = node.input(0), node.rows(1)
    if data is None or rows is None:
        yield AS_IT_IS
        return
    choices = [
        [row] if moves(row) or dim.vector[0] != 1 or dim.moves
        else _meanings(node, row, i, len(rows))
        for i, (row, dim) in enumerate(zip(rows, data.dims, strict=True))
    ]  # fmt: skip
    yield from _combinations(node, 1, rows, choices)


def _meanings(node: Node, row: Vector, axis: int, rank: int) -> list[Dim | Vector]:
    """What a size can mean: itself, the batch, or a size met before."""
    batch = node.worlds.axis(BATCH)
    if row[0] == 1:
        return [row, batch] if node.worlds.base[0] == 1 and BATCH in node.worlds.free else [row]
    met: list[Dim | Vector] = list(node.seen.get(row[0], ()))
    if axis == 0 or (rank == 4 and axis >= 2):
        return [*met, row]
    return [row, *met]


def _combinations(
    node: Node, index: int, rows: Sequence[Vector], choices: Sequence[Sequence[Dim | Vector]]
) -> Iterator[Edit]:
    for chosen in itertools.product(*choices):
        operand = node.numbers(chosen)
        if [dim.vector for dim in operand.dims] == list(rows):
            yield AS_IT_IS
        else:
            sure = all(dim.vector[0] == 1 or not node.spatial(dim.vector) for dim in operand.dims)
            yield Edit(operands={index: operand}, sure=sure)


def _slice(node: Node) -> Iterator[Edit]:
    data = node.input(0)
    by_input = node.opset >= 10
    starts = node.rows(1) if by_input else _rows_of(node, "starts")
    ends = node.rows(2) if by_input else _rows_of(node, "ends")
    axes = node.rows(3) if by_input else _rows_of(node, "axes")
    if data is None or starts is None or ends is None:
        yield AS_IT_IS
        return
    numbers = [axis[0] for axis in axes] if axes else range(len(starts))
    dims = [data.dims[axis] for axis in numbers]
    first = [_bounds(node, row, dim, by_input) for row, dim in zip(starts, dims, strict=True)]
    last = [_bounds(node, row, dim, by_input) for row, dim in zip(ends, dims, strict=True)]
    for chosen in itertools.product(*first, *last):
        sure = all(certain for _, certain in chosen)
        bounds = [bound for bound, _ in chosen]
        new = (node.numbers(bounds[: len(starts)]), node.numbers(bounds[len(starts) :]))
        edit: dict[int, Operand] = {}
        attributes: dict[str, list[int]] = {}
        for i, (rows, operand) in enumerate(zip((starts, ends), new, strict=True)):
            vectors = [dim.vector for dim in operand.dims]
            if vectors != list(rows):
                edit[i + 1] = operand
                attributes["ends" if i else "starts"] = [vector[0] for vector in vectors]
        if by_input:
            yield Edit(operands=edit, sure=sure)
        else:
            yield Edit(attributes=attributes, sure=sure)


def _rows_of(node: Node, attribute: str) -> list[Vector] | None:
    told = node.attribute(attribute)
    return [(n,) * len(node.worlds.sizes) for n in told] if isinstance(told, list) else None


def _bounds(node: Node, row: Vector, dim: Dim, may_move: bool) -> list[tuple[int | Vector, bool]]:
    """What the end of a Slice can mean, and whether that is sure."""
    bound, whole = row[0], dim.vector[0]
    if moves(row) or not dim.moves or bound <= 0 or bound >= _ALL:
        return [(row, True)]
    if bound >= whole:
        return [(_TO_THE_END, True)]
    from_end: tuple[int | Vector, bool] = (bound - whole, False)
    found: list[tuple[int | Vector, bool]] = [(row, False), from_end]
    if 2 * bound > whole:
        found.reverse()
    part = _scaled(dim, Fraction(bound, whole))
    if may_move and part is not None:
        found.append((part, False))
    return found


def _scaled(dim: Dim, factor: Fraction) -> Vector | None:
    numbers = [n * factor for n in dim.vector]
    return tuple(int(n) for n in numbers) if all(n.denominator == 1 for n in numbers) else None


def _split(node: Node) -> Iterator[Edit]:
    data = node.input(0)
    by_input = node.opset >= 13
    rows = node.rows(1) if by_input else _rows_of(node, "split")
    axis = node.attribute("axis")
    if data is None or rows is None or not isinstance(axis or 0, int):
        yield AS_IT_IS
        return
    dim = data.dims[axis if isinstance(axis, int) else 0]
    if not dim.moves or any(moves(row) for row in rows):
        yield AS_IT_IS
        return
    sizes = [row[0] for row in rows]
    if len(set(sizes)) == 1:
        if not by_input:
            yield Edit(attributes={"split": None}, sure=len(sizes) == 1)
        else:
            count = {"num_outputs": len(sizes)} if node.opset >= 18 else {}
            yield Edit(operands={1: None}, attributes=count, sure=len(sizes) == 1)
    if by_input:
        for grows in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            others = sum(sizes) - sizes[grows]
            chosen: list[int | Vector] = list(sizes)
            chosen[grows] = tuple(n - others for n in dim.vector)
            yield Edit(operands={1: node.numbers(chosen)}, sure=False)


def _resize(node: Node) -> Iterator[Edit]:
    data, rows = node.input(0), node.rows(3)
    if data is None or not rows:
        yield AS_IT_IS
        return
    axes = node.attribute("axes")
    numbers = axes if isinstance(axes, list) else range(len(rows))
    choices: list[list[Dim | Vector]] = []
    for row, axis in zip(rows, numbers, strict=True):
        dim = data.dims[axis]
        part = _scaled(dim, Fraction(row[0], dim.vector[0]))
        grows = dim.moves and not moves(row) and part is not None
        choices.append([dim if part == dim.vector else part, row] if grows and part else [row])
    for edit in _combinations(node, 3, rows, choices):
        yield _by_scales(edit, data, list(numbers))


def _by_scales(edit: Edit, data: Value, axes: Sequence[int]) -> Edit:
    """Sizes as scales, where these are exact and leave no number to compute."""
    sizes = edit.operands.get(3)
    if not isinstance(sizes, Numbers):
        return edit
    scales = []
    for size, axis in zip(sizes.dims, axes, strict=True):
        before = data.dims[axis].vector
        scale = Fraction(size.vector[0], before[0])
        exact = scale.denominator & (scale.denominator - 1) == 0
        if not exact or _scaled(data.dims[axis], scale) != size.vector:
            return edit
        scales.append(float(scale))
    return Edit(operands={2: Spread(np.array(scales, np.float32)), 3: None}, sure=edit.sure)


def _pool(node: Node) -> Iterator[Edit]:
    """A window as large as the fixed size is global pooling."""
    kernel, data = node.attribute("kernel_shape"), node.input(0)
    if isinstance(kernel, list) and data is not None:
        dims = data.dims[2:]
        unpadded = not any(node.attribute("pads") or [0])  # type: ignore[arg-type]
        if unpadded and kernel == [d.vector[0] for d in dims] and any(d.moves for d in dims):
            names = [attribute.name for attribute in node.proto.attribute]
            yield Edit(
                op_type=f"Global{node.proto.op_type}", attributes=dict.fromkeys(names), sure=False
            )
    yield AS_IT_IS


def _gather(node: Node) -> Iterator[Edit]:
    """A constant index along a height or width is for the fixed size, as far as anyone can tell."""
    data, axis = node.input(0), node.attribute("axis")
    dim = data.dims[axis if isinstance(axis, int) else 0] if data and data.dims else None
    yield Edit(sure=dim is None or not node.spatial(dim.vector))


def _concat(node: Node) -> Iterator[Edit]:
    """A constant plane that is joined on: repeated to the size of its neighbour."""
    yield AS_IT_IS
    axis = node.attribute("axis")
    assert isinstance(axis, int)
    neighbour = next((value for value in node.inputs if value and value.moves), None)
    for i in range(len(node.inputs)):
        array = _constant(node, i)
        if neighbour is None or array is None or array.ndim != len(neighbour.dims):
            continue
        dims = list(neighbour.dims)
        dims[axis] = node.worlds.constant(array.shape[axis])
        seed = collapse(array)
        fits = all(n == 1 or not dim.moves for n, dim in zip(seed.shape, dims, strict=True))
        if fits and array.shape == tuple(dim.vector[0] for dim in dims):
            yield Edit(operands={i: Spread(seed, tuple(dims))})


def _collapsed(node: Node) -> Iterator[Edit]:
    """A constant that repeats itself over the fixed size is broadcast instead."""
    for i in range(len(node.inputs)):
        array = _constant(node, i)
        if array is not None and collapse(array).shape != array.shape:
            yield Edit(operands={i: Spread(collapse(array))})


def _constant(node: Node, index: int) -> Array | None:
    tensor = node.constants(node.proto.input[index])
    return None if tensor is None else numpy_helper.to_array(tensor)


_RULES: dict[str, Callable[[Node], Iterator[Edit]]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Tile": _tile,
    "Slice": _slice,
    "Split": _split,
    "Resize": _resize,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Gather": _gather,
    "Concat": _concat,
}
_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "PRelu"}
