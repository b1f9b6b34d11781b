"""What strangers named reaches the terminal escaped, in every command, whatever its encoding."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import onnx
import pytest

from srpipe.terminal import LineFormatter, printable
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import PATIENCE_S

EVIL = "red\x1b[31m\x9b2J\n\rsrpipe: done.\x07 \u202eabc\u2028\x7f"
SHOWN = r"red\x1b[31m\x9b2J\n\rsrpipe: done.\x07 \u202eabc\u2028\x7f"


def run(
    folder: Path, *arguments: object, stdin: bytes = b"", **environment: str
) -> tuple[int, str, str]:
    """``srpipe`` in a process of its own; what it says must hold nothing but printable lines."""
    done = subprocess.run(
        [sys.executable, "-m", "srpipe", *map(str, arguments)],
        cwd=folder, input=stdin, capture_output=True, check=False, timeout=PATIENCE_S,
        env=os.environ | environment,
    )  # fmt: skip
    out, err = done.stdout.decode(), done.stderr.decode()
    for line in (out + err).split("\n"):
        assert line.isprintable(), repr(line)
        assert not line.startswith("srpipe: done"), line
        assert "Traceback" not in line, err
    return done.returncode, out, err


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    plain = write_pixels(tmp_path / "plain.png", photograph_pixels(40, 40))
    return plain.rename(tmp_path / f"{EVIL}.png")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Its nodes, inputs, outputs and metadata have evil names."""
    plain = conv_model(tmp_path / "plain.onnx", scale=1, layers=2)
    graph = onnx.load(plain)
    for i, node in enumerate(graph.graph.node):
        node.name = f"{EVIL}{i}"
    renamed = {port.name: EVIL + port.name for port in (*graph.graph.input, *graph.graph.output)}
    for port in (*graph.graph.input, *graph.graph.output):
        port.name = renamed[port.name]
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    graph.producer_name = EVIL
    for key in ("scale", EVIL, "author"):
        graph.metadata_props.add(key=key, value="1" if key == "scale" else EVIL)
    path = tmp_path / f"{EVIL}.onnx"
    onnx.save(graph, path)
    plain.unlink()
    return path


@pytest.mark.parametrize("text", ["plain", "größe ☃ 漢字 …", r"a\x1b"])
def test_what_prints_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_every_character_is_printable() -> None:
    for number in range(0x110000):
        shown = printable(chr(number))
        assert shown.isprintable()
        assert all(unicodedata.category(char)[0] not in "C" for char in shown)
    assert printable(EVIL) == SHOWN
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\xe9"


def test_pictures_and_models(tmp_path: Path, picture: Path, model: Path) -> None:
    words = [picture, tmp_path / f"{EVIL}.tif", "-m", model]
    for command in (["plan", *words], ["inspect", picture], ["inspect", model]):
        code, out, err = run(tmp_path, *command)
        assert (code, err) == (0, ""), err
        assert SHOWN in out
    code, _, err = run(tmp_path, "enhance", *words, "-v")
    assert code == 0, err
    assert err.count(SHOWN) >= 2
    code, out, _ = run(tmp_path, "inspect", model, "--json")
    assert code == 0
    assert json.loads(out)["metadata"]["author"] == EVIL
    after = tmp_path / f"{EVIL}.tif"
    code, out, _ = run(tmp_path, "compare", picture, after, "-o", tmp_path / f"{EVIL} pair.png")
    assert (code, SHOWN in out) == (0, True)
    for name in ("missing.png", "damaged.png", "damaged.onnx"):
        (tmp_path / f"{EVIL}damaged{Path(name).suffix}").write_bytes(b"nothing")
        odd = tmp_path / f"{EVIL}{name}"
        model_of = odd if name.endswith(".onnx") else model
        source = picture if name.endswith(".onnx") else odd
        code, _, err = run(tmp_path, "enhance", source, tmp_path / "out.png", "-m", model_of)
        assert (code, err.count("\n"), SHOWN in err) == (2, 1, True)


def test_arguments_and_environment(tmp_path: Path) -> None:
    for arguments in (
        ["enhance", "a.png", "b.png", "--engine", EVIL],
        ["enhance", "a.png", "b.png", f"--{EVIL}"],
        [EVIL],
        ["models", EVIL],
    ):
        code, _, err = run(tmp_path, *arguments)
        assert (code, err.count("\n")) == (2, 1)
    folder = tmp_path / EVIL
    folder.mkdir()
    code, out, _ = run(tmp_path, "doctor", TMPDIR=str(folder))
    assert code in (0, 1)
    assert SHOWN in out


