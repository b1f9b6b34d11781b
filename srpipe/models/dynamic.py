"""Makes a model for one batch or one size take any: declared sizes, and numbers baked into the graph.

The graph is read at several sizes at once (``freeing.worlds``), every baked number gets the meanings it
can have (``freeing.readings``) until none contradicts another (``freeing.search``), the numbers are
replaced (``freeing.writer``), and the result is proven by running it (``freeing.proof``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner

from srpipe.errors import ModelError
from srpipe.models.freeing.proof import Proof
from srpipe.models.freeing.search import NodeError, Port, read_graph
from srpipe.models.freeing.worlds import BATCH, HEIGHT, WIDTH, Worlds
from srpipe.models.freeing.writer import write_reading
from srpipe.models.verify import Runner

_FREE_PX = (64, 128, 192, 256)
_MOST_PROOFS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A model whose batch is free, and what else is."""

    model: onnx.ModelProto
    """Its free dimensions are called batch, height and width."""
    size: bool
    """Height and width are free too (in steps that the model's windows and strides ask for)."""
    reason: str
    """Why height and width stay fixed, with the node in the way; empty if they are free."""
    rewritten: tuple[str, ...]
    """Nodes that had numbers baked in; empty where only declared sizes were changed."""


def make_dynamic(model: onnx.ModelProto) -> Freed:
    """Free the batch of a model, and its height and width where that is sound.

    Args:
        model: one floating-point image in, NCHW or NHWC, one or more results out; left as it is.

    Returns:
        A new model. A batch of three was run and is the same as its images one by one; at the
        fixed size it is the same as the given model.

    Raises:
        ModelError: no image-to-image model; or the batch cannot be freed, with the node in the way.
    """
    plain = onnx.inliner.inline_local_functions(model) if model.functions else model
    port, declared = _read_port(plain)
    base = _working_size(plain, port, declared)
    original = _at_size(plain, port, base)
    already = [axis for axis in (HEIGHT, WIDTH) if declared[axis] is None]
    try:
        return _free(plain, original, port, Worlds(base, (BATCH, HEIGHT, WIDTH)))
    except NodeError as error:
        reason = str(error)
    if len(already) < 2:
        try:
            freed = _free(plain, original, port, Worlds(base, (BATCH, *already)))
        except NodeError as error:
            reason = str(error)
        else:
            return Freed(model=freed.model, size=False, reason=reason, rewritten=freed.rewritten)
    raise ModelError(f"the batch cannot be made free: {reason}.")


def _free(plain: onnx.ModelProto, original: onnx.ModelProto, port: Port, worlds: Worlds) -> Freed:
    """The first reading that its runs confirm.

    Raises:
        NodeError: there is none.
    """
    first: NodeError | None = None
    for reading in itertools.islice(read_graph(original, port, worlds), _MOST_PROOFS):
        try:
            model, rewritten = write_reading(original, port, worlds, reading)
            Proof(original, model, port, worlds, reading).check()
        except NodeError as error:
            first = first or error
            continue
        return Freed(model=model, size=True, reason="", rewritten=rewritten)
    assert first is not None
    raise first


def _read_port(model: onnx.ModelProto) -> tuple[Port, tuple[int | None, ...]]:
    """Where images go in and out, and the declared batch, height and width (None: free)."""
    if not model.graph.node:
        raise ModelError("the model has no nodes: it does nothing.")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = [
        value for value in model.graph.output if len(value.type.tensor_type.shape.dim) in (0, 4)
    ]
    dims = [
        dim.dim_value if dim.dim_value > 0 else None
        for value in inputs[:1]
        for dim in value.type.tensor_type.shape.dim
    ]
    if len(inputs) != 1 or len(dims) != 4 or not outputs:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(
            f"this is no image-to-image model (inputs: {names}): it needs one input and one output of "
            "four dimensions, batch, channels, height and width."
        )
    first, last = dims[1], dims[3]
    channels_last = last is not None and (first is None or last < first)
    axes = (0, 1, 2) if channels_last else (0, 2, 3)
    if dims[3 if channels_last else 1] is None:
        raise ModelError(
            "the model does not declare its channels: set that dimension of its input first."
        )
    port = Port(input_name=inputs[0].name, output_name=outputs[0].name, axes=axes)
    return port, tuple(dims[axis] for axis in axes)


def _working_size(
    model: onnx.ModelProto, port: Port, declared: tuple[int | None, ...]
) -> tuple[int, int, int]:
    """Batch, height and width at which the model runs, as declared where they are fixed."""
    batch = declared[BATCH] or 1
    free = any(declared[axis] is None for axis in (HEIGHT, WIDTH))
    runner = Runner(model.SerializeToString()) if free else None
    for tried in _FREE_PX:
        base = (batch, declared[HEIGHT] or tried, declared[WIDTH] or tried)
        if runner is None:
            return base
        shape = [dim or 1 for dim in runner.shape]
        for axis, size in zip(port.axes, base, strict=True):
            shape[axis] = size
        if runner.try_run(np.zeros(shape, np.float32)) is not None:
            return base
    raise ModelError(
        f"the model runs at none of the sizes {', '.join(map(str, _FREE_PX))} px: fix its height and "
        "width at one that it takes."
    )


def _at_size(model: onnx.ModelProto, port: Port, base: tuple[int, int, int]) -> onnx.ModelProto:
    """A copy that declares one size."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    given = next(value for value in fixed.graph.input if value.name == port.input_name)
    for axis, size in zip(port.axes, base, strict=True):
        given.type.tensor_type.shape.dim[axis].dim_value = size
    return fixed
