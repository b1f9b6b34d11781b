"""ncnn's layers that change an image's size: crops, resizing, padding, pooling, pixel shuffles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from srpipe.errors import ModelError
from srpipe.models.ncnn.format import Layer
from srpipe.models.ncnn.graph import Blob, Graph

_REST = -233  # ncnn's word for "what is left", or "not given"
TO_THE_END = int(np.iinfo(np.int64).max)
"""Where an ONNX slice ends that leaves nothing out."""
_PAD_MODES = ("constant", "edge", "reflect")
# OpenCV's and PyTorch's coefficient, and ncnn's.
_CUBIC_COEFFICIENT = -0.75


def slice_axis(layer: Layer, axis: int, single: bool) -> int:
    """ONNX's axis (1 to 3) for an axis of an ncnn blob of three dimensions, or of a vector.

    Raises:
        ModelError: there is no such axis.
    """
    dimensions = 1 if single else 3
    if not -dimensions <= axis < dimensions:
        raise ModelError(f"{layer} works on axis {axis}, which images do not have.")
    return axis % dimensions + 1


def interp(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    """Interp: resizing by factors, or to the size of a second blob."""
    kind = layer.integer(0)
    aligned = layer.integer(6) != 0
    coordinates = "align_corners" if aligned else "half_pixel"
    modes: dict[int, dict[str, Any]] = {
        1: {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        2: {"mode": "linear", "coordinate_transformation_mode": coordinates},
        3: {
            "mode": "cubic",
            "coordinate_transformation_mode": coordinates,
            "cubic_coeff_a": _CUBIC_COEFFICIENT,
        },
    }
    if kind not in modes or not inputs:
        raise ModelError(f"{layer} has resize type {kind}, which is unknown.")
    x, factors = inputs[0], [layer.number(1, 1.0), layer.number(2, 1.0)]
    if len(inputs) == 2:
        size = graph.apply("Shape", inputs[1].tensor, start=2, end=4)
    elif layer.integer(3) or layer.integer(4):
        raise ModelError(f"{layer} resizes to one size only: models for any size do not.")
    elif min(factors) <= 0:
        raise ModelError(f"{layer} resizes by {factors}, which is no enlargement.")
    else:
        scales = graph.constant([1.0, 1.0, *factors])
        return [Blob(graph.apply("Resize", x.tensor, "", scales, **modes[kind]))]
    sizes = graph.apply("Concat", graph.apply("Shape", x.tensor, start=0, end=2), size, axis=0)
    return [Blob(graph.apply("Resize", x.tensor, "", "", sizes, **modes[kind]))]


def pixel_shuffle(graph: Graph, layer: Layer, x: Blob) -> Blob:
    """PixelShuffle: mode 0 has an output channel's parts side by side, mode 1 far apart."""
    mode = "DCR" if layer.integer(1) else "CRD"
    block = layer.integer(0, 1)
    if block < 1:
        raise ModelError(f"{layer} has factor {block}: it must be at least 1.")
    return Blob(graph.apply("DepthToSpace", x.tensor, blocksize=block, mode=mode))


def crop(graph: Graph, layer: Layer, inputs: Sequence[Blob]) -> Sequence[Blob]:
    """Crop: from an offset to the size of a second blob, to a size, or to the end."""
    x = inputs[0]
    if len(inputs) == 2:
        return [_crop_like(graph, layer, x, inputs[1])]
    if layer.array(9):
        starts, ends, axes = (list(layer.array(key)) for key in (9, 10, 11))
        axes = axes or list(range(len(starts)))
        if not len(starts) == len(ends) == len(axes):
            raise ModelError(f"{layer} has starts {starts}, ends {ends} and axes {axes}.")
        bounds = {
            slice_axis(layer, int(axis), x.single): (
                0 if start == _REST else int(start),
                TO_THE_END if end in (0, _REST) else int(end),
            )
            for axis, start, end in zip(axes, starts, ends, strict=True)
        }
    else:
        bounds = {axis: _crop_bounds(layer, 3 - axis) for axis in (1, 2, 3)}
    changed = {axis: bound for axis, bound in bounds.items() if bound != (0, TO_THE_END)}
    if not changed:
        return [x]
    columns = zip(*((*bound, axis) for axis, bound in changed.items()), strict=True)
    tensors = [graph.constant(column, np.int64) for column in columns]
    return [Blob(graph.apply("Slice", x.tensor, *tensors), x.single)]


