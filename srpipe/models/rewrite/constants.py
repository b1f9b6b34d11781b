"""Sizes that a graph computes although they never change, and all that follows from them.

Exporters write ``x.shape[1]`` as nodes that ask a tensor for its size. The number of channels is
known from the weights; what is computed from it alone can be computed once, and patterns behind it,
such as a cut in two halves, can be recognised.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto

from srpipe.models.fold import fold_constants
from srpipe.models.rewrite.editor import Editor, attribute

# Sizes that depend on sizes; more rounds than any model is known to need.
_MAX_ROUNDS = 8


def settle_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of the same function, in which what never changes is constant.

    Args:
        model: with all of its weights; it stays as it is.

    Raises:
        ModelError: ONNX Runtime does not take the graph.
    """
    settled = fold_constants(model)
    if settled is model:
        settled = onnx.ModelProto()
        settled.CopyFrom(model)
    for _ in range(_MAX_ROUNDS):
        graph = Editor(settled)
        found = _settle_sizes(graph)
        graph.finish()
        if not found:
            break
        settled = fold_constants(settled)
    return settled


def _settle_sizes(graph: Editor) -> int:
    """Make single dimensions that never change constant; returns how many there were."""
    known = {}
    for node in graph.nodes("Gather"):
        size = _size(graph, node)
        if size is not None:
            known[node.output[0]] = size
    for old, values in known.items():
        graph.rename(old, graph.stored(values))
    return len(known)


def _size(graph: Editor, node: NodeProto) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    shape = graph.maker(node.input[0], "Shape")
    index = graph.constant(node.input[1])
    if shape is None or index is None or index.size != 1 or attribute(node, "axis", 0) != 0:
        return None
    dims = graph.dims(shape.input[0])
    if dims is None or graph.users(node.output[0]) is None:
        return None
    asked = dims[slice(attribute(shape, "start", 0), attribute(shape, "end"))]
    place = int(index.flat[0])
    if not -len(asked) <= place < len(asked):
        return None
    size = asked[place]
    return None if size is None else np.full(index.shape, size, np.int64)
