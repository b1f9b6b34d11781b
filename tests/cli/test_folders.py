"""``srpipe enhance`` on folders and lists."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from srpipe.folders import MANIFEST_FILE
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import (
    PATIENCE_S,
    output_of,
    run_srpipe,
    start_srpipe,
    wait_until,
    without_notes,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.tif", "b.png", "deep/c.tif"):
        write_pixels(folder / name, photograph_pixels(60, 70))
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_srpipe("enhance", *arguments, "-t", "48")


def test_a_folder(source: Path, tmp_path: Path, x2_model: Path) -> None:
    target = tmp_path / "out"
    (source / "broken.jpg").write_bytes(b"no picture")
    done = run(source, target, "-m", x2_model)
    assert done.returncode == 1
    assert f"srpipe: {source / 'broken.jpg'}: " in done.stderr
    assert f"{target}: 3 done, 1 failed of 4." in done.stderr
    assert (target / "deep" / "c.tif").exists()
    (source / "broken.jpg").unlink()
    again = run(source, target, "-m", x2_model)
    assert (again.returncode, again.stderr) == (0, f"{target}: 3 done before of 3.\n")
    some = run(source, tmp_path / "some", "-m", x2_model, "--glob", "*.tif", "--glob", "*.png",
               "--name", "{stem}-x2.tif", "--progress", "json")  # fmt: skip
    events = [json.loads(line) for line in some.stderr.splitlines()]
    assert {Path(event["output"]).name for event in events} == {"a-x2.tif", "b-x2.tif"}
    assert {event["event"] for event in events} == {"done"}
    assert (tmp_path / "some" / MANIFEST_FILE).read_text().count('"done"') == 2


@pytest.mark.parametrize("end", ["\n", "\0"])
def test_a_list(source: Path, tmp_path: Path, x2_model: Path, end: str) -> None:
    listed = end.join([str(source / "a.tif"), str(source / "deep" / "c.tif"), ""])
    null = ["--null"] if end == "\0" else []
    command = [sys.executable, "-m", "srpipe", "enhance", "-", tmp_path / "out", *null]
    done = subprocess.run(
        [*command, "-m", x2_model], input=listed, text=True, capture_output=True, timeout=PATIENCE_S
    )
    assert (done.returncode, without_notes(done.stderr)) == (
        0,
        f"{tmp_path / 'out'}: 2 done of 2.\n",
    )
    assert (tmp_path / "out" / "c.tif").exists()


def test_interrupted_and_gone_on_with(source: Path, tmp_path: Path) -> None:
    model, target = conv_model(tmp_path / "slow.onnx", layers=8, features=64), tmp_path / "out"
    for name in ("a.tif", "b.png", "deep/c.tif"):
        write_pixels(source / name, photograph_pixels(260, 260))
    arguments = ("enhance", str(source), str(target), "-m", str(model), "-t", "48")
    process = start_srpipe(*arguments)
    wait_until(lambda: list(target.glob("*.srpipe")), "a job folder")
    process.send_signal(signal.SIGINT)
    _, said = output_of(process)
    assert process.returncode == 130, said
    assert "interrupted: repeat the command to go on" in said
    assert "Traceback" not in said
    again = run_srpipe(*arguments)
    assert again.returncode == 0, again.stderr
    assert len(list(target.rglob("*.*"))) == 4


def test_what_makes_no_sense(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((source, tmp_path / "out.tif"), "has the ending of one: name a folder"),
        ((tmp_path / "empty", tmp_path / "out"), "holds no images"),
        ((source, tmp_path / "out", "--glob", "*.webp"), "holds no images"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
    assert not (tmp_path / "out").exists()
