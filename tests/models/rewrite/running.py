"""Rewrites a graph and runs it before and after."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from srpipe.models.rewrite.apply import rewrite_settled
from srpipe.models.rewrite.constants import settle_constants
from srpipe.models.trial import Trial


def rewritten(model: onnx.ModelProto, *names: str) -> tuple[onnx.ModelProto, int]:
    """The model with rewrites, checked to be valid; and in how many places the last one found work."""
    before = model.SerializeToString()
    changed, places = rewrite_settled(settle_constants(model), names)
    assert model.SerializeToString() == before
    onnx.checker.check_model(changed)
    return changed, places


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def largest_difference(first: onnx.ModelProto, second: onnx.ModelProto) -> float:
    """On noise from -0.5 to 1.5, for several sizes and batches, odd ones too."""
    rng = np.random.default_rng(4)
    largest = 0.0
    runs = Trial(first), Trial(second)
    for shape in ((1, 3, 16, 16), (2, 3, 9, 13), (1, 3, 2, 5)):
        image = (rng.random(shape) * 2 - 0.5).astype(np.float32)
        (a,), (b,) = (trial.run(image) for trial in runs)
        assert a.shape == b.shape
        largest = max(largest, float(np.abs(a - b).max()))
    return largest
