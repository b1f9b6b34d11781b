"""Puts the conversion from an image's integers to a model's numbers into its graph.

A quarter of the bytes then travel to a GPU, and the CPU need not divide. The nodes compute what
:meth:`srpipe.plan.colour.ColourPath.pack` computes, in the same order and precision, so that the result
is the same to the last bit.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.plan.model_info import ModelInfo

_TYPES = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}
# From it on, Div repeats a constant over an image by itself.
_LEAST_OPSET = 7
_PIXELS = "srpipe.pixels"


def take_integers(model: ModelInfo, dtype: Literal["uint8", "uint16"]) -> bytes:
    """A model that takes an image's integers as they are, serialized.

    Its only input has another name than before. Weights that the file keeps in others stay there.

    Args:
        model: the model.
        dtype: of the image.

    Raises:
        ModelError: the file cannot be read, or is too old for it.
    """
    try:
        graph_file = onnx.load(model.path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{model.path} cannot be loaded as an ONNX model: {error}") from None
    opset = next((o.version for o in graph_file.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        raise ModelError(
            f"{model.path} is of ONNX operator set {opset}, too old to take integers: use "
            "--transfer float."
        )
    graph = graph_file.graph
    port = next(port for port in graph.input if port.name == model.input_name)
    nodes = _conversion(model, np.iinfo(dtype).max)
    # The old name is now what the conversion gives: whatever uses it, in subgraphs too, can stay.
    port.name = _PIXELS
    port.type.tensor_type.elem_type = _TYPES[dtype]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return bytes(graph_file.SerializeToString())


def _conversion(model: ModelInfo, most: int) -> list[onnx.NodeProto]:
    """Nodes from the integers to what the model took before."""
    as_float, white, unit = (f"{_PIXELS}.{part}" for part in ("float", "white", "unit"))
    half = model.dtype == "float16"
    divided = unit if half else model.input_name
    divisor = numpy_helper.from_array(np.array(most / model.value_range, np.float32))
    nodes = [
        helper.make_node("Cast", [_PIXELS], [as_float], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], [white], value=divisor),
        helper.make_node("Div", [as_float, white], [divided]),
    ]
    if half:
        nodes.append(helper.make_node("Cast", [unit], [model.input_name], to=TensorProto.FLOAT16))
    return nodes
