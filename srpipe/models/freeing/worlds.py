"""One graph at several input sizes at once: every dimension is a vector, one number per size.

World 0 is the size the model was exported for. The others move batch, height and width apart, by steps
that share no measure with anything in a graph, so that a dimension's vector tells what it depends on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

Vector = tuple[int, ...]
"""One number per world."""

AXES = ("batch", "height", "width")
BATCH, HEIGHT, WIDTH = range(3)

# The steps of sizes are multiples of every plausible window and stride, so that all of them divide.
_STEPS = (1009, 40320, 80640)


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension as the product of factors, in the order in which they lie in memory."""

    factors: tuple[Vector, ...]

    @property
    def vector(self) -> Vector:
        """The dimension's number in each world."""
        return tuple(math.prod(column) for column in zip(*self.factors, strict=True))

    @property
    def moves(self) -> bool:
        """Whether it depends on batch, height or width."""
        return any(moves(factor) for factor in self.factors)


def moves(vector: Vector) -> bool:
    """Whether a number is not the same in every world."""
    return any(number != vector[0] for number in vector)


@dataclass(frozen=True, slots=True)
class Formula:
    """``coefficient`` times the product of (axis + offset)."""

    coefficient: Fraction
    terms: tuple[tuple[int, Fraction], ...]
    """Axis (an index into ``AXES``) and offset, in the order of ``AXES``."""


@dataclass(frozen=True, slots=True)
class Worlds:
    """The sizes at which a graph is looked at."""

    base: tuple[int, int, int]
    """Batch, height and width of world 0."""
    free: tuple[int, ...]
    """The axes that move, in the order of ``AXES``."""

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Batch, height and width of every world: two that move each free axis, one that moves all."""
        moved = [
            tuple(n + step * _STEPS[i] * (i == axis) for i, n in enumerate(self.base))
            for axis in self.free
            for step in (1, 2)
        ]
        together = tuple(n + _STEPS[i] * (i in self.free) for i, n in enumerate(self.base))
        return [self.base, *moved, together]

    def axis(self, index: int) -> Dim:
        """Batch, height or width of the input."""
        return Dim((tuple(size[index] for size in self.sizes),))

    def constant(self, number: int) -> Dim:
        """A dimension that is the same in every world."""
        return Dim(((number,) * len(self.sizes),))

    def depends(self, vector: Vector, axis: int) -> bool:
        """Whether a number changes with an axis."""
        return axis in self.free and vector[1 + 2 * self.free.index(axis)] != vector[0]

    def fit(self, vector: Vector) -> Formula | None:
        """The formula of a dimension; None if it is no product of linear terms.

        It is exact for all sizes that differ from world 0 by multiples of its denominator.
        """
        coefficient, terms = Fraction(vector[0]), []
        for i, axis in enumerate(self.free):
            first, second = vector[1 + 2 * i], vector[2 + 2 * i]
            slope = first - vector[0]
            if second - first != slope:
                return None
            if slope:
                root = Fraction(vector[0] * _STEPS[axis], slope)
                if not root:
                    return None
                coefficient /= root
                terms.append((axis, root - self.base[axis]))
        formula = Formula(coefficient, tuple(terms))
        for number, size in zip(vector, self.sizes, strict=True):
            predicted = coefficient * math.prod(size[axis] + offset for axis, offset in terms)
            if predicted != number:
                return None
        return formula
