"""Where images go into a graph and come out, and in which layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from srpipe.errors import ModelError
from srpipe.io.model_port import likely_layouts
from srpipe.plan.model_info import MAX_CHANNELS, Layout

# Nodes after which every pixel and channel is still where it was.
_IN_PLACE = {
    "Add", "Cast", "Clip", "DequantizeLinear", "Div", "Identity", "Mul", "Pad", "QuantizeLinear", "Sub",
}  # fmt: skip
_AXES: dict[Layout, int] = {"NCHW": 1, "NHWC": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Where images go in and come out."""

    input_name: str
    output_name: str
    axes: tuple[int, int, int]
    """Positions of batch, height and width."""
    channels: int

    @property
    def channel_axis(self) -> int:
        """Position of the channels."""
        return 6 - sum(self.axes)


def find_ports(model: onnx.ModelProto) -> list[Port]:
    """The ways in which a model can be called, likeliest first.

    The first convolution tells which dimension holds the channels, and how many they are.

    Raises:
        ModelError: it takes no image.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = [
        value for value in model.graph.output if len(value.type.tensor_type.shape.dim) in (0, 4)
    ]
    dims = declared_dims(inputs[0]) if inputs else []
    if len(inputs) != 1 or len(dims) != 4 or not outputs:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(
            f"this is no image-to-image model (inputs: {names}): it needs one input and one output of "
            "four dimensions, batch, channels, height and width."
        )
    ways = _ways(model, inputs[0].name, dims)
    if not ways:
        raise ModelError(
            f"the model takes no image of 1 to {MAX_CHANNELS} channels (its input is "
            f"{[dim or 'any' for dim in dims]}): srpipe needs a model of grey, RGB or a few bands."
        )
    return [
        Port(
            input_name=inputs[0].name,
            output_name=outputs[0].name,
            axes=(0, 2, 3) if layout == "NCHW" else (0, 1, 2),
            channels=channels,
        )
        for layout, channels in ways
    ]


def declared_dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """The dimensions that the file declares, None where one is free."""
    return [
        dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim
    ]


def _ways(
    model: onnx.ModelProto, input_name: str, dims: Sequence[int | None]
) -> list[tuple[Layout, int]]:
    ways = likely_layouts(dims)
    told = [way for way in ways if dims[_AXES[way[0]]] is not None]
    known = _by_convolution(model, input_name)
    if known is None:
        return told or ways
    layout, channels = known
    channels = dims[_AXES[layout]] or channels
    if channels is None:
        return [way for way in ways if way[0] == layout]
    return [(layout, channels)] if channels <= MAX_CHANNELS else []


def _by_convolution(model: onnx.ModelProto, input_name: str) -> tuple[Layout, int | None] | None:
    """Layout, and channels if they can be read, that the first convolution of the input tells."""
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    # For each tensor that is still the input: which of its dimensions are where.
    order: dict[str, tuple[int, ...]] = {input_name: (0, 1, 2, 3)}
    for node in model.graph.node:
        told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in told:
            weights[node.output[0]] = list(told["value"].dims)
        source = next((name for name in node.input if name in order), None)
        if source is None:
            continue
        places = order[source]
        if node.op_type == "Conv":
            shape = weights.get(node.input[1])
            channels = shape[1] * told.get("group", 1) if shape else None
            layouts: dict[int, Layout] = {axis: layout for layout, axis in _AXES.items()}
            return (layouts[places[1]], channels) if places[1] in layouts else None
        if node.op_type == "Transpose":
            perm = told.get("perm", (3, 2, 1, 0))
            order[node.output[0]] = tuple(places[i] for i in perm)
        elif node.op_type in _IN_PLACE:
            order[node.output[0]] = places
    return None
