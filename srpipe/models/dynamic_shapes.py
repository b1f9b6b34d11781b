"""Make a model for one batch or one size take any batch, and any height and width where that is sound.

Exporters bake the batch into constants: the shapes of Reshape, Expand, Tile, ConstantOfShape and
Resize, and whole tensors that a Concat joins on. Their first number becomes a multiple of the input's
own batch. Height and width are freed by declaring them free, if the graph then runs at other sizes and
a larger image has the same middle as a crop of it; else they stay, and the job's tiles have that size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

from srpipe.errors import ModelError
from srpipe.io.binding import Tensor
from srpipe.io.model_port import likely_layouts
from srpipe.models.trial import Array, Trial, only_input
from srpipe.models.verify import Runner, largest_difference, noise_between, span_of
from srpipe.plan.model_info import MAX_CHANNELS, Layout

_FREE_PX = (64, 128, 192, 256)
_TILES = 3
_BATCH = "srpipe/batch"
_AXES: dict[Layout, tuple[int, int, int]] = {"NCHW": (0, 2, 3), "NHWC": (0, 1, 2)}
_NAMES = ("batch", "height", "width")
# Which input of a node holds numbers that speak of a shape, the batch first.
_SHAPES = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0, "Resize": 3}
# What another order of sums, and a far border, may change, as shares of the range.
_SAME: dict[int, float] = {TensorProto.FLOAT: 1e-4, TensorProto.FLOAT16: 2e-2}
_NEAR: dict[int, float] = {TensorProto.FLOAT: 1e-3, TensorProto.FLOAT16: 3e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A model whose batch is free, and what else is."""

    model: onnx.ModelProto
    """Its free dimensions are called batch, height and width."""
    size: bool
    """Height and width are free too."""
    reason: str
    """Why height and width stay fixed; empty if they are free."""
    rewritten: tuple[str, ...]
    """Nodes that had a batch baked in."""


def make_dynamic(model: onnx.ModelProto) -> Freed:
    """Free the batch of a model, and its height and width where that is sound.

    Args:
        model: one floating-point image in, NCHW or NHWC; left as it is.

    Returns:
        A new model. A batch of three was run and is the same as its images one by one; at the
        declared size it is the same as the given model.

    Raises:
        ModelError: ONNX Runtime refuses it; no image-to-image model; or the batch cannot be freed,
            with the node in the way.
    """
    Trial(model)  # what ONNX Runtime refuses, it explains best
    plain = onnx.inliner.inline_local_functions(model) if model.functions else model
    first: ModelError | None = None
    for layout, channels in _ways(plain):
        try:
            return _Freeing(plain, layout, channels).free()
        except ModelError as error:  # noqa: PERF203
            first = first or error
    raise first or ModelError(
        f"the model takes no image of 1 to {MAX_CHANNELS} channels: srpipe needs a model of grey, RGB "
        "or a few bands."
    )


def _ways(model: onnx.ModelProto) -> list[tuple[Layout, int]]:
    """Layouts and channels in which a model may be called, likeliest first."""
    given = only_input(model)
    dims = _declared(given)
    kind = given.type.tensor_type.elem_type
    outputs = [len(value.type.tensor_type.shape.dim) for value in model.graph.output]
    if len(dims) != 4 or kind not in _SAME or not {0, 4} & set(outputs):
        raise ModelError(
            f"this is no image-to-image model (its input is {given.name}): it needs one input and one "
            "output of four dimensions, batch, channels, height and width."
        )
    ways = likely_layouts(dims)
    kernels = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    convolution = next((n for n in model.graph.node if n.op_type == "Conv"), None)
    if convolution is not None and convolution.input[1] in kernels:
        channels = kernels[convolution.input[1]][1]
        ways = sorted(ways, key=lambda way: way[1] != channels)
    return ways


def _declared(value: onnx.ValueInfoProto) -> list[int | None]:
    return [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]


