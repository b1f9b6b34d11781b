"""Makes a model's output a whole multiple of its input's size, by padding in front and a crop behind.

Models of valid convolutions give less than scale times their input, and those that halve an image on
their way lose more at some sizes than at others. What is lost is measured by running the model.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.io.session import Session
from srpipe.models.graph import save_graph

# Sizes are tried from the first of these at which the model runs.
_FIRST_PX = (8, 64)
# Size multiples that can be found are its divisors.
_PERIOD_PX = 16
_MAX_SCALE = 8
_PADDED, _WHOLE = "fit/padded", "fit/whole"


@dataclass(frozen=True, slots=True)
class SizeRule:
    """How the size of a model's output follows from that of its input, on either axis."""

    scale: int
    """Output pixels per input pixel."""
    multiple_px: int
    """Input sizes at which the least is lost have the same rest when divided by it."""
    rest_px: int
    lost_px: int
    """What the output lacks of scale times such a size, both sides together; output pixels."""

    @property
    def margin_px(self) -> int:
        """Input pixels to pad on each side for what is lost."""
        return max(0, -(-self.lost_px // (2 * self.scale)))

    @property
    def crop_px(self) -> int:
        """Output pixels to leave out at the top and left after padding."""
        return (2 * self.margin_px * self.scale - self.lost_px) // 2


def fit_size(model: onnx.ModelProto) -> tuple[onnx.ModelProto, SizeRule]:
    """A model with the same input and output names whose output is exactly scale times its input.

    Args:
        model: one image in and one out, both NCHW, with free height and width.

    Returns:
        The model, and what was measured on the one given. Where its multiple is above 1 the new
        model takes other sizes too, padded further at the bottom and right.

    Raises:
        ModelError: the output's size does not follow from the input's in this way.
    """
    rule = _measure(model)
    if rule.margin_px == rule.crop_px == 0 and rule.multiple_px == 1:
        return model, rule
    return _wrapped(model, rule), rule


def _measure(model: onnx.ModelProto) -> SizeRule:
    port = model.graph.input[0]
    channels = port.type.tensor_type.shape.dim[1].dim_value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_graph(model, path)
        try:
            session = Session(str(path), "cpu", 0)
        except ModelError as error:
            reason = str(error).removeprefix(str(path))
            raise ModelError(f"as ONNX, its graph{reason}") from None

        def run(height: int, width: int) -> tuple[int, ...] | None:
            image = np.zeros((1, channels, height, width), np.float32)
            result = session.run_free(port.name, model.graph.output[0].name, image)
            return None if result is None or result.ndim != 4 else result.shape

        for first in _FIRST_PX:
            lost = {}
            scales = set()
            for size in range(first, first + _PERIOD_PX):
                shape = run(size, size + _PERIOD_PX)
                if shape is None:
                    continue
                scale, rest = divmod(shape[3] - shape[2], _PERIOD_PX)
                scales.add(scale if rest == 0 else 0)
                lost[size] = scale * size - shape[2]
                if lost == {first: 0, first + 1: 0}:
                    break  # where nothing is rounded at two neighbours, nothing is at all
            if len(scales) == 1 and 1 <= min(scales) <= _MAX_SCALE:
                return _rule(min(scales), lost)
    raise ModelError("the size of its output is no whole multiple, up to 8, of its input's.")


def _rule(scale: int, lost: dict[int, int]) -> SizeRule:
    least = min(lost.values())
    best = {size for size in lost if lost[size] == least}
    sizes = range(min(lost), max(lost) + 1)
    for multiple in (m for m in range(1, _PERIOD_PX + 1) if _PERIOD_PX % m == 0):
        for rest in range(multiple):
            members = {size for size in sizes if size % multiple == rest}
            if members and members <= best:
                return SizeRule(scale, multiple, rest, least)
    raise ModelError("the size of its output does not follow from its input's in a regular way.")


def _wrapped(model: onnx.ModelProto, rule: SizeRule) -> onnx.ModelProto:
    """The model with padding in front and, where it is needed, a crop behind."""
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    graph = wrapped.graph
    source, target = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = [_PADDED if name == source else name for name in node.input]
        node.input[:] = [_WHOLE if name == target else name for name in node.input]
        node.output[:] = [_WHOLE if name == target else name for name in node.output]

    def constant(name: str, values: list[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    margin, crop = rule.margin_px, rule.crop_px
    front, back = [], []
    if rule.multiple_px == 1:
        pads = constant("fit/pads", [0, 0, margin, margin] * 2)
        crop_after = 2 * margin * rule.scale - rule.lost_px - crop
        ends = constant("fit/ends", [-crop_after or np.iinfo(np.int64).max] * 2)
    else:
        # Behind the image comes the margin, and what the sum lacks of the next good size.
        lacking = constant("fit/rest", [rule.rest_px - 2 * margin])
        front = [
            helper.make_node("Shape", [source], ["fit/size"], start=2, end=4),
            helper.make_node("Sub", [lacking, "fit/size"], ["fit/lacking"]),
            helper.make_node(
                "Mod", ["fit/lacking", constant("fit/multiple", [rule.multiple_px])], ["fit/more"]
            ),
            helper.make_node("Add", ["fit/more", constant("fit/margin", [margin])], ["fit/behind"]),
            helper.make_node(
                "Concat",
                [constant("fit/before", [0, 0, margin, margin, 0, 0]), "fit/behind"],
                ["fit/pads"],
                axis=0,
            ),
        ]
        pads, ends = "fit/pads", "fit/ends"
        back = [
            helper.make_node("Mul", ["fit/size", constant("fit/scale", [rule.scale])], ["fit/out"]),
            helper.make_node("Add", ["fit/out", constant("fit/crop", [crop])], ["fit/ends"]),
        ]
    front.append(helper.make_node("Pad", [source, pads], [_PADDED], mode="edge"))
    corner, axes = constant("fit/starts", [crop] * 2), constant("fit/axes", [2, 3])
    back.append(helper.make_node("Slice", [_WHOLE, corner, ends, axes], [target]))
    nodes = [*front, *graph.node, *back]
    del graph.node[:]
    graph.node.extend(nodes)
    return wrapped
