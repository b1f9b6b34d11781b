from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from srpipe.errors import ModelError, OutputError
from srpipe.io.session import Session
from srpipe.models.graph import load_graph, metadata_of, write_metadata
from tests.onnx_models import conv_model


def test_nothing_but_metadata_changes(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx", metadata={"name": "mine", "seam_class": "blended"})
    before = onnx.load(path).graph.SerializeToString()
    write_metadata(path, {"seam_class": "exact"})
    after = load_graph(path)
    assert metadata_of(after) == {"name": "mine", "seam_class": "exact"}
    assert after.graph.SerializeToString() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_weights_in_another_file_stay_there(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    batch = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    expected = Session(str(path), "cpu", 1).run_free("input", "output", batch)
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=64
    )
    weights, size = (tmp_path / "m.data").read_bytes(), path.stat().st_size
    write_metadata(path, {"seam_class": "exact"})
    assert (tmp_path / "m.data").read_bytes() == weights
    assert path.stat().st_size - size < 100
    result = Session(str(path), "cpu", 1).run_free("input", "output", batch)
    np.testing.assert_array_equal(result, expected)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        write_metadata(tmp_path / "m.onnx", {})
    path = conv_model(tmp_path / ("m" * 246 + ".onnx"))  # no longer name fits
    with pytest.raises(OutputError, match="cannot be written"):
        write_metadata(path, {"seam_class": "exact"})
