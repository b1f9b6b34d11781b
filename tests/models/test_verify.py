from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from srpipe.errors import ModelError
from srpipe.models.verify import check_batch, compare_models
from tests.models.bricks import build
from tests.onnx_models import conv_model, elementwise_model, save


def test_difference_of_two_models(tmp_path: Path) -> None:
    tile = np.random.default_rng(0).random((1, 3, 20, 24), np.float32)
    more = elementwise_model(tmp_path / "more.onnx", "Add", 0.25)
    same = elementwise_model(tmp_path / "same.onnx", "Identity")
    assert compare_models(more, same, tile) == pytest.approx(0.25)
    assert compare_models(same.read_bytes(), str(same), tile) == 0
    half = conv_model(tmp_path / "half.onnx", dtype="float16")
    whole = conv_model(tmp_path / "whole.onnx")
    assert 0 < compare_models(half, whole, tile) < 0.02


def test_models_that_cannot_be_compared(tmp_path: Path) -> None:
    tile = np.zeros((1, 3, 20, 24), np.float32)
    small, large = (conv_model(tmp_path / f"{n}.onnx", scale=n) for n in (1, 2))
    with pytest.raises(ModelError, match=r"results of \[1, 3, 20, 24\] and \[1, 3, 40, 48\]"):
        compare_models(small, large, tile)
    with pytest.raises(ModelError, match=r"fails on an input of \[1, 3, 20, 24\]"):
        compare_models(small, build(["flat"], 1, 32, 32).SerializeToString(), tile)
    with pytest.raises(ModelError, match="cannot be loaded"):
        compare_models(small, b"no model", tile)


def test_infinity_is_no_small_difference(tmp_path: Path) -> None:
    logarithm = elementwise_model(tmp_path / "log.onnx", "Log")
    same = elementwise_model(tmp_path / "same.onnx", "Identity")
    assert compare_models(logarithm, same, np.zeros((1, 3, 8, 8))) == np.inf
    assert compare_models(logarithm, logarithm, np.full((1, 3, 8, 8), -1)) == np.inf


def test_batch_of_three(tmp_path: Path) -> None:
    assert check_batch(conv_model(tmp_path / "free.onnx")) == 0
    assert check_batch(conv_model(tmp_path / "windows.onnx", multiple=96)) == 0
    with pytest.raises(ModelError, match="takes no batch of 3"):
        check_batch(build(["flat"], 1, 32, 32).SerializeToString())
    mean = helper.make_node("ReduceMean", ["input"], ["mean"], axes=[0])
    mixed = [mean, helper.make_node("Sub", ["input", "mean"], ["output"])]
    assert check_batch(save(tmp_path / "mixed.onnx", mixed, [], ["n", 3, "h", "w"])) > 0.1
