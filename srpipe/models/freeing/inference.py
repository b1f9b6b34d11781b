"""Shapes of a node's results in every world, by ONNX's own rules; no weight is ever multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srpipe.errors import ModelError
from srpipe.models.freeing.regroup import regroup_exactly
from srpipe.models.freeing.worlds import AXES, BATCH, Dim, Vector, Worlds, moves

# Larger tensors are weights, not shapes.
_MOST_KNOWN = 4096
# Their rules leave open whether channels fit.
_CHANNELS_FIXED = {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization"}
_SHAPE_OPS = {"Shape", "Size"}

Array = npt.NDArray[Any]


class StuckError(Exception):
    """A node stands in the way; ``str`` says why, without naming it."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor."""

    dtype: int
    """ONNX's number of it."""
    dims: tuple[Dim, ...]
    data: tuple[Array, ...] | None
    """Its content in every world, of tensors that are small and follow from constants and shapes."""

    @property
    def vectors(self) -> list[Vector]:
        """The dimensions as numbers."""
        return [dim.vector for dim in self.dims]

    @property
    def moves(self) -> bool:
        """Whether the shape depends on batch, height or width."""
        return any(dim.moves for dim in self.dims)

    @property
    def constant(self) -> Array | None:
        """The content, if it is known and the same in every world."""
        if self.data is None or any(array is not self.data[0] for array in self.data):
            return None
        return self.data[0]


