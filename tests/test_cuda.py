"""On a machine with a CUDA device; elsewhere all of it is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import srpipe
from srpipe.io.devices import available_devices
from srpipe.io.session import Session
from srpipe.models.zoo import find_model
from tests.conftest import read_pixels


def _starts() -> bool:
    try:
        Session(str(find_model("lite-x2")), "cuda:0", 1)
    except srpipe.SrpipeError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    "cuda" not in available_devices() or not _starts(), reason="there is no CUDA device"
)


def enhanced(source: Path, output: Path, **options: Any) -> np.ndarray:
    srpipe.enhance(source, output, tile_size=64, overwrite=True, **options)
    return read_pixels(output)


def test_a_gpu_gives_what_a_cpu_gives(tmp_path: Path, photograph: Path) -> None:
    on_cpu = enhanced(photograph, tmp_path / "cpu.v", device="cpu").astype(int)
    for device in ("auto", "cuda", "0"):
        on_gpu = enhanced(photograph, tmp_path / "gpu.v", device=device).astype(int)
        assert np.abs(on_gpu - on_cpu).max() <= 2


def test_engines_and_transfers_agree_on_a_gpu(tmp_path: Path, photograph: Path) -> None:
    reference = enhanced(photograph, tmp_path / "a.v", device="cuda", engine="serial")
    for transfer in ("float", "integer"):
        same = enhanced(
            photograph, tmp_path / "b.v", device="cuda", engine="local", transfer=transfer
        )
        np.testing.assert_array_equal(same, reference)


def test_a_gpu_that_is_not_there(tmp_path: Path, photograph: Path) -> None:
    with pytest.raises(srpipe.DeviceError, match="'cuda:63' could not be started"):
        enhanced(photograph, tmp_path / "c.v", device="cuda:63")
