"""What a Reshape with known numbers does to dimensions: a hypothesis for every group of factors.

A Reshape keeps the order in memory, so each new dimension is a run of the old factors, in order.
Only two things are open: which part of a height or width that is split in two grows with it, and to
which side a factor goes that happens to be 1 (a batch of one image).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from srpipe.models.freeing.worlds import Dim, Vector, moves

_Group = tuple[Vector, ...]


@dataclass(frozen=True, slots=True)
class Grouping:
    """The dimensions after a Reshape."""

    dims: tuple[Dim, ...]
    sure: bool
    """Nothing was split that could have been split otherwise."""


def regroup(dims: Sequence[Dim], sizes: Sequence[int]) -> Iterator[Grouping]:
    """The ways in which ``dims`` become dimensions of ``sizes`` in world 0, likeliest first."""
    ones = (1,) * len(dims[0].factors[0])
    factors = _simplified(dims)
    for groups, sure in _walk(factors, tuple(sizes)):
        yield Grouping(tuple(Dim(group or (ones,)) for group in groups), sure)


def regroup_exactly(dims: Sequence[Dim], vectors: Sequence[Vector]) -> tuple[Dim, ...]:
    """``vectors`` as dimensions that keep the factors of ``dims`` where their order can be seen."""
    for grouping in regroup(dims, [vector[0] for vector in vectors]):
        if [dim.vector for dim in grouping.dims] == list(vectors):
            return grouping.dims
    return tuple(Dim((vector,)) for vector in vectors)


def _simplified(dims: Sequence[Dim]) -> _Group:
    """All factors in order, without ones, and with neighbouring constants multiplied."""
    simple: list[Vector] = []
    for factor in (factor for dim in dims for factor in dim.factors):
        if not moves(factor):
            if factor[0] == 1:
                continue
            if simple and not moves(simple[-1]):
                simple[-1] = _times(simple[-1], factor)
                continue
        simple.append(factor)
    return tuple(simple)


def _walk(rest: _Group, sizes: tuple[int, ...]) -> Iterator[tuple[list[_Group], bool]]:
    if not sizes:
        if not rest:
            yield [], True
        return
    for group, left, sure in _take(rest, sizes[0], fresh=True):
        if len(sizes) == 1 and left:
            if any(factor[0] != 1 for factor in left):
                continue
            group, left = group + left, ()
        for groups, sure_too in _walk(left, sizes[1:]):
            yield [group, *groups], sure and sure_too


def _take(rest: _Group, size: int, fresh: bool) -> Iterator[tuple[_Group, _Group, bool]]:
    """The runs at the head of ``rest`` whose product is ``size``: run, rest, and whether it is sure."""
    if size == 1:
        yield from _take_ones(rest, fresh)
        return
    if not rest:
        return
    head, tail = rest[0], rest[1:]
    if size % head[0] == 0:
        for group, left, sure in _take(tail, size // head[0], fresh=False):
            yield (head, *group), left, sure
    elif head[0] % size == 0:
        inner = head[0] // size
        if not moves(head):
            yield (_like(head, size),), (_like(head, inner), *tail), True
            return
        # A part that stays near (a window, a block of pixels) is the inner one.
        if _divides(inner, head):
            yield (_over(head, inner),), (_like(head, inner), *tail), False
        if _divides(size, head):
            yield (_like(head, size),), (_over(head, size), *tail), False


def _take_ones(rest: _Group, fresh: bool) -> Iterator[tuple[_Group, _Group, bool]]:
    """As :func:`_take`, for a run of 1; a fresh one would rather have a factor than none."""
    ones = next((i for i, factor in enumerate(rest) if factor[0] != 1), len(rest))
    counts = [*range(1, ones + 1)]
    counts.insert(1 if fresh else 0, 0)
    for count in counts:
        if count <= ones:
            yield rest[:count], rest[count:], True
    if fresh and not ones and rest and moves(rest[0]) and _divides(rest[0][0], rest[0]):
        size = rest[0][0]
        yield (_over(rest[0], size),), (_like(rest[0], size), *rest[1:]), False


def _times(a: Vector, b: Vector) -> Vector:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _like(vector: Vector, number: int) -> Vector:
    return (number,) * len(vector)


def _divides(number: int, vector: Vector) -> bool:
    return all(n % number == 0 for n in vector)


def _over(vector: Vector, number: int) -> Vector:
    return tuple(n // number for n in vector)
