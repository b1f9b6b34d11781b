"""The scripts in examples/ run as they are, and do what they say."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.processes import PATIENCE_S, output_of

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def start(name: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def run(name: str, *arguments: object) -> tuple[int, str, str]:
    process = start(name, *arguments)
    out, err = output_of(process)
    return process.returncode, out, err


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in tested] == []


def test_a_task_is_done_once_and_says_whether_to_retry(photograph: Path, tmp_path: Path) -> None:
    output = tmp_path / "x2.tif"
    code, out, err = run("airflow_style_task.py", photograph, output)
    assert code == 0, err
    result = ast.literal_eval(out)
    assert (result["output"], result["skipped"], result["size"]) == (str(output), False, [600, 400])
    assert "tiles" in err
    modified_ns = output.stat().st_mtime_ns
    code, out, err = run("airflow_style_task.py", photograph, output)
    assert (code, ast.literal_eval(out)) == (0, {"output": str(output), "skipped": True})
    assert output.stat().st_mtime_ns == modified_ns
    code, out, err = run("airflow_style_task.py", tmp_path / "none.tif", tmp_path / "b.tif")
    assert code == 1
    assert err.startswith("not to be retried: ")
    assert "none.tif does not exist" in err


def test_a_task_that_is_stopped_can_be_retried(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "large.tif", photograph_pixels(800, 800))
    output = tmp_path / "x2.tif"
    process = start("airflow_style_task.py", source, output)
    assert process.stderr is not None
    assert "0 of " in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, err = output_of(process)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("to be retried: ")
    assert not output.exists()
    code, _, err = run("airflow_style_task.py", source, output)
    assert code == 0, err
    assert output.exists()
    assert not (tmp_path / "x2.tif.srpipe").exists()


IN_THREADS = """
import sys, threading
import srpipe
from airflow_style_task import enhance_task

source, *outputs = sys.argv[1:]
stop, said = srpipe.StopRequest(), {}

def run(output, **options):
    try:
        said[output] = enhance_task(source, output, **options)["size"]
    except srpipe.Interrupted as error:
        said[output] = "stopped"

threads = [threading.Thread(target=run, args=(output,)) for output in outputs]
threads.append(threading.Thread(target=run, args=("stopped.tif",), kwargs={
    "stop": stop, "on_progress": lambda share: stop.request()}))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print([said[output] for output in (*outputs, "stopped.tif")])
"""


def test_tasks_in_threads(tmp_path: Path) -> None:
    """As orchestrators run them that have several in one process, where no signal can be caught."""
    source = write_pixels(tmp_path / "in.tif", photograph_pixels(200, 300))
    done = subprocess.run(
        [sys.executable, "-c", IN_THREADS, source, tmp_path / "a.tif", tmp_path / "b.tif"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["[[600, 400], [600, 400], 'stopped']"], done.stderr


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_a_fan_out_goes_on_after_a_bad_image(how: str, photograph: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"no image")
    other = write_pixels(tmp_path / "other.png", photograph_pixels(80, 60))
    folder = tmp_path / "out"
    code, out, err = run("thread_or_process_fanout.py", how, folder, photograph, bad, other)
    assert code == 1, err
    lines = out.splitlines()
    assert lines[0].startswith(f"{folder}/bad.tif: failed: ")
    assert lines[1].startswith(f"{folder}/other.tif: 120x160 in ")
    assert lines[2].startswith(f"{folder}/photograph.tif: 600x400 in ")
    assert read_pixels(folder / "other.tif").shape == (160, 120, 3)


def test_a_pipe_through_tifffile(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = photograph_pixels(90, 140, dtype="uint16")
    source, output = tmp_path / "in.tif", tmp_path / "out.tif"
    tifffile.imwrite(source, pixels)
    code, _, err = run("tifffile_pipe.py", source, output)
    assert code == 0, err
    with tifffile.TiffFile(output) as tiff:
        assert tiff.shaped_metadata[0]["model"] == "lite-x2"
        assert tiff.shaped_metadata[0]["scale"] == 2
        result = tiff.asarray()
    assert (result.shape, result.dtype) == ((180, 280, 3), np.uint16)
    assert result.max() > 60000 > pixels.max()
