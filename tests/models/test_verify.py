from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from srpipe.errors import ModelError
from srpipe.models.verify import Runner, check_batch, largest_difference, span_of
from tests.models.bricks import build
from tests.onnx_models import conv_model, save


def test_differences() -> None:
    a = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 1, 3, 4)
    assert largest_difference(a, a + np.float32(0.25)) == pytest.approx(0.25)
    assert largest_difference(a, a) == 0
    assert largest_difference(a, a[:, :, :2]) == np.inf
    assert largest_difference(a, a * np.nan) == np.inf
    assert span_of(a) == 1
    assert span_of(np.zeros((1, 1, 2, 2), np.float32)) > 0


def test_models_from_files_and_from_bytes(tmp_path: Path) -> None:
    tile = np.random.default_rng(0).random((1, 3, 20, 24), np.float32)
    path = conv_model(tmp_path / "m.onnx", metadata={"value_range": "-1,1"})
    of_file, of_bytes = Runner(path), Runner(path.read_bytes())
    np.testing.assert_array_equal(of_file.run(tile), of_bytes.run(tile))
    assert of_file.value_range() == of_bytes.value_range() == (-1.0, 1.0)
    half = Runner(conv_model(tmp_path / "half.onnx", dtype="float16"))
    assert half.run(tile).dtype == np.float16


def test_models_that_cannot_run(tmp_path: Path) -> None:
    tile = np.zeros((1, 3, 20, 24), np.float32)
    fixed = Runner(build(["flat"], 1, 32, 32).SerializeToString())
    with pytest.raises(ModelError, match=r"fails on an input of \[1, 3, 20, 24\].*dimensions"):
        fixed.run(tile)
    with pytest.raises(ModelError, match="cannot be loaded"):
        Runner(b"no model")
    with pytest.raises(ModelError, match="does not exist"):
        Runner(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="unusable metadata"):
        Runner(conv_model(tmp_path / "m.onnx", metadata={"value_range": "nan"})).value_range()


def test_the_image_is_compared_and_not_the_score(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    pooled = helper.make_node("GlobalAveragePool", ["input"], ["pooled"])
    model.graph.node.extend([pooled, helper.make_node("Flatten", ["pooled"], ["score"])])
    model.graph.output.insert(0, helper.make_tensor_value_info("score", 1, ["n", 3]))
    runner = Runner(model.SerializeToString())
    assert runner.image_output() == "output"
    assert runner.run(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 3, 16, 16)


def test_batch_of_three(tmp_path: Path) -> None:
    assert check_batch(conv_model(tmp_path / "free.onnx")) == 0
    assert check_batch(conv_model(tmp_path / "windows.onnx", multiple=96)) == 0
    with pytest.raises(ModelError, match="takes no batch of 3"):
        check_batch(build(["flat"], 1, 32, 32).SerializeToString())
    mean = helper.make_node("ReduceMean", ["input"], ["mean"], axes=[0])
    mixed = [mean, helper.make_node("Sub", ["input", "mean"], ["output"])]
    assert check_batch(save(tmp_path / "mixed.onnx", mixed, [], ["n", 3, "h", "w"])) > 0.1
