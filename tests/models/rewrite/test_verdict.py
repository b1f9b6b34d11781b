"""What is kept of a model's rewriting, and what happens where it is damaged, gone or cannot be kept."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

from srpipe.errors import InferenceError
from srpipe.io.model_probe import probe_model
from srpipe.models.rewrite import choose, verdict
from srpipe.models.rewrite.verdict import AS_IT_IS, Rewritten, find_graph, graph_info, read_graph
from srpipe.plan.model_info import ModelInfo
from tests.models.rewrite.test_prelu import prelu_net
from tests.onnx_models import conv_model

SLOPES = np.linspace(-0.5, 1.5, 16, dtype=np.float32).reshape(16, 1, 1)
A_LOT_MP = 1e6


@pytest.fixture
def info(tmp_path: Path) -> ModelInfo:
    path = tmp_path / "compact.onnx"
    onnx.save(prelu_net(SLOPES), path)
    return probe_model(path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SRPIPE_CACHE", str(folder))
    monkeypatch.setattr(choose, "LEAST_GAIN", 0.0)  # a small net may not be faster
    monkeypatch.setattr(choose, "ROUNDS", 1)
    return folder / "graphs"


def test_it_is_found_out_once_and_said(
    info: ModelInfo, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_graph(info, A_LOT_MP)
    assert found.rewrites == ("prelu",)
    assert caplog.messages == [
        "Finding out, once, whether compact runs faster with its graph rewritten."
    ]
    assert {path.suffix for path in own_cache.iterdir()} == {".json", ".onnx"}
    caplog.clear()
    assert find_graph(info, 0) == find_graph(info, A_LOT_MP) == found
    assert not caplog.messages
    assert hashlib.sha256(read_graph(info.path, found)).hexdigest() == found.sha256


def test_nothing_is_found_out_for_little_work(info: ModelInfo, own_cache: Path) -> None:
    assert find_graph(info, 0) == AS_IT_IS
    assert not own_cache.exists() or not list(own_cache.iterdir())
    assert find_graph(info, 0.01) == AS_IT_IS
    assert [path.suffix for path in own_cache.iterdir()] == [".json"]


def test_little_work_adds_up(info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "rough_speed", lambda *_: 1 / (0.4 * verdict.WORTHWHILE_S))
    found = [find_graph(info, 1).rewrites for _ in range(4)]
    assert found == [(), (), ("prelu",), ("prelu",)]


def test_a_verdict_whose_graph_cannot_be_had_is_found_out_again(
    info: ModelInfo, own_cache: Path
) -> None:
    found = find_graph(info, A_LOT_MP)
    (kept,) = own_cache.glob("*.json")
    kept.write_text(json.dumps({"rewrites": ["prelu"], "sha256": "0" * 64}))
    assert find_graph(info, 0) == AS_IT_IS
    assert find_graph(info, A_LOT_MP) == found


def test_a_damaged_graph_is_not_taken_for_the_models_file(info: ModelInfo, own_cache: Path) -> None:
    found = find_graph(info, A_LOT_MP)
    (graph,) = own_cache.glob("*.onnx")
    assert graph_info(info, found).path == str(graph)
    graph.write_bytes(graph.read_bytes()[:-1])
    assert graph_info(info, found) == info


def test_that_nothing_is_gained_is_kept_too(
    info: ModelInfo, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "LEAST_GAIN", float("inf"))
    assert find_graph(info, A_LOT_MP) == AS_IT_IS
    monkeypatch.setattr(choose, "LEAST_GAIN", 0.0)
    assert find_graph(info, A_LOT_MP) == AS_IT_IS
    assert [path.suffix for path in own_cache.iterdir()] == [".json"]


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_graph_is_made_again(info: ModelInfo, own_cache: Path, damage: str) -> None:
    found = find_graph(info, A_LOT_MP)
    (file,) = own_cache.glob("*.onnx")
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(whole[:-9] if damage == "cut" else whole[:-9] + bytes(9))
    assert read_graph(info.path, found) == whole
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"rewrites": 3, "sha256": ""}', b'{"rewrites": ["prelu"], "sha256": ""}'],
)
def test_a_damaged_verdict_is_found_out_again(
    info: ModelInfo, own_cache: Path, content: bytes
) -> None:
    found = find_graph(info, A_LOT_MP)
    (file,) = own_cache.glob("*.json")
    file.write_bytes(content)
    assert find_graph(info, A_LOT_MP) == found
    assert json.loads(file.read_bytes())["rewrites"] == ["prelu"]


def test_without_a_cache(info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in the way").write_bytes(b"")
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path / "in the way"))
    found = find_graph(info, A_LOT_MP)
    assert found.rewrites == ("prelu",)
    assert hashlib.sha256(read_graph(info.path, found)).hexdigest() == found.sha256


def test_a_graph_that_cannot_be_made_again_is_refused(info: ModelInfo) -> None:
    with pytest.raises(InferenceError, match=r"cannot be made again.*--fresh"):
        read_graph(info.path, Rewritten(("prelu",), "0" * 64))


def test_a_model_that_cannot_be_rewritten(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = conv_model(tmp_path / "plain.onnx", scale=1)
    with caplog.at_level(logging.INFO):
        assert find_graph(probe_model(plain), A_LOT_MP) == AS_IT_IS
    assert not caplog.messages
    assert len(list(own_cache.iterdir())) == 1
