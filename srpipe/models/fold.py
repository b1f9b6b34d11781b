"""Constant folding: computes once what an exported graph would compute again in every run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from srpipe.errors import ModelError
from srpipe.io.child import time_limit
from srpipe.io.onnx_runtime import one_line, ort, session_options

_STANDARD = {"", "ai.onnx"}


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of the same function with fewer nodes, in standard operators only.

    ONNX Runtime's basic level does it: constants folded, no-ops and dead nodes removed. Where that
    brings an operator of its own, the graph comes back as it was.

    Raises:
        ModelError: ONNX Runtime does not take the graph.
    """
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(file)
        try:
            with time_limit():
                ort.InferenceSession(
                    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ModelError(f"ONNX Runtime does not take the model: {one_line(error)}") from None
        folded = onnx.load(file)
    if {node.domain for node in folded.graph.node} - _STANDARD:
        return model
    standard = [entry for entry in folded.opset_import if entry.domain in _STANDARD]
    del folded.opset_import[:]
    folded.opset_import.extend(standard)
    return folded
