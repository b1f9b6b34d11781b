"""Which convolutions go back to float: the best for their cost, no more than needed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from srpipe.models.float_convolutions import FloatSearch
from srpipe.models.qdq import Recipe

_WIDTHS = (3, 4, 8, 4, 4, 3)  # c0: 3 to 4 channels, c1: 4 to 8, …
_NAMES = [f"c{i}" for i in range(len(_WIDTHS) - 1)]
_NOISE = {"c0": 9.0, "c1": 4.0, "c2": 1.0, "c3": 8.0, "c4": 0.0}


def _chain() -> onnx.ModelProto:
    weights = [
        numpy_helper.from_array(np.zeros((after, before, 3, 3), np.float32), f"w{i}")
        for i, (before, after) in enumerate(pairwise(_WIDTHS))
    ]
    sources = ["input", *_NAMES]
    nodes = [
        helper.make_node("Conv", [sources[i], f"w{i}"], [name]) for i, name in enumerate(_NAMES)
    ]
    ports = [helper.make_tensor_value_info(name, 1, ["n", 3, "h", "w"]) for name in ("input", "c4")]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _noise(recipe: Recipe) -> float:
    return sum(_NOISE[name] for name in recipe.chosen)


@pytest.mark.parametrize(
    ("most", "left"),
    [
        (22, set()),
        (13, {"c0"}),
        (12.9, {"c0", "c3"}),
        (5, {"c0", "c3"}),
        (4.9, {"c0", "c3"}),  # out of reach: with c1 too, more than half of the work were float
    ],
)
def test_least_float_that_is_accurate_enough(most: float, left: set[str]) -> None:
    recipe = Recipe(chosen=frozenset(_NAMES), ranges={}, split=True)
    found = FloatSearch(_chain(), recipe, _noise, _noise).run(most)
    assert recipe.chosen - found.chosen == left
