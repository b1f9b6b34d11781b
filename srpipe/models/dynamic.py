"""Makes a model for one batch or one size take any: declared sizes, and numbers baked into the graph.

The graph is read at several sizes at once (``freeing.worlds``), every baked number gets the meanings it
can have (``freeing.readings``) until none contradicts another (``freeing.search``), the numbers are
replaced (``freeing.writer``), and the result is proven by running it (``freeing.proof``).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner

from srpipe.errors import ModelError
from srpipe.models.freeing.as_it_is import takes_any
from srpipe.models.freeing.ports import Port, declared_dims, find_ports
from srpipe.models.freeing.proof import Proof
from srpipe.models.freeing.search import NodeError, read_graph
from srpipe.models.freeing.worlds import BATCH, HEIGHT, WIDTH, Worlds
from srpipe.models.freeing.writer import write_reading
from srpipe.models.trial import Trial
from srpipe.models.verify import Runner

_FREE_PX = (64, 128, 192, 256)
_MOST_PROOFS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A model whose batch is free, and what else is."""

    model: onnx.ModelProto
    """Its free dimensions are called batch, height and width, unless all were free and it stays as it
    is."""
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
        ModelError: ONNX Runtime refuses it; no image-to-image model; or the batch cannot be freed,
            with the node in the way.
    """
    Trial(model)  # what ONNX Runtime refuses, it explains best
    plain = onnx.inliner.inline_local_functions(model) if model.functions else model
    found, reason = None, None
    for port in find_ports(plain):
        try:
            freed = _free_as(plain, port)
        except ModelError as error:
            reason = reason or error
            continue
        if freed.size:
            return freed
        found = found or freed
    if found is None:
        assert reason is not None
        raise reason
    return found


def _free_as(plain: onnx.ModelProto, port: Port) -> Freed:
    """Free a model that is called in one way.

    Raises:
        ModelError: it cannot be freed, or not be called in this way.
    """
    given = next(value for value in plain.graph.input if value.name == port.input_name)
    dims = declared_dims(given)
    declared = [dims[axis] for axis in port.axes]
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
    if not any(declared) and takes_any(plain, port, base):
        return Freed(model=_at_size(plain, port, None), size=True, reason="", rewritten=())
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


def _working_size(
    model: onnx.ModelProto, port: Port, declared: Sequence[int | None]
) -> tuple[int, int, int]:
    """Batch, height and width at which the model runs, as declared where they are fixed."""
    batch = declared[BATCH] or 1
    free = any(declared[axis] is None for axis in (HEIGHT, WIDTH))
    runner = Runner(model.SerializeToString()) if free else None
    for tried in _FREE_PX:
        base = (batch, declared[HEIGHT] or tried, declared[WIDTH] or tried)
        if runner is None:
            return base
        shape = [port.channels] * 4
        for axis, size in zip(port.axes, base, strict=True):
            shape[axis] = size
        if runner.try_run(np.zeros(shape, np.float32)) is not None:
            return base
    raise ModelError(
        f"the model runs at none of the sizes {', '.join(map(str, _FREE_PX))} px: fix its height and "
        "width at one that it takes."
    )


def _at_size(
    model: onnx.ModelProto, port: Port, base: tuple[int, int, int] | None
) -> onnx.ModelProto:
    """A copy that declares its channels, and one size where it is given."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    given = next(value for value in fixed.graph.input if value.name == port.input_name)
    dims = given.type.tensor_type.shape.dim
    dims[port.channel_axis].dim_value = port.channels
    if base is not None:
        for axis, size in zip(port.axes, base, strict=True):
            dims[axis].dim_value = size
    return fixed
