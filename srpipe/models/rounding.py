"""Rounds a convolution's weights so that its results, not its weights, change least.

Weights are rounded one input after another, and what each rounding does to the results is made up
for by the weights still to come, as far as the inputs are alike. How alike they are is measured on
calibration tiles: the matrix of their products. Method: GPTQ (Frantar et al., arXiv 2210.17323), in
the form of Babai's nearest plane (Chen et al., arXiv 2507.18553), which needs no inverse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from srpipe.io.binding import Tensor
from srpipe.models.activations import look_inside
from srpipe.models.qdq import (
    MOST_WEIGHT,
    Floats,
    Graph,
    Recipe,
    scaled_weights,
    source_range,
    split_source,
)

# Share of the mean diagonal added to it: keeps the matrix invertible where inputs are alike.
_DAMPING = 0.01
_LEAST = 1e-12
# Windows looked at, over all tiles: a few times as many as they hold numbers.
_POSITIONS = 2048
# Numbers in a window, channels split: above it the matrix costs more than it gains.
_MOST_INPUTS = 4096
# Convolutions whose matrices are held at once, about 5 MB each for 64 split channels.
_TOGETHER = 16


def input_products(
    values: Floats, kernel: tuple[int, int], n_positions: int, rng: np.random.Generator
) -> Floats:
    """Sums of products of what a kernel sees, over some positions of a tile.

    Args:
        values: (channels, height, width) input of a convolution.
        kernel: its height and width, at most those of ``values``.
        n_positions: positions to look at, drawn at random.
        rng: draws them.

    Returns:
        (k, k), where k is channels times kernel height times kernel width, in the order of weights.
    """
    windows = np.lib.stride_tricks.sliding_window_view(values, kernel, axis=(1, 2))
    rows, columns = windows.shape[1:3]
    n = min(n_positions, rows * columns)
    at = rng.choice(rows * columns, n, replace=False)
    seen = windows[:, at // columns, at % columns].transpose(1, 0, 2, 3).reshape(n, -1)
    products: Floats = seen.T @ seen
    return products


def round_weights(weights: Floats, scales: Floats, products: Floats, most: int) -> Floats:
    """Integers for weights, rounded so that the results change least.

    Args:
        weights: (outputs, k).
        scales: (outputs,), the real value of one.
        products: (k, k) from :func:`input_products`.
        most: the largest integer allowed, and with its sign the smallest.

    Returns:
        (outputs, k) whole numbers.
    """
    matrix = products.astype(np.float64)
    diagonal = np.einsum("ii->i", matrix)
    diagonal += _DAMPING * diagonal.mean() + _LEAST
    upper = np.linalg.cholesky(matrix).T
    upper = (upper / np.diag(upper)[:, np.newaxis]).astype(np.float32)
    integers = np.zeros_like(weights)
    errors = np.zeros_like(weights)
    for i in reversed(range(weights.shape[1])):
        wanted = weights[:, i] + errors[:, i + 1 :] @ upper[i, i + 1 :]
        integers[:, i] = np.clip(np.rint(wanted / scales), -most, most)
        errors[:, i] = weights[:, i] - integers[:, i] * scales
    return integers


def round_on_tiles(
    model: onnx.ModelProto, recipe: Recipe, tiles: Sequence[Tensor], threads: int
) -> dict[str, Floats]:
    """Weights of a recipe's convolutions as whole numbers, for :func:`srpipe.models.qdq.write_qdq`.

    Convolutions with groups, strides or dilations, and very wide ones, are left out.

    Args:
        model: as for ``write_qdq``.
        recipe: which convolutions become integers, and how.
        tiles: batches for the model's input.
        threads: cores to use.
    """
    graph = Graph(model)
    convs = [
        node for node in graph.nodes if node.output[0] in recipe.chosen and _is_plain(graph, node)
    ]
    integers: dict[str, Floats] = {}
    for first in range(0, len(convs), _TOGETHER):
        some = convs[first : first + _TOGETHER]
        for name, products in _products(model, graph, recipe, some, tiles, threads).items():
            weights, scales = scaled_weights(graph, recipe, graph.maker[name])
            flat = weights.reshape(len(weights), -1)
            rounded = round_weights(flat, scales, products, MOST_WEIGHT)
            integers[name] = rounded.reshape(weights.shape)
    return integers


def _products(
    model: onnx.ModelProto,
    graph: Graph,
    recipe: Recipe,
    convs: Sequence[onnx.NodeProto],
    tiles: Sequence[Tensor],
    threads: int,
) -> dict[str, Floats]:
    """:func:`input_products` of several convolutions, summed over the tiles."""
    n_positions = -(-_POSITIONS // len(tiles))
    rng = np.random.default_rng(0)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for conv in convs:
        prelu = split_source(graph, recipe, conv)
        readers.setdefault(conv.input[0] if prelu is None else prelu.input[0], []).append(conv)
    sums: dict[str, Floats] = {}

    def see(name: str, values: Tensor) -> None:
        for conv in readers[name]:
            rounded = source_range(graph, recipe, conv).round(values.astype(np.float32))
            if split_source(graph, recipe, conv) is not None:
                rounded = np.concatenate([np.maximum(rounded, 0), np.minimum(rounded, 0)])
            top, left, bottom, right = _pads(conv)
            padded = np.pad(rounded, ((0, 0), (top, bottom), (left, right)))
            height, width = graph.floats(conv.input[1]).shape[2:]
            seen = input_products(padded, (height, width), n_positions, rng)
            key = conv.output[0]
            sums[key] = sums[key] + seen if key in sums else seen

    look_inside(model, list(readers), tiles, threads, see)
    return sums


def _is_plain(graph: Graph, conv: onnx.NodeProto) -> bool:
    """Whether every output is made of the window at its place, and few enough numbers."""
    given = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    steps = [*given.get("strides", []), *given.get("dilations", []), given.get("group", 1)]
    inputs = int(np.prod(graph.floats(conv.input[1]).shape[1:]))
    automatic = given.get("auto_pad", b"NOTSET") != b"NOTSET"
    return all(step == 1 for step in steps) and not automatic and 2 * inputs <= _MOST_INPUTS


def _pads(conv: onnx.NodeProto) -> list[int]:
    return next((list(a.ints) for a in conv.attribute if a.name == "pads"), [0] * 4)
