"""Puts the conversion from an image's integers to a model's numbers into its graph.

A quarter of the bytes then travel to a GPU, and the CPU need not divide. The graph looks every integer
up in a table of what :meth:`srpipe.plan.colour.ColourPath.pack` makes of it, so that the result is the
same to the last bit; arithmetic in the graph would be optimised further in half precision.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.io.external_data import has_links
from srpipe.models.graph import load_graph
from srpipe.plan.model_info import ModelInfo

_PIXELS = "srpipe.pixels"


def take_integers(
    model: ModelInfo,
    table: npt.NDArray[np.floating],
    content: bytes | None = None,
    *,
    signed: bool = False,
) -> bytes:
    """A model that takes an image's integers as they are, serialized.

    Its only input has another name than before. Weights that the file keeps in others stay there.

    Args:
        model: the model.
        table: what it is to see for every integer of 8 or 16 bits, in the model's own precision.
        content: the graph, serialized, where it is not the one in the model's file.
        signed: the integers are; the table has the negative ones at its end.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        if content is None:  # beside a graph in memory, ONNX Runtime finds no weights by links
            whole = load_graph(model.path, external=has_links(model.path))
        else:
            whole = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{model.path} cannot be loaded as an ONNX model: {error}") from None
    port = next(port for port in whole.graph.input if port.name == model.input_name)
    # The old name is now what the table gives: whatever uses it, in subgraphs too, can stay.
    port.name = _PIXELS
    port.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(
        np.dtype(f"{'' if signed else 'u'}int{len(table).bit_length() - 1}")
    )
    indices, values = f"{_PIXELS}.indices", f"{_PIXELS}.table"
    nodes = [
        helper.make_node("Constant", [], [values], value=numpy_helper.from_array(table)),
        helper.make_node("Cast", [_PIXELS], [indices], to=TensorProto.INT32),
        helper.make_node("Gather", [values, indices], [model.input_name], axis=0),
    ]
    for node in reversed(nodes):
        whole.graph.node.insert(0, node)
    return bytes(whole.SerializeToString())
