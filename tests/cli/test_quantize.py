"""``srpipe quantize``: its report, and its errors."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from srpipe.cli.quantize import describe
from srpipe.models.quantize import QuantizeReport
from tests.processes import run_srpipe

_REPORT = QuantizeReport(
    source="m.onnx",
    target="q.onnx",
    calibration_tiles=16,
    check_tiles=4,
    tile_px=(128, 128),
    integer_convolutions=17,
    float_convolutions=1,
    split_prelu=True,
    psnr_db=46.23,
    float_mp_s=0.25,
    int8_mp_s=0.5,
    source_bytes=2_000_000,
    target_bytes=1_000_000,
)


def test_the_report_and_nothing_else(tmp_path: Path, photograph: Path, x2_model: Path) -> None:
    target = tmp_path / "q.onnx"
    options = ("--calibrate", photograph, "--tiles", 4, "--tile-size", 32)
    done = run_srpipe("quantize", x2_model, target, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.is_file()
    assert re.search(r"calibrated on +4 tiles of 32x32", done.stdout)
    assert re.search(r"convolutions +\d in INT8, \d in float", done.stdout)
    assert re.search(r"MP/s, float32 .* MP/s: \d+\.\d\d times as fast", done.stdout)
    again = run_srpipe("quantize", x2_model, target, *options)
    assert again.returncode == 2
    assert again.stderr.strip().count("\n") == 0
    assert "--overwrite" in again.stderr
    done = run_srpipe("quantize", x2_model, target, *options, "--overwrite", "--json")
    report = json.loads(done.stdout)
    assert report["gain"] > 0
    assert report["calibration_tiles"] == 4


def test_images_are_required(tmp_path: Path, x2_model: Path) -> None:
    done = run_srpipe("quantize", x2_model, tmp_path / "q.onnx")
    assert done.returncode == 2
    assert "--calibrate" in done.stderr


def test_it_says_when_it_does_not_pay() -> None:
    assert "2.00 times as fast" in describe(_REPORT)
    assert "no faster" not in describe(_REPORT)
    assert "differs" not in describe(_REPORT)
    assert "INT8 is no faster on this machine" in describe(replace(_REPORT, int8_mp_s=0.251))
    assert "differs from float32 by more" in describe(replace(_REPORT, psnr_db=44.9))
