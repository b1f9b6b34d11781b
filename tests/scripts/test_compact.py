"""The Compact model of the benchmarks: shape, batch, architecture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from srpipe.io.model_probe import probe_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks.compact import CompactSettings, build_compact


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_is_an_image_model_of_its_scale(tmp_path: Path, scale: int):
    settings = CompactSettings(features=8, convolutions=2, scale=scale)
    info = probe_model(build_compact(tmp_path / "compact.onnx", settings))
    assert (info.scale, info.channels, info.layout) == (scale, 3, "NCHW")
    assert (info.batch, info.height_px, info.width_px, info.multiple_px) == (None, None, None, 1)
    assert info.radius_px == settings.radius_px == 4


def test_default_is_the_published_size(tmp_path: Path):
    model = onnx.load(build_compact(tmp_path / "compact.onnx"))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == 18
    assert kinds.count("PRelu") == 17
    # 3-64, 16 x 64-64, 64-12, all 3x3 with bias, and 17 x 64 slopes.
    parameters = 9 * (3 * 64 + 16 * 64 * 64 + 64 * 12) + 17 * 64 + 12 + 17 * 64
    counts = [np.prod(tensor.dims) for tensor in model.graph.initializer if tensor.name != "scales"]
    assert sum(counts) == parameters


def test_adds_little_to_the_enlarged_input_and_gives_the_same_every_time(tmp_path: Path):
    import onnxruntime as ort

    picture = np.random.default_rng(0).random((1, 3, 20, 30), np.float32)
    results = []
    for name in ("a", "b"):
        path = build_compact(tmp_path / f"{name}.onnx")
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"input": picture})[0])
    np.testing.assert_array_equal(*results)
    added = results[0] - picture.repeat(2, axis=2).repeat(2, axis=3)
    assert 0.005 < added.std() < 0.3