@dataclass(frozen=True, slots=True)
class Rules:
    """ONNX's rules at a model's version."""

    worlds: Worlds
    opsets: dict[str, int]
    ir_version: int
    products: dict[Vector, Dim] = field(default_factory=dict)
    """Dimensions of several factors met so far, to know them again after a detour."""

    def tensor(self, tensor: onnx.TensorProto) -> Value:
        """A constant.

        Raises:
            ModelError: it is damaged.
        """
        known = int(np.prod(tensor.dims, dtype=np.int64)) <= _MOST_KNOWN
        try:
            array = numpy_helper.to_array(tensor) if known else None
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"the constant {tensor.name!r} of {list(tensor.dims)} is damaged ({error}): export "
                "the model anew."
            ) from None
        return self._value(tensor.data_type, list(tensor.dims), array)

    def array(self, array: Array) -> Value:
        """A constant."""
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        return self._value(dtype, list(array.shape), array if array.size <= _MOST_KNOWN else None)

    def numbers(self, dims: Sequence[Dim]) -> Value:
        """An int64 list that holds dimensions."""
        columns = zip(*(dim.vector for dim in dims), strict=True)
        data = tuple(np.array(column, np.int64) for column in columns)
        if not any(dim.moves for dim in dims):
            data = (data[0],) * len(data)
        return Value(onnx.TensorProto.INT64, (self.worlds.constant(len(dims)),), data)

    def _value(self, dtype: int, shape: list[int], array: Array | None) -> Value:
        count = len(self.worlds.sizes)
        data = None if array is None else (array,) * count
        return Value(dtype, tuple(self.worlds.constant(n) for n in shape), data)

    def infer(
        self,
        node: onnx.NodeProto,
        inputs: Sequence[Value | None],
        dims: tuple[Dim, ...] | None = None,
    ) -> list[Value]:
        """The results of a node.

        Args:
            node: of any operator that ONNX defines.
            inputs: one for each of its inputs, None where it is left out.
            dims: of its one result, where more is known of it than its numbers.

        Raises:
            StuckError: its rule finds a contradiction, or it has none.
        """
        if node.op_type in _CHANNELS_FIXED and inputs[0] and inputs[0].dims[1].moves:
            raise StuckError("its weights are for another number of channels")
        if node.op_type == "Squeeze":
            self._check_squeeze(node, inputs)
        shapes = self._all_shapes(node, inputs)
        ranks = {tuple(len(shape) for _, shape in results) for results in shapes}
        if len(ranks) != 1:
            raise StuckError("the number of dimensions of its result depends on the size")
        data = self._all_data(node, inputs, shapes)
        values = []
        for i in range(len(shapes[0])):
            columns = [results[i][1] for results in shapes]
            vectors = list(zip(*columns, strict=True)) if columns[0] else []
            found = self._dims(node, vectors, inputs)
            if dims is not None and i == 0:
                if [dim.vector for dim in dims] != vectors:
                    raise StuckError("its numbers do not fit together")
                found = dims
            values.append(Value(shapes[0][i][0], found, data[i]))
            for dim in found:
                if len(dim.factors) > 1:
                    self.products.setdefault(dim.vector, dim)
        self._keeps_batch(node, inputs, values)
        return values

    def _dims(
        self, node: onnx.NodeProto, vectors: list[Vector], inputs: Sequence[Value | None]
    ) -> tuple[Dim, ...]:
        """Dimensions from their numbers, with the factors that an input has for the same numbers."""
        if node.op_type in ("Reshape", "Flatten") and inputs[0] is not None and inputs[0].dims:
            return regroup_exactly(inputs[0].dims, vectors)
        known = {dim.vector: dim for value in inputs if value for dim in value.dims}
        return tuple(
            known.get(vector) or self.products.get(vector) or Dim((vector,)) for vector in vectors
        )

    def _all_shapes(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None]
    ) -> list[list[tuple[int, tuple[int, ...]]]]:
        """Type and shape of each result, in each world."""
        done: dict[Any, list[tuple[int, tuple[int, ...]]]] = {}
        shapes = []
        for world in range(len(self.worlds.sizes)):
            key = self._key(inputs, world)
            if key not in done:
                done[key] = self._shapes(node, inputs, world)
            shapes.append(done[key])
        return shapes

    def _key(self, inputs: Sequence[Value | None], world: int) -> Any:
        return tuple(
            value
            and (
                tuple(vector[world] for vector in value.vectors),
                value.data and id(value.data[world]),
            )
            for value in inputs
        )

    def _shapes(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None], world: int
    ) -> list[tuple[int, tuple[int, ...]]]:
        types, data = {}, {}
        for name, value in zip(node.input, inputs, strict=True):
            if value is None:
                continue
            shape = [vector[world] for vector in value.vectors]
            types[name] = helper.make_tensor_type_proto(value.dtype, shape)
            if value.data is not None:
                data[name] = numpy_helper.from_array(value.data[world], name)
        if node.op_type == "Reshape":
            self._check_reshape(node, inputs, world)
        version = self.opsets.get(node.domain, 0)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
            opsets = [helper.make_opsetid(domain, n) for domain, n in self.opsets.items()]
            results = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, None, opsets, self.ir_version
            )
        except onnx.defs.SchemaError:
            raise StuckError(
                "it is no operator of ONNX, so its shapes cannot be followed"
            ) from None
        except onnx.checker.ValidationError as error:
            said = str(error).strip().splitlines()[0]
            raise StuckError(f"it is not as ONNX defines it ({said})") from None
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
            raise StuckError(self._contradiction(world, error)) from None
        return [self._shape(results.get(name)) for name in node.output if name]

    def _contradiction(self, world: int, error: Exception) -> str:
        pairs = zip(AXES, self.worlds.base, self.worlds.sizes[world], strict=True)
        moved = " and ".join(f"{axis} than {base}" for axis, base, size in pairs if size != base)
        if moved:
            return f"what it reads does not fit together at another {moved}"
        said = " ".join(str(error).split()).removeprefix("[ShapeInferenceError] ")
        return f"ONNX's rule for it fails ({said})"

    def _check_squeeze(self, node: onnx.NodeProto, inputs: Sequence[Value | None]) -> None:
        """A dimension that was 1 when the model was exported is taken away, and will not be 1."""
        data = inputs[0]
        told = [list(a.ints) for a in node.attribute if a.name == "axes"]
        if len(inputs) > 1 and inputs[1] is not None and inputs[1].constant is not None:
            told.append(inputs[1].constant.reshape(-1).tolist())
        if data is None:
            return
        ones = [i for i, dim in enumerate(data.dims) if dim.vector[0] == 1]
        for axis in told[0] if told else ones:
            for i, name in enumerate(AXES):
                if self.worlds.depends(data.dims[axis].vector, i):
                    raise StuckError(
                        f"it removes the {name}, which then can only be 1: export the model without it"
                    )

    def _check_reshape(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None], world: int
    ) -> None:
        data, shape = inputs
        if data is None or shape is None or shape.data is None:
            raise StuckError("its shape is computed from pixels")
        before = [vector[world] for vector in data.vectors]
        if resolve_shape(before, shape.data[world].tolist(), allows_zero(node)) is None:
            raise StuckError(f"its shape {shape.data[world].tolist()} does not fit {before}")

    def _shape(self, result: onnx.TypeProto | None) -> tuple[int, tuple[int, ...]]:
        tensor = result.tensor_type if result is not None else None
        if tensor is None or not tensor.HasField("shape"):
            raise StuckError("the shape of its result cannot be followed")
        dims = tensor.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            raise StuckError("the shape of its result cannot be followed")
        return tensor.elem_type, tuple(dim.dim_value for dim in dims)

    def _all_data(
        self,
        node: onnx.NodeProto,
        inputs: Sequence[Value | None],
        shapes: list[list[tuple[int, tuple[int, ...]]]],
    ) -> list[tuple[Array, ...] | None]:
        """The content of each result, where it follows from known content."""
        nothing: list[tuple[Array, ...] | None] = [None] * len(shapes[0])
        of_shape = node.op_type in _SHAPE_OPS
        known = all(value is None or of_shape or value.data is not None for value in inputs)
        small = all(np.prod(shape) <= _MOST_KNOWN for results in shapes for _, shape in results)
        if not known or not small or not (inputs or node.op_type == "Constant"):
            return nothing
        done: dict[Any, list[Array]] = {}
        for world in range(len(self.worlds.sizes)):
            key = self._key(inputs, world)
            if key not in done:
                done[key] = self._evaluate(node, inputs, world)
        keys = [self._key(inputs, world) for world in range(len(self.worlds.sizes))]
        return [tuple(done[key][i] for key in keys) for i in range(len(shapes[0]))]

    def _evaluate(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None], world: int
    ) -> list[Array]:
        if node.op_type in _SHAPE_OPS:
            assert inputs[0] is not None
            shape = np.array([vector[world] for vector in inputs[0].vectors], np.int64)
            if node.op_type == "Size":
                return [np.array(shape.prod(), np.int64)]
            told = {a.name: a.i for a in node.attribute}
            return [shape[told.get("start", 0) : told.get("end", len(shape))]]
        pairs = zip(node.input, inputs, strict=True)
        arrays = {name: value.data[world] for name, value in pairs if value and value.data}
        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in arrays.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        opsets = [helper.make_opsetid(domain, n) for domain, n in self.opsets.items()]
        try:
            model = helper.make_model(graph, opset_imports=opsets)
            return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, arrays)]
        except Exception as error:  # whatever the operator's Python raises
            raise StuckError(f"it cannot be computed ahead ({error})") from None

    def _keeps_batch(
        self, node: onnx.NodeProto, inputs: Sequence[Value | None], results: list[Value]
    ) -> None:
        """Find what loses the batch; shapes that become numbers are no loss."""
        if node.op_type in _SHAPE_OPS or not self._has_batch(inputs) or self._has_batch(results):
            return
        raise StuckError("it merges the images of a batch, or drops all but one")

    def _has_batch(self, values: Sequence[Value | None]) -> bool:
        return any(
            self.worlds.depends(vector, BATCH)
            for value in values
            if value
            for vector in value.vectors
        )


def allows_zero(node: onnx.NodeProto) -> bool:
    """Whether a 0 in a Reshape is a size rather than "as before"."""
    return any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)


def resolve_shape(before: Sequence[int], told: Sequence[int], zeros: bool) -> list[int] | None:
    """The sizes that a Reshape's numbers mean; None if they do not fit."""
    sizes = [
        before[i] if n == 0 and not zeros and i < len(before) else n for i, n in enumerate(told)
    ]
    whole = int(np.prod([*before], dtype=object))
    if -1 in sizes:
        rest = int(np.prod([n for n in sizes if n != -1], dtype=object))
        if not rest or whole % rest:
            return None
        sizes[sizes.index(-1)] = whole // rest
    return sizes if int(np.prod([*sizes], dtype=object)) == whole else None


def depends_on(value: Value, worlds: Worlds, axis: int) -> bool:
    """Whether a tensor's shape depends on an axis of the input."""
    return any(worlds.depends(vector, axis) for vector in value.vectors if moves(vector))