def test_jobs_and_folders(tmp_path: Path, picture: Path, model: Path) -> None:
    inputs = tmp_path / EVIL
    inputs.mkdir()
    picture.rename(inputs / picture.name)
    (inputs / f"{EVIL}2.png").write_bytes(b"nothing")
    code, _, err = run(tmp_path, "enhance", inputs, tmp_path / f"{EVIL}out", "-m", model)
    assert (code, err.count(SHOWN) >= 3) == (1, True)
    listed = os.fsencode(inputs / picture.name) + b"\0" + b"caf\xe9.png\0"
    code, _, err = run(tmp_path, "enhance", "-", "listed", "--null", "-m", model, stdin=listed)
    assert code == 1
    assert r"caf\xe9.png" in err
    job = tmp_path / "out.png.srpipe"
    job.mkdir()
    (job / "srpipe.lock").write_text(json.dumps({"host": EVIL, "boot": EVIL, "pid": 1}))
    code, _, err = run(tmp_path, "enhance", inputs / picture.name, "out.png", "-m", model)
    assert (code, SHOWN in err) == (2, True)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1:strict"},
    ],
)
def test_other_encodings(tmp_path: Path, environment: dict[str, str]) -> None:
    source = write_pixels(tmp_path / "plain.png", photograph_pixels(40, 40))
    odd = source.rename(tmp_path / "schnee ☃.png")
    code, out, err = run(tmp_path, "inspect", odd, **environment)
    # Where file names are ASCII too, libvips does not get its name.
    if "LC_ALL" in environment:
        assert (code, r"schnee \xe2\x98\x83.png is not a name in UTF-8" in err) == (2, True)
    else:
        assert (code, r"schnee \u2603.png" in out) == (0, True), err
    code, _, err = run(tmp_path, "enhance", odd, tmp_path / "☃.tif", **environment)
    assert code == (2 if "LC_ALL" in environment else 0), err


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff\xfe"])
def test_names_that_are_no_text(tmp_path: Path, name: bytes) -> None:
    odd = os.fsdecode(name)
    source = write_pixels(tmp_path / "plain.png", photograph_pixels(40, 40))
    picture = tmp_path / f"{odd}.png"
    picture.write_bytes(source.read_bytes())
    model = tmp_path / f"{odd}.onnx"
    model.write_bytes(conv_model(tmp_path / "x1.onnx", scale=1, layers=1).read_bytes())
    for arguments in (
        ["enhance", picture, "out.tif"],
        ["enhance", source, f"{odd}.tif"],
        ["enhance", source, "out.tif", "-m", model],
        ["enhance", source, "out.tif", "--mask", picture],
        ["plan", picture, "out.tif"],
        ["inspect", picture],
        ["inspect", model],
        ["compare", source, picture, "-o", "a.html"],
        ["compare", source, source, "-o", f"{odd}.html"],
        ["status", picture],
        ["tune", model],
    ):
        code, _, err = run(tmp_path, *arguments)
        assert code == 2, arguments
        assert printable(odd) in err


def test_the_bar(tmp_path: Path, picture: Path, model: Path) -> None:
    """On a terminal: nothing of the name but what prints, beside the bar's own sequences."""
    try:
        screen, theirs = pty.openpty()
    except OSError:
        pytest.skip("there are no terminals here")
    command = ["enhance", picture, tmp_path / "out.tif", "-m", model, "-t", "16", "--overlap", "4"]
    with subprocess.Popen(
        [sys.executable, "-m", "srpipe", *map(str, command), "--progress", "bar"],
        stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        while True:
            try:
                data = os.read(screen, 1000)
            except OSError:  # its other end is closed
                break
            if not data:
                break
            said += data
        assert process.wait(PATIENCE_S) == 0, said
    os.close(screen)
    assert SHOWN in said.decode()
    for part in ("\x1b[31m", "\x9b", "\x07", "\u202e", "\nsrpipe: done"):
        assert part not in said.decode()


def test_records_are_one_line_but_for_debugging() -> None:
    def shown(level: int, message: str) -> str:
        return LineFormatter().format(
            logging.LogRecord("srpipe", level, "", 0, "%s", (message,), None)
        )

    assert shown(logging.WARNING, "a\nb") == r"srpipe: a\nb"
    assert shown(logging.DEBUG, "Traceback:\n  x\x1b\n") == "srpipe: Traceback:\n    x\\x1b\n  "
