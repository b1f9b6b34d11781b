from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from srpipe import __version__
from tests.conftest import PHOTOGRAPH, photograph_pixels, read_pixels, write_pixels
from tests.io.test_source import bad_inputs
from tests.onnx_models import classifier_model
from tests.processes import output_of, run_srpipe, start_srpipe


def fails(code: int, *arguments: object) -> str:
    """Run, expect an exit code and exactly one line on stderr, and return it."""
    done = run_srpipe(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("srpipe: ")
    return lines[0]


def test_enhance_writes_the_file_and_says_so(tmp_path: Path, photograph: Path) -> None:
    done = run_srpipe("enhance", photograph, tmp_path / "out.tif")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r".*out\.tif: 600x400 \(0\.2 MP\) from 300x200 in .*lite-x2 on cpu.*stride.*redundant.*",
        done.stderr.strip(),
    )
    assert read_pixels(tmp_path / "out.tif").shape == (400, 600, 3)


def test_depth_outscale_and_a_folder_as_output(tmp_path: Path, photograph: Path) -> None:
    output = tmp_path / "out.zarr"
    done = run_srpipe("enhance", photograph, output, "--depth", 16, "--outscale", 1.5)
    assert done.returncode == 0, done.stderr
    assert "out.zarr: 450x300" in done.stderr
    assert (output / "zarr.json").exists()
    assert "--overwrite" in fails(2, "enhance", photograph, output)
    done = run_srpipe("enhance", photograph, output, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "outscale" in fails(2, "enhance", photograph, output, "--outscale", -1)


def test_quiet_says_nothing(tmp_path: Path, photograph: Path) -> None:
    done = run_srpipe("enhance", photograph, tmp_path / "out.tif", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verbose_shows_where_time_goes(tmp_path: Path, photograph: Path) -> None:
    done = run_srpipe("enhance", photograph, tmp_path / "out.tif", "-v")
    share = r" +\d+%"
    line = rf"worker +busy{share}, waiting for input{share}, for room{share}"
    assert re.search(line, done.stderr)
    assert "was the busiest" in done.stderr


def test_json_progress(tmp_path: Path, photograph: Path, x2_model: Path) -> None:
    done = run_srpipe(
        "enhance", photograph, tmp_path / "o.tif", "-m", x2_model, "-t", 64, "--progress", "json"
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["progress"] * (len(lines) - 1) + ["report"]
    assert lines[0]["state"] == "started"
    assert lines[-2]["state"] == "finished"
    assert lines[-1]["output_size"] == {"width": 600, "height": 400}
    failed = run_srpipe("enhance", tmp_path / "no.tif", tmp_path / "p.tif", "--progress", "json")
    error = json.loads(failed.stderr)
    assert (error["event"], error["type"], error["exit_code"]) == ("error", "InputError", 2)


def test_bar_where_it_is_asked_for(tmp_path: Path) -> None:
    done = run_srpipe("enhance", PHOTOGRAPH, tmp_path / "o.tif", "--progress", "bar")
    assert re.search(r"\d+/\d+ tiles, \d+\.\d\d MP/s, .* left", done.stderr)


def test_bar_on_a_terminal(tmp_path: Path) -> None:
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminals here: {error}")
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = ["enhance", PHOTOGRAPH, tmp_path / "o.tif"]
    process = start_srpipe(*command, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal closes with the process
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    process.communicate()
    text = shown.decode()
    assert re.search(r"\d+/\d+ tiles, \d+\.\d\d MP/s", text)
    assert "2800x1576" in text.splitlines()[-1]


@pytest.mark.parametrize("name", ["missing", "folder.png", "empty.tif", "text.jpg", "many.tif"])
def test_bad_input(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    path = bad_inputs(folder)[name]
    assert str(path) in fails(2, "enhance", path, tmp_path / "out.tif")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
@pytest.mark.parametrize("workers", [None, 2])
def test_truncated_input(tmp_path: Path, suffix: str, workers: int | None) -> None:
    path = write_pixels(tmp_path / f"in{suffix}", photograph_pixels(600, 600))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    options = ["-w", workers] if workers else []
    done = run_srpipe("enhance", path, tmp_path / "out.tif", *options)
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(path) in done.stderr
    kept = {"out.tif.srpipe"} if "tiles are kept in" in done.stderr else set()
    assert {p.name for p in tmp_path.iterdir()} == {path.name} | kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "lite2"], "did you mean 'lite-x2'"),
        (["-m", "nowhere.onnx"], "nowhere.onnx does not exist"),
        (["-t", "64", "--overlap", "32"], "half of the tile size"),
        (["-t", "-1"], "tile_size is -1"),
        (["-t", "99999999"], "tile_size is 99999999"),
        (["-b", "0"], "batch_size is 0"),
        (["-w", "0"], "workers is 0"),
        (["-t", "2.5"], "no whole number"),
        (["--blend", "foo"], "invalid choice"),
        (["-d", "abacus"], "'abacus' is unknown"),
        (["-d", "cpu:1"], "'cpu:1' is unknown"),
        (["-d", "tensorrt"], "'tensorrt' is not there"),
    ],
    ids=str,
)
def test_bad_arguments(
    tmp_path: Path, photograph: Path, arguments: list[str], message: str
) -> None:
    assert message in fails(2, "enhance", photograph, tmp_path / "out.tif", *arguments)
    assert not list(tmp_path.glob("out*"))


def test_bad_models(tmp_path: Path, photograph: Path) -> None:
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"nonsense")
    assert "corrupt.onnx" in fails(2, "enhance", photograph, tmp_path / "o.tif", "-m", corrupt)
    classifier = classifier_model(tmp_path / "c.onnx")
    line = fails(2, "enhance", photograph, tmp_path / "o.tif", "-m", classifier)
    assert "no image-to-image model" in line


