"""The readings of a node: what its baked numbers can mean, likeliest first.

A reading that is wrong contradicts the shapes further down, or the runs that prove the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from onnx import numpy_helper

from srpipe.models.freeing.cuts import gather, slice_, split
from srpipe.models.freeing.edits import AS_IT_IS, Edit, Numbers, Spread, collapse
from srpipe.models.freeing.inference import Array, StuckError, allows_zero, resolve_shape
from srpipe.models.freeing.node import Node
from srpipe.models.freeing.regroup import regroup
from srpipe.models.freeing.spreads import constant_of_shape, expand, resize, tile
from srpipe.models.freeing.worlds import moves

_MOST_READINGS = 64


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


def _concat(node: Node) -> Iterator[Edit]:
    """A constant plane that is joined on: repeated to the size of its neighbour."""
    yield AS_IT_IS
    axis = node.attribute("axis")
    if not isinstance(axis, int):
        return
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
    "Expand": expand,
    "ConstantOfShape": constant_of_shape,
    "Tile": tile,
    "Slice": slice_,
    "Split": split,
    "Resize": resize,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Gather": gather,
    "Concat": _concat,
}
_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "PRelu"}
