from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from srpipe.cli.main import main
from srpipe.models.zoo import bundled_models
from tests.conftest import PHOTOGRAPH
from tests.models.test_seams import global_model
from tests.onnx_models import conv_model
from tests.processes import without_notes


def test_everything_that_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = conv_model(tmp_path / "m.onnx", batch=1, metadata={"name": "mine"})
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr()
    assert without_notes(said.err) == ""
    for line in (
        r"input +input, FLOAT\n +Dimension 0: fixed \(1\)\n +Dimension 1: fixed \(3\)\n"
        r" +Dimension 2: dynamic \(height\)\n +Dimension 3: dynamic \(width\)\n",
        r"radius +2 input pixels \(measured\)",
        r"operators +Conv 2, ",
        r"parameters +1,100",
        r"FLOPs +2,160 per input pixel",
        r"memory +\d.* MB for each tile of 256x256 \(batch of 1: .*; the model itself: .*\)",
        r"opset +17 ",
        r"seam class +not measured \(--seams\)",
        r"metadata name +mine",
    ):
        assert re.search(line, said.out), line


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = conv_model(tmp_path / "m.onnx", layers=1, metadata={"tile_size": "48"})
    assert main(["inspect", str(path), "--json", "--seams"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["graph"]["inputs"][0]["dims"] == ["batch", 3, "height", "width"]
    assert facts["graph"]["parameters"] == 3 * 12 * 9 + 12
    assert facts["tile_memory"]["tile"] == {"width": 48, "height": 48}
    assert facts["tile_memory_error"] is None
    assert facts["seams"]["seam_class"] == "exact"
    assert facts["seams"]["shifted"]["away"] == {"largest_levels": 0, "mean_levels": 0}


def test_seams_are_written_only_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = global_model(tmp_path / "m.onnx")
    before = path.read_bytes()
    command = ["inspect", str(path), "--seams", str(PHOTOGRAPH), "-t", "64", "--overlap", "8"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert re.search(r"seam class +discouraged: tiles differ everywhere", out)
    assert re.search(r"seams +tiles of 64x64, overlap 8, against the whole crop of 120x120", out)
    assert re.search(r"  grid +at seams at most \d+\.\d\d, mean .*; away at most \d+\.\d\d", out)
    assert path.read_bytes() == before
    assert main([*command, "--write"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"seam class +discouraged \(from the metadata\)", out)
    assert re.search(r"metadata seam_tile +64x64, overlap 8", out)


def test_requests_that_make_no_sense(
    tmp_path: Path, x2_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["lite-x2", "--seams", "--write"], "would change the bundled model lite-x2"),
        ([x2_model, "--write"], "go with --seams"),
        ([x2_model, "--overlap", "0"], "go with --seams"),
        ([x2_model, "-t", "0"], "go with --seams"),
        ([PHOTOGRAPH, "--seams"], "no .onnx file"),
        ([x2_model, "--seams", tmp_path / "gone.tif"], "gone.tif does not exist"),
        ([x2_model, "--seams", "-t", "16", "--overlap", "8"], "half of the tile size"),
    ):
        assert main(["inspect", *map(str, arguments)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert re.fullmatch(f"srpipe: .*{message}.*\n", said.err), said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "-5"], "tile_size is -5"),
        (["-t", "0"], "tile_size is 0"),
        (["-t", "9000"], "tile_size is 9000"),
        (["--overlap", "-1"], "overlap is -1"),
        (["--write"], "m.onnx is write-protected"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Before the model is so much as read, which here is none."""
    path = tmp_path / "m.onnx"
    path.write_text("no model")
    path.chmod(0o444)
    assert main(["inspect", str(path), "--seams", *arguments]) == 2
    assert re.fullmatch(f"srpipe: .*{message}.*\n", capsys.readouterr().err)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "locked" / "m.onnx"
    path.parent.mkdir()
    path.write_text("no model")
    path.parent.chmod(0o555)
    assert main(["inspect", str(path), "--seams", "--write"]) == 2
    assert "m.onnx cannot be written (Permission denied)" in capsys.readouterr().err


def test_the_box_shows_seam_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = tmp_path / "box"
    box.mkdir()
    path = shutil.copy(bundled_models()["lite-x2"], box / "lite-x2.onnx")
    conv_model(box / "other-x2.onnx", metadata={"seam_class": "blended", "licence": "MIT"})
    assert main(["inspect", str(path), "--seams", "-t", "64", "--write"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("srpipe.models.zoo._FOLDERS", (box,))
    assert main(["models"]) == 0
    header, lite, other = capsys.readouterr().out.splitlines()
    column = header.index("seams")
    assert lite[column:].startswith("exact ")
    assert other[column:].startswith("blended ")


def test_a_whole_crop_too_large_for_memory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two thousand planes of 16000x16000 pixels."""
    path = conv_model(tmp_path / "m.onnx", features=2000, metadata={"tile_size": "16"})
    assert main(["inspect", str(path), "--seams", "-t", "8000"]) == 2
    assert re.search(r"about \d.* TB of memory, .* free: .*--tile-size", capsys.readouterr().err)
