"""The mean over a window around each pixel, in ONNX nodes.

It is the difference of running sums, one axis after the other, in float32: independent of the window's
size, where AveragePool with a large kernel costs its area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_MARK = "/local_mean/"


def is_local_mean(node: onnx.NodeProto) -> bool:
    """Whether :func:`local_mean` made the node; its running sums need float32."""
    return _MARK in node.name


def local_mean(
    prefix: str, source: str, target: str, window: int, *, half: bool
) -> list[onnx.NodeProto]:
    """Nodes that give, for each pixel of an NCHW map, the mean over the window around it.

    At a border the window is the last one that fits; where the map is smaller than the window it is
    the map's own size, so that every pixel gets the mean of the whole map. Needs opset 11.

    Args:
        prefix: begins all names, unique in the graph.
        source: tensor of the map.
        target: name of the tensor to give, of the same shape.
        window: side of the window, pixels of the map.
        half: the map is float16, or else float32.
    """
    nodes = _Nodes(f"{prefix}{_MARK}")
    x = nodes.cast(source, TensorProto.FLOAT, "float") if half else source
    shape = nodes.add("Shape", [x], "shape")
    most = nodes.cast(nodes.constant([window], "window"), TensorProto.FLOAT, "most")
    none = nodes.constant([0, 0], "none")
    before, after = [], []
    for axis in (2, 3):
        # Min on integers needs a later opset than CumSum.
        size = nodes.add("Gather", [shape, nodes.constant([axis], f"axis{axis}")], f"size{axis}")
        size = nodes.cast(size, TensorProto.FLOAT, f"size_float{axis}")
        span = nodes.add("Min", [size, most], f"span_float{axis}")
        x = _axis_mean(nodes, x, axis, span)
        first, last = _borders(nodes, axis, span)
        before.append(first)
        after.append(last)
    pads = nodes.add("Concat", [none, *before, none, *after], "pads", axis=0)
    x = nodes.add("Pad", [x, pads], "map", mode="edge")
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes.made.append(helper.make_node("Cast", [x], [target], name=f"{prefix}{_MARK}end", to=kind))
    return nodes.made


class _Nodes:
    """Collects nodes that are named as the tensors they give."""

    def __init__(self, prefix: str) -> None:
        self.made: list[onnx.NodeProto] = []
        self._prefix = prefix

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        name = f"{self._prefix}{output}"
        self.made.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, values: Sequence[int] | int, output: str) -> str:
        tensor = numpy_helper.from_array(np.array(values, np.int64))
        return self.add("Constant", [], output, value=tensor)

    def cast(self, tensor: str, to: int, output: str) -> str:
        return self.add("Cast", [tensor], output, to=to)


def _axis_mean(nodes: _Nodes, x: str, axis: int, span_float: str) -> str:
    """Means over all windows that fit on one axis: shorter than ``x`` by the window less one."""
    span = nodes.cast(span_float, TensorProto.INT64, f"span{axis}")
    axes = nodes.constant([axis], f"axes{axis}")
    sums = nodes.add("CumSum", [x, nodes.constant(axis, f"along{axis}")], f"sums{axis}")
    zero_in_front = [int(i == axis) for i in range(8)]
    sums = nodes.add("Pad", [sums, nodes.constant(zero_in_front, f"front{axis}")], f"padded{axis}")
    end = nodes.constant([np.iinfo(np.int64).max], f"end{axis}")
    upper = nodes.add("Slice", [sums, span, end, axes], f"upper{axis}")
    zero, back = nodes.constant([0], f"zero{axis}"), nodes.add("Neg", [span], f"back{axis}")
    lower = nodes.add("Slice", [sums, zero, back, axes], f"lower{axis}")
    total = nodes.add("Sub", [upper, lower], f"total{axis}")
    return nodes.add("Div", [total, span_float], f"mean{axis}")


def _borders(nodes: _Nodes, axis: int, span_float: str) -> tuple[str, str]:
    """How many pixels the means of one axis lack at its beginning and at its end."""
    span = nodes.cast(span_float, TensorProto.INT64, f"whole{axis}")
    rest = nodes.add("Sub", [span, nodes.constant([1], f"one{axis}")], f"rest{axis}")
    first = nodes.add("Div", [rest, nodes.constant([2], f"two{axis}")], f"first{axis}")
    return first, nodes.add("Sub", [rest, first], f"last{axis}")
