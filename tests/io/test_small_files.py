"""Where a file is expected, pipes, devices and endless files are an error at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from srpipe.errors import ModelError, OutputError
from srpipe.io.cache import read_cached_json
from srpipe.io.external_data import hash_model
from srpipe.io.small_files import open_regular, parse_json, read_json, read_small
from srpipe.manifest import Manifest
from tests.conftest import photograph_pixels, write_pixels
from tests.io.test_external_data import external_model
from tests.onnx_models import conv_model
from tests.processes import output_of


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


STRANGE: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo, "link to a device": link_to_zero, "sparse": endless, "folder": Path.mkdir,
}  # fmt: skip
strange = pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE.keys())


@strange
def test_only_regular_files_of_bounded_length_are_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a")
    with pytest.raises(OSError, match=r"regular|longer"):
        read_small(tmp_path / "a", 1000)


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a"))
        with pytest.raises(OSError, match="no regular file"):
            open_regular(tmp_path / "a", os.O_RDWR)


def test_links_are_followed_or_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"[1]")
    (tmp_path / "b").symlink_to("a")
    assert read_json(tmp_path / "b") == [1]
    with pytest.raises(OSError, match="symbolic link"):
        read_json(tmp_path / "b", follow=False)
    with pytest.raises(OSError, match="symbolic link"):
        open_regular(tmp_path / "b", os.O_WRONLY | os.O_CREAT, follow=False)


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"a":' * 50_000, "1" * 5000, b"\xff", "{"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|Expecting|digits|decode"):
        parse_json(text)


@strange
def test_a_strange_cache_entry_is_dropped(cache: Path, make: Callable[[Path], None]) -> None:
    (cache / "strange").mkdir(exist_ok=True)
    entry = cache / "strange" / "a.json"
    make(entry)
    try:
        assert read_cached_json("strange", "a") is None
    finally:
        shutil.rmtree(cache / "strange")


@pytest.mark.parametrize("make", [os.mkfifo, link_to_zero])
def test_commands_end_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Whatever stands where a sidecar, weights, a mask, a picture, a model or a manifest should be."""
    source = write_pixels(tmp_path / "in.png", photograph_pixels(40, 40))
    model = conv_model(tmp_path / "x1.onnx", scale=1, layers=1)
    beside = conv_model(tmp_path / "beside.onnx", scale=1, layers=1)
    other = external_model(tmp_path, "weights.bin")
    for name in ("beside.json", "weights.bin", "odd.png", "odd.onnx", "odd.param", "odd.tgz"):
        make(tmp_path / name)
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(source, folder)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    make(outputs / "srpipe-manifest.jsonl")
    out = tmp_path / "out.png"
    commands = {
        "sidecar": (["enhance", source, out, "-m", beside], 0),
        "weights": (["enhance", source, out, "-m", other], 2),
        "mask": (["enhance", source, out, "-m", model, "--mask", "odd.png"], 2),
        "picture": (["enhance", "odd.png", out, "-m", model], 2),
        "model": (["enhance", source, out, "-m", "odd.onnx"], 2),
        "inspected": (["inspect", "odd.onnx"], 2),
        "ncnn": (["convert", "odd.param", "converted.onnx"], 2),
        "manifest": (["enhance", folder, outputs, "-m", model], 2),
        "viewer": (["compare", source, source, "-o", "a.html", "--openseadragon", "odd.tgz"], 2),
    }
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "srpipe", *map(str, words), *(["--overwrite"] * ("-m" in words))],
            cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )
        for name, (words, _) in commands.items()
    }  # fmt: skip
    for name, process in running.items():
        _, said = output_of(process)
        assert process.returncode == commands[name][1], (name, said)
        assert "Traceback" not in said
        assert name == "sidecar" or len(said.splitlines()) == 1, (name, said)


@strange
def test_a_strange_manifest_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "manifest")
    with pytest.raises(OutputError, match=r"manifest .* cannot be written"):
        Manifest(tmp_path / "manifest")


def test_a_model_longer_than_models_can_be_is_refused(tmp_path: Path) -> None:
    endless(tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="cannot be loaded as an ONNX model"):
        hash_model(str(tmp_path / "a.onnx"))


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert read_small(tmp_path / "a.json", 8) == b'{"a": 1}'
    with pytest.raises(OSError, match="longer than 7 bytes"):
        read_small(tmp_path / "a.json", 7)
