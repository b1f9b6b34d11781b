"""A model whose results depend, in the last bits, on what else is in the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

from tests.onnx_models import save


def companion_model(path: Path) -> Path:
    """Adds a thousandth of the batch's mean to every tile."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[0, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "little"], ["part"]),
        helper.make_node("Add", ["input", "part"], ["output"]),
    ]
    little = numpy_helper.from_array(np.array(1e-3, np.float32), "little")
    return save(path, nodes, [little], ["n", 3, "h", "w"])