def _crop_bounds(layer: Layer, place: int) -> tuple[int, int]:
    """Start and end on ncnn's axis number ``place``: 0 is the width, 2 the channels."""
    start, size, trimmed = (layer.integer(key) for key in (place, place + 3, place + 6))
    if min(start, trimmed) < 0 or (size < 1 and size != _REST) or (trimmed and size != _REST):
        raise ModelError(
            f"{layer} has offset {start}, size {size} and second offset {trimmed}, "
            "which srpipe does not convert."
        )
    if size == _REST:
        return start, -trimmed or TO_THE_END
    return start, start + size


def _crop_like(graph: Graph, layer: Layer, x: Blob, reference: Blob) -> Blob:
    offsets = [layer.integer(key) for key in (2, 1, 0)]
    if x.single or reference.single or min(offsets) < 0:
        raise ModelError(
            f"{layer} crops to what another layer says, which srpipe does not convert."
        )
    starts = graph.constant(offsets, np.int64)
    size = graph.apply("Shape", reference.tensor, start=1, end=4)
    ends = graph.apply("Add", size, starts)
    return Blob(graph.apply("Slice", x.tensor, starts, ends, graph.constant([1, 2, 3], np.int64)))


def padding(graph: Graph, layer: Layer, x: Blob) -> Blob:
    """Padding of height, width and channels with a number, the edge, or a mirror image."""
    kind = layer.integer(4)
    top, bottom, left, right, front, behind = (layer.integer(key) for key in (0, 1, 2, 3, 7, 8))
    if not 0 <= kind < len(_PAD_MODES) or min(top, bottom, left, right, front, behind) < 0:
        raise ModelError(f"{layer} has a padding type or width that is unknown.")
    if layer.integer(6):
        raise ModelError(
            f"{layer} pads each channel with its own number: srpipe cannot convert it."
        )
    pads = graph.constant([0, front, top, left, 0, behind, bottom, right], np.int64)
    value = [graph.constant(layer.number(5))] if kind == 0 else []
    return Blob(graph.apply("Pad", x.tensor, pads, *value, mode=_PAD_MODES[kind]))


def pooling(graph: Graph, layer: Layer, x: Blob) -> Blob:
    """Pooling: the mean or largest of all pixels, or of windows that lie within the image."""
    kind = "Average" if layer.integer(0) else "Max"
    everything = layer.integer(7) and layer.integer(8) == 1 and layer.integer(18, 1) == 1
    if layer.integer(4) or everything:
        return Blob(graph.apply(f"Global{kind}Pool", x.tensor), single=True)
    width, stride, left = (layer.integer(key, default) for key, default in ((1, 0), (2, 1), (3, 0)))
    top, mode = layer.integer(13, left), layer.integer(5)
    kernel, strides = [layer.integer(11, width), width], [layer.integer(12, stride), stride]
    pads = [top, left, layer.integer(15, top), layer.integer(14, left)]
    if layer.integer(7) or mode not in (0, 1) or min(*kernel, *strides) < 1 or min(pads) < 0:
        raise ModelError(f"{layer} pools in a way that srpipe does not convert.")
    counted = {"count_include_pad": layer.integer(6)} if kind == "Average" else {}
    y = graph.apply(
        f"{kind}Pool", x.tensor, kernel_shape=kernel, strides=strides, pads=pads,
        ceil_mode=1 - mode, **counted,
    )  # fmt: skip
    return Blob(y)
