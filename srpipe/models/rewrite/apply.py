"""The rewrites by name, and the graph that some of them make: always the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from srpipe.errors import ModelError
from srpipe.models.rewrite.constants import settle_constants
from srpipe.models.rewrite.editor import Editor
from srpipe.models.rewrite.gate import gate_by_two_convolutions
from srpipe.models.rewrite.halve import halve_by_convolution
from srpipe.models.rewrite.norm import norm_by_convolutions
from srpipe.models.rewrite.prelu import block_prelu
from srpipe.models.rewrite.shuffle import shuffle_by_transposing

REWRITES: dict[str, Callable[[Editor], int]] = {
    "prelu": block_prelu,
    "halve": halve_by_convolution,
    "norm": norm_by_convolutions,
    "gate": gate_by_two_convolutions,
    "shuffle": shuffle_by_transposing,
}
"""Each changes a graph in place and returns in how many places it did; in the order of use."""

# A rewritten graph is handed over as one message, which cannot exceed 2 GB.
_MAX_BYTES = 10**9
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def can_be_rewritten(model: onnx.ModelProto) -> bool:
    """Whether rewrites may be tried: a float32 graph of a size that can be handled.

    In integers a change in the last bit of one number may be a whole step of the next.
    """
    kinds = {port.type.tensor_type.elem_type for port in model.graph.input}
    return (
        onnx.TensorProto.FLOAT in kinds
        and onnx.TensorProto.FLOAT16 not in kinds
        and not model.functions
        and not any(node.op_type in _QUANTIZED for node in model.graph.node)
        and model.ByteSize() <= _MAX_BYTES
    )


def rewrite_graph(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    """A model with some rewrites, serialized.

    Args:
        model: the original with all of its weights; it stays as it is.
        names: keys of :data:`REWRITES`.

    Raises:
        ModelError: ONNX Runtime does not take the graph, or there is no such rewrite.
    """
    rewritten, _ = rewrite_settled(settle_constants(model), names)
    return bytes(rewritten.SerializeToString())


def rewrite_settled(settled: onnx.ModelProto, names: Sequence[str]) -> tuple[onnx.ModelProto, int]:
    """Apply rewrites, in the order of :data:`REWRITES`.

    Args:
        settled: a model whose constants are settled; it stays as it is.
        names: keys of :data:`REWRITES`.

    Returns:
        The new graph, and in how many places the last of the rewrites changed it.

    Raises:
        ModelError: there is no such rewrite.
    """
    if unknown := set(names) - REWRITES.keys():
        raise ModelError(f"there is no rewrite {', '.join(sorted(unknown))} in this srpipe.")
    rewritten, places = onnx.ModelProto(), 0
    rewritten.CopyFrom(settled)
    for name in REWRITES:
        if name in names:
            graph = Editor(rewritten)
            places = REWRITES[name](graph)
            graph.finish()
    return rewritten, places