class _Freeing:
    """One model, called in one way."""

    def __init__(self, model: onnx.ModelProto, layout: Layout, channels: int) -> None:
        self._given, self._axes = only_input(model), _AXES[layout]
        self._kind = self._given.type.tensor_type.elem_type
        declared = _declared(self._given)
        self._channels = channels
        self._fixed = [declared[axis] for axis in self._axes]
        self._base = self._working_size(model)
        self._model = self._declare(model, self._base)
        self._output = next(
            v.name for v in model.graph.output if len(v.type.tensor_type.shape.dim) in (0, 4)
        )
        self._reference = Runner(self._model.SerializeToString())
        self._range = self._reference.value_range()

    def free(self) -> Freed:
        freed, rewritten = self._with_free_batch()
        sizes: list[str | int] = ["height", "width"]
        reason = self._why_fixed(freed, sizes)
        if reason:
            sizes = [
                name if size is None else size
                for name, size in zip(_NAMES[1:], self._fixed[1:], strict=True)
            ]
        return Freed(
            model=self._declare(freed, ("batch", *sizes)),
            size=not reason,
            reason=reason,
            rewritten=rewritten,
        )

    # Sizes and declarations.

    def _working_size(self, model: onnx.ModelProto) -> tuple[int, int, int]:
        batch, height, width = self._fixed
        for tried in _FREE_PX:
            base = (batch or 1, height or tried, width or tried)
            runner = Runner(self._declare(model, base).SerializeToString())
            if runner.try_run(np.zeros(self._shape(base), np.float32)) is not None:
                return base
            if height and width:
                break
        raise ModelError(
            f"the model fails at every size that it may take ({self._given.name} is "
            f"{[size or 'any' for size in self._fixed]}, batch, height and width): it is damaged."
        )

    def _shape(self, base: Iterable[int]) -> list[int]:
        shape = [self._channels] * 4
        for axis, size in zip(self._axes, base, strict=True):
            shape[axis] = size
        return shape

    def _declare(self, model: onnx.ModelProto, base: tuple[int | str, ...]) -> onnx.ModelProto:
        """A copy whose input has these sizes or names; all other shapes are left to be inferred."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        given = only_input(copy)
        for dim in given.type.tensor_type.shape.dim:
            dim.dim_value = self._channels
        for axis, size in zip(self._axes, base, strict=True):
            dim = given.type.tensor_type.shape.dim[axis]
            dim.Clear()
            if isinstance(size, int):
                dim.dim_value = size
            else:
                dim.dim_param = size
        del copy.graph.value_info[:]
        for value in copy.graph.output:
            shape = value.type.tensor_type.shape
            rank = len(shape.dim) or 4
            del shape.dim[:]
            shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(rank))
        return copy

    # The batch.

    def _with_free_batch(self) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """The model after the first rewriting that a batch of three confirms, and the nodes changed."""
        first = ""
        for everywhere in (True, False):
            freed, rewritten = _free_batch(self._model, self._base[0], self._axes[0], everywhere)
            freed = self._declare(freed, ("batch", *self._base[1:]))
            onnx.checker.check_model(freed)
            reason = self._why_not_the_same(freed)
            if not reason:
                return freed, rewritten
            first = first or reason
        raise ModelError(f"the batch cannot be made free: {first}.")

    def _why_not_the_same(self, freed: onnx.ModelProto) -> str:
        runner = Runner(freed.SerializeToString())
        tiles = self._noise(self._base)
        if not self._near(runner.try_run(tiles, self._output), self._reference.run(tiles), _SAME):
            return f"the rewritten graph gives another result than the model ({runner.why})"
        tiles = self._noise((_TILES, *self._base[1:]))
        singles = [runner.try_run(tiles[i : i + 1], self._output) for i in range(_TILES)]
        apart = [single for single in singles if single is not None]
        together = runner.try_run(tiles, self._output)
        if together is None or len(apart) < _TILES:
            return f"it takes no batch of {_TILES} ({runner.why})"
        if self._near(together, np.concatenate(apart), _SAME):
            return ""
        return f"{_mixing_node(freed, tiles)} mixes the images of a batch"

    def _noise(self, base: Iterable[int]) -> Tensor:
        return noise_between(self._shape(base), self._range)

    def _near(self, result: Tensor | None, expected: Tensor, shares: dict[int, float]) -> bool:
        if result is None:
            return False
        share = shares[self._kind]
        return bool(largest_difference(result, expected) <= share * span_of(expected))

    # Height and width.

    def _why_fixed(self, freed: onnx.ModelProto, sizes: list[str | int]) -> str:
        """Why other sizes are not sound; empty if they are."""
        runner = Runner(self._declare(freed, ("batch", *sizes)).SerializeToString())
        _, height, width = self._base
        for more in ((height // 2, width), (height, width // 2)):
            larger = (1, height + more[0], width + more[1])
            image = self._noise(larger)
            whole = runner.try_run(image, self._output)
            if whole is None:
                return f"at {larger[2]}x{larger[1]} pixels the graph fails ({runner.why})"
            for top, left in ((0, 0), more):
                window = [slice(None)] * 4
                window[self._axes[1]] = slice(top, top + height)
                window[self._axes[2]] = slice(left, left + width)
                part = runner.run(image[tuple(window)])
                scale = part.shape[self._axes[1]] // height
                got = self._middle(whole, top * scale, left * scale, part.shape)
                if not self._near(got, self._middle(part, 0, 0, part.shape), _NEAR):
                    return "what it computes depends on the size of the whole image"
        return ""

    def _middle(self, result: Tensor, top: int, left: int, shape: tuple[int, ...]) -> Tensor:
        """The middle third of a window on each axis."""
        window = [slice(None)] * 4
        for axis, begin in ((self._axes[1], top), (self._axes[2], left)):
            third = shape[axis] // 3
            window[axis] = slice(begin + third, begin + shape[axis] - third)
        return result[tuple(window)]


def _free_batch(
    model: onnx.ModelProto, batch: int, axis: int, everywhere: bool
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy in which constants follow the batch of the input, and the nodes that were changed.

    Args:
        model: of a fixed batch.
        batch: the fixed one.
        axis: of the batch in the input.
        everywhere: also where shapes are given to what is no image.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    graph = freed.graph
    constants = _constants(graph)
    images = {only_input(model).name}
    nodes: list[onnx.NodeProto] = []
    rewritten = []

    def constant(name: str, values: Array) -> str:
        if all(tensor.name != name for tensor in graph.initializer):
            graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def multiple(factor: int) -> str:
        """A vector of one number: the batch times a factor."""
        name = f"{_BATCH}*{factor}"
        if all(name not in node.output for node in nodes):
            factor_name = constant(f"{name}/factor", np.array([factor], np.int64))
            nodes.append(helper.make_node("Mul", [_BATCH, factor_name], [name]))
        return name

    for number, node in enumerate(graph.node):
        sees_image = any(name in images for name in node.input)
        if sees_image:
            images.update(node.output)
        place, kept = f"srpipe/{number}", len(nodes)
        index = _SHAPES.get(node.op_type, -1)
        numbers = constants.get(node.input[index]) if 0 <= index < len(node.input) else None
        if numbers is not None and numbers.size and numbers.dtype == np.int64:
            factor, rest = divmod(int(numbers[0]), batch)
            if factor >= 1 and not rest and (sees_image or everywhere):
                parts = [multiple(factor), constant(f"{place}/rest", numbers[1:])]
                nodes.append(helper.make_node("Concat", parts, [f"{place}/shape"], axis=0))
                node.input[index] = f"{place}/shape"
        elif node.op_type == "Concat" and sees_image and helper.get_node_attr_value(node, "axis"):
            for i, name in enumerate(node.input):
                values = constants.get(name)
                if values is None or len(values) != batch or (values != values[:1]).any():
                    continue
                one = constant(f"{place}/{i}", values[:1])
                ones = constant(f"{place}/ones", np.ones(values.ndim - 1, np.int64))
                target = f"{place}/{i}/shape"
                nodes.append(helper.make_node("Concat", [multiple(1), ones], [target], axis=0))
                nodes.append(helper.make_node("Expand", [one, target], [f"{place}/{i}/all"]))
                node.input[i] = f"{place}/{i}/all"
        elif sees_image and batch > 1:
            for i, name in enumerate(node.input):
                values = constants.get(name)
                if values is None or values.ndim != 4 or len(values) != batch:
                    continue
                if not (values != values[:1]).any():
                    node.input[i] = constant(f"{place}/{i}", values[:1])
        if len(nodes) > kept:
            rewritten.append(describe(node))
        nodes.append(node)
    if any(_BATCH in node.input for node in nodes):
        first = constant(f"{_BATCH}/axis", np.array([axis], np.int64))
        shape = helper.make_node("Shape", [only_input(model).name], [f"{_BATCH}/all"])
        nodes[:0] = [shape, helper.make_node("Gather", [shape.output[0], first], [_BATCH], axis=0)]
    nodes = [_copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    return freed, tuple(rewritten)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    found = {}
    for name, tensor in tensors.items():
        try:
            found[name] = numpy_helper.to_array(tensor)
        except ValueError as error:  # noqa: PERF203
            raise ModelError(f"the constant {name} is damaged ({error}).") from None
    return found


def describe(node: onnx.NodeProto) -> str:
    """A node as a message names it."""
    return f"node {node.op_type} '{node.name or node.output[0]}'"


def _mixing_node(model: onnx.ModelProto, tiles: Tensor) -> str:
    """The first node whose result for a batch is not its results for the images, one after another."""
    names = [node.output[0] for node in model.graph.node]
    trial = Trial(model, names)
    together = trial.run(tiles)
    apart = [trial.run(tiles[i : i + 1]) for i in range(_TILES)]
    for node, joined, *singles in zip(model.graph.node, together, *apart, strict=True):
        if not np.issubdtype(joined.dtype, np.floating):
            continue
        rows = np.stack([single.ravel() for single in singles])
        if joined.size == rows.size:
            mixes = largest_difference(joined.reshape(_TILES, -1), rows) > 1e-3 * span_of(rows)
        else:  # a batch has been merged, unless it is no part of an image
            mixes = bool((rows != rows[:1]).any())
        if mixes:
            return describe(node)
    return "the graph"
