from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import pytest

from srpipe.errors import DeviceError, ModelError
from srpipe.io.model_probe import probe_model
from tests.ecosystem_models import in_other_numbers
from tests.onnx_models import conv_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def test_what_is_known_is_what_probing_finds(tmp_path: Path, own_cache: Path) -> None:
    path = conv_model(tmp_path / "m-x2.onnx", metadata={"name": "ä ü", "value_range": "-1,1"})
    probed = probe_model(path)
    assert len(entries(own_cache)) == 1
    assert probe_model(path) == probed
    assert probed.value_range == (-1.0, 1.0)
    assert len(entries(own_cache)) == 1


def test_nothing_is_run_again(tmp_path: Path, own_cache: Path) -> None:
    """An entry of other facts, rightly signed, is what is believed."""
    path = conv_model(tmp_path / "m.onnx")
    assert probe_model(path).radius_px == 2
    (entry,) = own_cache.iterdir()
    kept = entry.read_text()
    assert '"radius_px": 2' in kept
    sibling = conv_model(tmp_path / "other.onnx", layers=4)
    far = probe_model(sibling)
    (other,) = set(own_cache.iterdir()) - {entry}
    other.replace(entry)
    assert probe_model(path).radius_px == far.radius_px != 2


def test_a_damaged_entry_is_ignored(tmp_path: Path, own_cache: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    probed = probe_model(path)
    (entry,) = own_cache.iterdir()
    whole = entry.read_text()
    for damaged in (
        "",
        whole[: len(whole) // 2],
        "[]",
        "{}",
        "null",
        '{"facts": 1, "props": 2, "digest": 3}',
        whole.replace('"scale": 2', '"scale": 4'),
        whole.replace('"scale": 2,', ""),
        json.dumps(json.loads(whole) | {"facts": []}),
    ):
        assert damaged != whole
        entry.write_text(damaged)
        assert probe_model(path) == probed
        assert entry.read_text() == whole  # mended


def test_a_changed_file_is_probed_again(tmp_path: Path, own_cache: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    before = probe_model(path)
    stat = path.stat()
    conv_model(path, scale=3)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert probe_model(path).scale == 3
    conv_model(path)
    assert probe_model(path) == before
    assert len(entries(own_cache)) == 2


def test_changed_weights_in_another_file(tmp_path: Path) -> None:
    path, weights = tmp_path / "m.onnx", tmp_path / "w.bin"
    for layers in (2, 4):
        model = onnx.load(conv_model(tmp_path / "all.onnx", layers=layers))
        weights.unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=100)
        assert probe_model(path).radius_px == layers
    weights.write_bytes(bytes(weights.stat().st_size))
    assert probe_model(path).radius_px == 0
    weights.unlink()
    with pytest.raises(ModelError, match=r"w\.bin"):
        probe_model(path)


def test_the_range_is_part_of_the_question(tmp_path: Path, own_cache: Path) -> None:
    path = in_other_numbers(conv_model(tmp_path / "m.onnx"), tmp_path / "n.onnx", (0.0, 255.0))
    assert probe_model(path).value_range == (0.0, 1.0)
    assert probe_model(path, value_range=(0.0, 255.0)).value_range == (0.0, 255.0)
    assert probe_model(path).value_range == (0.0, 1.0)
    assert len(entries(own_cache)) == 2


def test_the_name_and_what_lies_beside_it_count(tmp_path: Path, own_cache: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    assert probe_model(path).name == "m"
    sidecar = {"name": "beside", "architecture": "a", "scale": 2}
    (tmp_path / "m.json").write_text(json.dumps(sidecar))
    assert probe_model(path).name == "beside"
    (tmp_path / "m.json").unlink()
    assert probe_model(path).name == "m"
    elsewhere = tmp_path / "folder"
    elsewhere.mkdir()
    moved = path.rename(elsewhere / "m.onnx")
    assert probe_model(moved).path == str(moved)
    assert len(entries(own_cache)) == 2
    assert probe_model(moved.rename(elsewhere / "other.onnx")).name == "other"


def test_warnings_come_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = conv_model(tmp_path / "m-x4.onnx")
    for _ in range(2):
        caplog.clear()
        probe_model(path)
        assert "enlarges 2 times" in caplog.text


def test_without_a_cache_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = conv_model(tmp_path / "m.onnx")
    probed = probe_model(path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SRPIPE_CACHE", str(tmp_path / "file" / "cache"))
    assert probe_model(path) == probed == probe_model(path)


def test_a_device_that_is_not_there_is_an_error_for_a_known_model(tmp_path: Path) -> None:
    path = conv_model(tmp_path / "m.onnx")
    probe_model(path)
    with pytest.raises(DeviceError, match="openvino"):
        probe_model(path, "openvino")
