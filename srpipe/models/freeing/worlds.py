"""One graph at several input sizes at once: every dimension is a vector, one number per size.

World 0 is the size the model was exported for. The others move batch, height and width apart, by steps
that share no measure with anything in a graph, so that a dimension's vector tells what it depends on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from operator import mul

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
    vector: Vector = field(init=False, compare=False)
    """The dimension's number in each world."""

    def __post_init__(self) -> None:
        vector = self.factors[0]
        for factor in self.factors[1:]:
            vector = tuple(map(mul, vector, factor))
        object.__setattr__(self, "vector", vector)

    @property
    def moves(self) -> bool:
        """Whether it depends on batch, height or width."""
        return moves(self.vector)


def moves(vector: Vector) -> bool:
    """Whether a number is not the same in every world."""
    return vector.count(vector[0]) != len(vector)


@dataclass(frozen=True, slots=True)
class Formula:
    """``coefficient`` times the product of (axis + offset), plus ``added``."""

    coefficient: Fraction
    terms: tuple[tuple[int, Fraction], ...]
    """Axis (an index into ``AXES``) and offset, in the order of ``AXES``."""
    added: int = 0


@dataclass(frozen=True, slots=True)
class Worlds:
    """The sizes at which a graph is looked at."""

    base: tuple[int, int, int]
    """Batch, height and width of world 0."""
    free: tuple[int, ...]
    """The axes that move, in the order of ``AXES``."""
    sizes: list[tuple[int, ...]] = field(init=False, compare=False)
    """Batch, height and width of every world: two that move each free axis, one that moves all."""

    def __post_init__(self) -> None:
        moved = [
            tuple(n + step * _STEPS[i] * (i == axis) for i, n in enumerate(self.base))
            for axis in self.free
            for step in (1, 2)
        ]
        together = tuple(n + _STEPS[i] * (i in self.free) for i, n in enumerate(self.base))
        object.__setattr__(self, "sizes", [self.base, *moved, together])

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
        """The formula of a dimension; None if it is none of these.

        It is exact for all sizes that differ from world 0 by multiples of its denominator.
        """
        formula = self._fit_product(vector)
        if formula is not None or HEIGHT not in self.free or WIDTH not in self.free:
            return formula
        # Tokens of an image and one more: (v - added) is a product.
        tall, wide = (vector[1 + 2 * self.free.index(axis)] for axis in (HEIGHT, WIDTH))
        bend = vector[0] + vector[-1] - tall - wide
        added = Fraction(vector[0] * vector[-1] - tall * wide, bend) if bend else Fraction(1, 2)
        if added.denominator != 1:
            return None
        formula = self._fit_product(tuple(n - int(added) for n in vector))
        return formula and replace(formula, added=int(added))

    def _fit_product(self, vector: Vector) -> Formula | None:
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
        for number, size in zip(vector, self.sizes, strict=True):
            if number != coefficient * math.prod(size[axis] + offset for axis, offset in terms):
                return None
        return Formula(coefficient, tuple(terms))
