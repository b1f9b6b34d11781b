"""SRVGGNetCompact, the network of Real-ESRGAN's video models, built with random weights.

Architecture: Wang et al., Real-ESRGAN (arXiv 2107.10833), `srvgg_arch.py`: a convolution to the
features, then more of them, each behind a PReLU, a convolution to scale² x 3 channels, pixel shuffle,
and the input enlarged by repetition added. The weights are random, drawn so that the signal keeps
its size through the layers; for measuring speed and memory only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17
_IR_VERSION = 8
_SLOPE = 0.25
# Of the last convolution: what is added to the enlarged input stays small.
_LAST_GAIN = 0.05


@dataclass(frozen=True)
class CompactSettings:
    """The published x2 model by default."""

    features: int = 64
    convolutions: int = 16
    """Those from features to features; there are two more."""
    scale: int = 2
    seed: int = 0

    @property
    def radius_px(self) -> int:
        """Receptive radius, input pixels: each of the 3x3 convolutions reaches one farther."""
        return self.convolutions + 2


def build_compact(path: Path, settings: CompactSettings | None = None) -> Path:
    """Write the model, free in batch, height and width; returns ``path``."""
    settings = settings or CompactSettings()
    onnx.save(_model(settings), str(path))
    return path


def _model(settings: CompactSettings) -> onnx.ModelProto:
    random = np.random.default_rng(settings.seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    channels = [3, *[settings.features] * (settings.convolutions + 1)]
    value = "input"
    for i, (before, after) in enumerate(pairwise(channels)):
        value = _convolution(nodes, weights, random, value, f"body.{2 * i}", before, after)
        value = _prelu(nodes, weights, value, f"body.{2 * i + 1}", after)
    last = 2 * len(channels) - 2
    after = 3 * settings.scale**2
    value = _convolution(
        nodes, weights, random, value, f"body.{last}", settings.features, after, _LAST_GAIN
    )
    weights.append(numpy_helper.from_array(_scales(settings.scale), "scales"))
    nodes += [
        helper.make_node(
            "DepthToSpace", [value], ["shuffled"], blocksize=settings.scale, mode="CRD"
        ),
        helper.make_node(
            "Resize", ["input", "", "scales"], ["base"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
        helper.make_node("Add", ["shuffled", "base"], ["output"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "SRVGGNetCompact", [_port("input", "")], [_port("output", "_out")], weights
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    name = f"compact-{settings.features}-{settings.convolutions}-x{settings.scale}"
    facts = {"name": name, "receptive_radius_px": str(settings.radius_px), "weights": "random"}
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model


def _port(name: str, suffix: str) -> onnx.ValueInfoProto:
    shape: list[str | int | None] = ["batch", 3, f"height{suffix}", f"width{suffix}"]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _scales(scale: int) -> np.ndarray:
    return np.array([1, 1, scale, scale], np.float32)


def _convolution(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    random: np.random.Generator,
    value: str,
    name: str,
    before: int,
    after: int,
    gain: float = 1.0,
) -> str:
    """Append a 3x3 convolution of ``value`` with He's initial weights for the slope of PReLU."""
    deviation = gain * math.sqrt(2 / ((1 + _SLOPE**2) * 9 * before))
    kernel = random.normal(0, deviation, (after, before, 3, 3)).astype(np.float32)
    weights.append(numpy_helper.from_array(kernel, f"{name}.weight"))
    weights.append(numpy_helper.from_array(np.zeros(after, np.float32), f"{name}.bias"))
    inputs = [value, f"{name}.weight", f"{name}.bias"]
    nodes.append(helper.make_node("Conv", inputs, [name], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    return name


def _prelu(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    value: str,
    name: str,
    channels: int,
) -> str:
    """Append a PReLU with a slope for every channel, on average that of its first weights."""
    # Different, as they are after training: equal slopes would be another, cheaper operator.
    slope = np.linspace(0, 2 * _SLOPE, channels, dtype=np.float32).reshape(channels, 1, 1)
    weights.append(numpy_helper.from_array(slope, f"{name}.weight"))
    nodes.append(helper.make_node("PRelu", [value, f"{name}.weight"], [name]))
    return name
