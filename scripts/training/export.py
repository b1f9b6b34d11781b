"""Writing a trained network as an ONNX file, node by node.

The graph is built from the merged weights instead of being traced, so that it holds nothing but
convolutions, ReLU and one shuffle, and keeps batch, height and width free.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .network import NetworkSettings, Weights

_OPSET = 17
_IR_VERSION = 8


def build_model(
    settings: NetworkSettings, weights: Sequence[Weights], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """The ONNX model of the plain network: "input" (batch, 3, height, width) to "output".

    PyTorch's pixel shuffle takes the channels of one colour together (CRD), ONNX's default takes
    those of one sub-pixel together (DCR). The last convolution is permuted to DCR: then the
    repeated input is simply the input concatenated scale**2 times. Folding is permuted likewise.
    """
    nodes: list[onnx.NodeProto] = []
    initialisers: list[onnx.TensorProto] = []
    name = "input"
    if settings.fold > 1:
        nodes.append(
            helper.make_node("SpaceToDepth", ["input"], ["folded"], "fold", blocksize=settings.fold)
        )
        name = "folded"
    first = trunk = name
    for number, layer in enumerate(weights):
        is_last = number == len(weights) - 1
        kernel = layer.kernel.detach().cpu().numpy().astype(np.float32)
        bias = layer.bias.detach().cpu().numpy().astype(np.float32)
        if number == 0:
            kernel = kernel[:, _depth_first_order(settings.colours, settings.fold)]
        if is_last:
            order = _depth_first_order(settings.colours, settings.fold * settings.scale)
            kernel, bias = kernel[order], bias[order]
        initialisers.append(numpy_helper.from_array(kernel, f"kernel_{number}"))
        initialisers.append(numpy_helper.from_array(bias, f"bias_{number}"))
        inputs = [name, f"kernel_{number}", f"bias_{number}"]
        name = f"convolution_{number}"
        nodes.append(
            helper.make_node(
                "Conv", inputs, [name], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]
            )
        )
        if settings.residual and number and number % 2 == 0 and not is_last:
            nodes.append(helper.make_node("Add", [trunk, name], [f"sum_{number}"], f"sum_{number}"))
            name = trunk = f"sum_{number}"
        elif not is_last:
            nodes.append(helper.make_node("Relu", [name], [f"relu_{number}"], f"relu_{number}"))
            name = f"relu_{number}"
            trunk = name if number == 0 else trunk
    blocksize = settings.fold * settings.scale
    if settings.smooth:
        scales = np.array([1, 1, settings.scale, settings.scale], np.float32)
        initialisers.append(numpy_helper.from_array(scales, "scales"))
        nodes += [
            _shuffle(name, "detail", blocksize),
            helper.make_node("Resize", ["input", "", "scales"], ["base"], "enlarge", mode="linear"),
            helper.make_node("Add", ["detail", "base"], ["output"], "add"),
        ]
    else:
        if settings.scale > 1:
            inputs = [first] * settings.scale**2
            nodes.append(helper.make_node("Concat", inputs, ["repeated"], "repeat", axis=1))
            first = "repeated"
        nodes += [
            helper.make_node("Add", [name, first], ["sum"], "add"),
            _shuffle("sum", "output", blocksize),
        ]
    sides = ("height", "width")
    graph = helper.make_graph(
        nodes,
        metadata.get("name", "upscaler"),
        [_tensor("input", ["batch", settings.colours, *sides])],
        [
            _tensor(
                "output",
                ["batch", settings.colours, *(_times(settings.scale, side) for side in sides)],
            )
        ],
        initialisers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="srpipe training",
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` so that a reader finds the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(model.SerializeToString())
    os.replace(unfinished, path)


def _shuffle(source: str, target: str, blocksize: int) -> onnx.NodeProto:
    return helper.make_node(
        "DepthToSpace", [source], [target], "shuffle", blocksize=blocksize, mode="DCR"
    )


def _depth_first_order(colours: int, block: int) -> list[int]:
    positions = block**2
    return [
        colour * positions + position for position in range(positions) for colour in range(colours)
    ]


def _times(scale: int, side: str) -> str:
    return side if scale == 1 else f"{scale}*{side}"


def _tensor(name: str, shape: Sequence[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
