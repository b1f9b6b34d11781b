"""A node with what is known where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import onnx
from onnx import helper

from srpipe.models.freeing.edits import Numbers
from srpipe.models.freeing.inference import Value
from srpipe.models.freeing.worlds import HEIGHT, WIDTH, Dim, Vector, Worlds


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


def scaled(dim: Dim, factor: Fraction) -> Vector | None:
    """A dimension times a factor; None if that is not whole in every world."""
    numbers = [n * factor for n in dim.vector]
    return tuple(int(n) for n in numbers) if all(n.denominator == 1 for n in numbers) else None
