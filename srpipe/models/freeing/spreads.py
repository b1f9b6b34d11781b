"""Readings of nodes that spread a tensor to a size: Expand, ConstantOfShape, Tile, Resize."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from srpipe.models.freeing.edits import AS_IT_IS, Edit, Numbers, Spread
from srpipe.models.freeing.inference import Value
from srpipe.models.freeing.node import Node, scaled
from srpipe.models.freeing.worlds import BATCH, Dim, Vector, moves


def expand(node: Node) -> Iterator[Edit]:
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


def constant_of_shape(node: Node) -> Iterator[Edit]:
    """ConstantOfShape: as Expand of a single number."""
    rows = node.rows(0)
    if rows is None:
        yield AS_IT_IS
        return
    choices = [
        [row] if moves(row) else _meanings(node, row, i, len(rows)) for i, row in enumerate(rows)
    ]
    yield from _combinations(node, 0, rows, choices)


def tile(node: Node) -> Iterator[Edit]:
    """Tile: as Expand, where the repeated dimension is 1."""
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


def resize(node: Node) -> Iterator[Edit]:
    """Resize to sizes: the same share of what comes in, or the very size."""
    data, rows = node.input(0), node.rows(3)
    if data is None or not rows:
        yield AS_IT_IS
        return
    axes = node.attribute("axes")
    numbers = axes if isinstance(axes, list) else range(len(rows))
    choices: list[list[Dim | Vector]] = []
    for row, axis in zip(rows, numbers, strict=True):
        dim = data.dims[axis]
        part = scaled(dim, Fraction(row[0], dim.vector[0]))
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
        if not exact or scaled(data.dims[axis], scale) != size.vector:
            return edit
        scales.append(float(scale))
    return Edit(operands={2: Spread(np.array(scales, np.float32)), 3: None}, sure=edit.sure)


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
