from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from srpipe.errors import OutOfMemoryError, StageError
from srpipe.io.model_probe import probe_model
from srpipe.models.tile_memory import default_tile, measure_tile_memory
from srpipe.plan.geometry import Size
from tests.onnx_models import conv_model

TILE = Size(192, 160)
PLANE_BYTES = 4 * TILE.pixels


def test_a_tile_takes_what_its_layers_take(tmp_path: Path) -> None:
    info = probe_model(conv_model(tmp_path / "m.onnx", features=64, layers=4, scale=1))
    memory = measure_tile_memory(info, TILE)
    one, two = memory.batch_bytes[1], memory.batch_bytes[2]
    # At least the input and the output of a layer, at most all layers.
    assert 2 * 64 * PLANE_BYTES < one < 6 * 64 * PLANE_BYTES
    assert one < two
    assert 0.7 * one < memory.per_tile_bytes == two - one < 1.3 * one
    assert memory.as_dict()["tile"] == {"width": 192, "height": 160}


def test_a_fixed_batch_is_measured_as_it_is(tmp_path: Path) -> None:
    info = probe_model(
        conv_model(tmp_path / "m.onnx", batch=3, features=32, layout="NHWC", dtype="float16")
    )
    memory = measure_tile_memory(info, Size(128, 96))
    assert list(memory.batch_bytes) == [3]
    assert memory.per_tile_bytes == memory.batch_bytes[3] // 3 > 0


def test_failures_are_told(tmp_path: Path, x2_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe_model(x2_model)
    with pytest.raises(StageError, match=r"1 tile of 192x160 failed: .* more than 0\.01 seconds"):
        measure_tile_memory(info, TILE, timeout_s=0.01)
    with pytest.raises(StageError, match=r"failed: model file .* does not exist"):
        measure_tile_memory(replace(info, path=str(tmp_path / "gone.onnx")), TILE)
    with pytest.raises(StageError, match=r"failed: model .* failed on a batch"):
        measure_tile_memory(replace(info, channels=1), TILE)
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(OutOfMemoryError, match="too little memory"):
        measure_tile_memory(info, TILE)


def test_default_tile(tmp_path: Path, x2_model: Path) -> None:
    assert default_tile(probe_model(x2_model)) == Size(256, 256)
    recommended = conv_model(tmp_path / "r.onnx", multiple=12, metadata={"tile_size": "100"})
    assert default_tile(probe_model(recommended)) == Size(96, 96)
    fixed = conv_model(tmp_path / "f.onnx", height=40, width=56)
    assert default_tile(probe_model(fixed)) == Size(56, 40)
