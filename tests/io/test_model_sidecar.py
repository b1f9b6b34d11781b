from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from srpipe.io.model_probe import probe_model, read_model_metadata
from srpipe.io.model_sidecar import read_sidecar
from tests.onnx_models import conv_model

SIDECAR = {"name": "Fine", "architecture": "conv", "scale": 2, "license": "MIT", "author": "Ada"}


def test_the_json_beside_a_model_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = conv_model(tmp_path / "2x-fine.onnx")
    (tmp_path / "2x-fine.json").write_text(json.dumps(SIDECAR))
    info = probe_model(path)
    assert info.name == "Fine"
    assert info.metadata["licence"] == "MIT"
    assert read_model_metadata(path) == info.metadata
    assert not caplog.records


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b" " * 2_000_000])
def test_a_damaged_one_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = conv_model(tmp_path / "m.onnx", metadata={"name": "mine"})
    (tmp_path / "m.json").write_bytes(content)
    assert probe_model(path).metadata == {"name": "mine"}
    assert "m.json" in caplog.text


def test_what_is_no_object_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    assert read_sidecar(tmp_path / "list.json") is None
    assert read_sidecar(tmp_path / "none.json") is None
    os.mkfifo(tmp_path / "fifo.json")
    assert read_sidecar(tmp_path / "fifo.json") is None


@pytest.mark.parametrize(
    ("name", "metadata", "told"),
    [
        ("4x_model.onnx", {}, "4"),
        ("m.onnx", {"scale": "3"}, "3"),
        ("m-x2.onnx", {}, None),
        ("4x_model.onnx", {"scale": "2.0"}, None),
        ("m.onnx", {"scale": "some"}, None),
    ],
)
def test_a_hint_is_checked_by_running(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    metadata: dict[str, str],
    told: str | None,
) -> None:
    path = conv_model(tmp_path / name, scale=2, metadata=metadata)
    with caplog.at_level(logging.WARNING):
        assert probe_model(path).scale == 2
    warned = f"enlarges 2 times, though its metadata or name says {told}"
    assert (warned in caplog.text) if told else not caplog.records