def test_bad_outputs(tmp_path: Path, photograph: Path) -> None:
    assert "same file" in fails(2, "enhance", photograph, photograph, "--overwrite")
    assert "does not exist" in fails(2, "enhance", photograph, tmp_path / "no" / "o.tif")
    assert "ending" in fails(2, "enhance", photograph, tmp_path / "o.bmp")
    (tmp_path / "folder.tif").mkdir()
    assert "is a folder" in fails(2, "enhance", photograph, tmp_path / "folder.tif")
    (tmp_path / "there.tif").write_text("precious")
    assert "--overwrite" in fails(2, "enhance", photograph, tmp_path / "there.tif")
    assert (tmp_path / "there.tif").read_text() == "precious"
    wide = write_pixels(tmp_path / "wide.tif", np.zeros((1, 40_000, 3), np.uint8))
    assert "65535" in fails(2, "enhance", wide, tmp_path / "o.jpg")
    assert "16383" in fails(2, "enhance", wide, tmp_path / "o.webp")


@pytest.mark.parametrize(
    "name",
    ["o.tif[colour=blue]", "o.tif[compression=zap]", "o.tif[tile,tile_width=17]", "o.v[foo=1]"],
)
def test_bad_option_of_the_format(tmp_path: Path, photograph: Path, name: str) -> None:
    assert "option" in fails(2, "enhance", photograph, f"{tmp_path}/{name}")
    assert not list(tmp_path.glob("o.*"))


def test_a_name_the_disk_does_not_take(tmp_path: Path, photograph: Path) -> None:
    fails(2, "enhance", photograph, tmp_path / f"{'x' * 300}.tif")
    fails(2, "enhance", photograph, tmp_path / f"{'x' * 245}.tif")
    bad = os.fsencode(tmp_path) + b"/caf\xe9.tif"
    assert "UTF-8" in fails(2, "enhance", photograph, os.fsdecode(bad))
    Path(os.fsdecode(bad)).write_bytes(photograph.read_bytes())
    assert "UTF-8" in fails(2, "enhance", os.fsdecode(bad), tmp_path / "o.tif")


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.tif")
    assert "no regular file" in fails(2, "enhance", tmp_path / "fifo.tif", tmp_path / "o.tif")


