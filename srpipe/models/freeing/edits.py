"""What may be changed on a node so that it stops being for one size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from srpipe.models.freeing.inference import Array, Rules, Value
from srpipe.models.freeing.worlds import Dim


@dataclass(frozen=True, slots=True)
class Numbers:
    """An int64 list in the place of an input: dimensions, which may move."""

    dims: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """A constant in the place of an input, repeated to dimensions where they are given."""

    array: Array
    dims: tuple[Dim, ...] | None = None


Operand = Numbers | Spread


@dataclass(frozen=True, slots=True)
class Edit:
    """One way to read a node; without fields: as it is."""

    operands: Mapping[int, Operand | None] = field(default_factory=dict)
    """By the input's position; None leaves it out."""
    attributes: Mapping[str, int | list[int] | None] = field(default_factory=dict)
    """New values; None removes one."""
    op_type: str | None = None
    dims: tuple[Dim, ...] | None = None
    """Of the result, where more is known than its numbers."""
    sure: bool = True
    """No other reading would give the same numbers at the fixed height and width."""

    @property
    def changes(self) -> bool:
        """Whether the node is rewritten at all."""
        return bool(self.operands or self.attributes or self.op_type)


AS_IT_IS = Edit()


def operand_value(operand: Operand, rules: Rules) -> Value:
    """What the node sees at an edited input."""
    if isinstance(operand, Numbers):
        return rules.numbers(operand.dims)
    plain = rules.array(operand.array)
    return plain if operand.dims is None else Value(plain.dtype, operand.dims, None)


def collapse(array: Array) -> Array:
    """An array with every axis along which it does not change cut down to 1."""
    for axis, length in enumerate(array.shape):
        first = array.take([0], axis)
        if length > 1 and np.array_equal(array, np.broadcast_to(first, array.shape)):
            array = first
    return array
