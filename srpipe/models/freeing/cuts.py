"""Readings of nodes that cut a tensor: what a baked place along a height or width can mean."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

from srpipe.models.freeing.edits import AS_IT_IS, Edit, Operand
from srpipe.models.freeing.node import Node, scaled
from srpipe.models.freeing.worlds import Dim, Vector, moves

# Larger ends of a Slice mean "to the end", smaller than the negative "to the start".
_ALL = 2**31 - 1
_TO_THE_END = 2**63 - 1


def slice_(node: Node) -> Iterator[Edit]:
    """Slice: a bound counts from the start, from the end, or as a share of the whole."""
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
    part = scaled(dim, Fraction(bound, whole))
    if may_move and part is not None:
        found.append((part, False))
    return found


def split(node: Node) -> Iterator[Edit]:
    """Split of a height or width: equal parts, or one part that grows."""
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


def gather(node: Node) -> Iterator[Edit]:
    """A constant index along a height or width is for the fixed size, as far as anyone can tell."""
    data, axis = node.input(0), node.attribute("axis")
    dim = data.dims[axis if isinstance(axis, int) else 0] if data and data.dims else None
    yield Edit(sure=dim is None or not node.spatial(dim.vector))