def test_overwriting_a_link_replaces_what_it_leads_to(
    tmp_path: Path, photograph: Path, x2_model: Path
) -> None:
    real = tmp_path / "real.tif"
    real.write_text("old")
    (tmp_path / "link.tif").symlink_to(real)
    assert "exists" in fails(2, "enhance", photograph, tmp_path / "link.tif")
    run_srpipe("enhance", photograph, tmp_path / "link.tif", "-m", x2_model, "--overwrite")
    assert (tmp_path / "link.tif").is_symlink()
    assert read_pixels(real).shape == (400, 600, 3)


def test_too_little_disk_is_known_before_the_first_tile(tmp_path: Path) -> None:
    """A PNG whose header speaks of a hundred gigapixels, on any disk."""
    header = struct.pack(">IIBBBBB", 400_000, 400_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    png = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    (tmp_path / "vast.png").write_bytes(png + struct.pack(">I", 8) + b"IDAT" + bytes(64))
    line = fails(2, "enhance", tmp_path / "vast.png", tmp_path / "o.tif")
    assert re.search(r"needs .* bytes\) and has .* bytes\) free", line)
    assert [p.name for p in tmp_path.iterdir()] == ["vast.png"]


def test_interruption_in_the_first_moments(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "large.tif", photograph_pixels(2000, 3000))
    for delay_s in (0.03, 0.1, 0.2, 0.3, 0.5):
        process = start_srpipe("enhance", source, tmp_path / "o.tif", "--fresh")
        time.sleep(delay_s)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, err = output_of(process)
        # Whichever is delivered first; before Python is set up, the signal's own way.
        assert process.returncode in (143, 130, -signal.SIGTERM)
        assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path, photograph: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    line = fails(2, "enhance", photograph, tmp_path / "locked" / "o.tif")
    assert "permissions" in line


def test_usage_errors_exit_with_2() -> None:
    assert run_srpipe("enhance").returncode == 2
    assert run_srpipe("dance").returncode == 2
    assert run_srpipe("--version").stdout.strip() == f"srpipe {__version__}"


def test_inspect_image(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "a.png", photograph_pixels(20, 30, 4, "uint16"))
    assert "30x20" in run_srpipe("inspect", path).stdout
    facts = json.loads(run_srpipe("inspect", path, "--json").stdout)
    assert facts["kind"] == "image"
    assert (facts["size"], facts["bands"], facts["dtype"]) == (
        {"width": 30, "height": 20}, 4, "uint16",
    )  # fmt: skip


def test_inspect_model(x2_model: Path) -> None:
    facts = json.loads(run_srpipe("inspect", x2_model, "--json").stdout)
    assert (facts["kind"], facts["scale"], facts["layout"]) == ("model", 2, "NCHW")
    assert "free, multiples of 1" in run_srpipe("inspect", "lite-x2").stdout


def test_models_lists_the_box() -> None:
    listed = run_srpipe("models").stdout
    assert re.search(r"lite-x2 \(default\) +x2 +\d+ +MIT +\S+", listed)


def test_pages_beyond_the_first_are_mentioned(tmp_path: Path, x2_model: Path) -> None:
    page = photograph_pixels(40, 40)
    both = write_pixels(tmp_path / "in.tif", np.vstack([page, page[::-1]]), page_height=40)
    done = run_srpipe("enhance", both, tmp_path / "o.tif", "-m", x2_model)
    assert "2 pages: only the first" in done.stderr
    assert read_pixels(tmp_path / "o.tif").shape == (80, 80, 3)
    done = run_srpipe("enhance", both, tmp_path / "p.tif", "-m", x2_model, "--progress", "json")
    assert json.loads(done.stderr.splitlines()[0])["event"] == "log"
