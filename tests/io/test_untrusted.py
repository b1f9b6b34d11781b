"""Files from strangers: loaders that libvips does not trust, and small files that claim to be vast."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import psutil
import pytest

import srpipe
from srpipe.io import space
from srpipe.io.source import read_image_info
from srpipe.io.vips import pyvips
from tests.conftest import photograph_pixels, write_pixels
from tests.processes import run_srpipe

_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{0}">'
    '<rect width="9" height="9"/></svg>'
)


@pytest.mark.parametrize("name", ["a.svg", "a.v", "disguised.tif"])
def test_untrusted_loaders_are_off_unless_allowed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".v"):
        write_pixels(path, photograph_pixels(40, 60))
    else:
        path.write_text(_SVG.format(64))
    with pytest.raises(srpipe.InputError, match=r"does not trust.*--allow-untrusted"):
        read_image_info(path)
    for command in (["inspect", path], ["enhance", path, tmp_path / "out.tif"]):
        done = run_srpipe(*command)
        assert done.returncode == 2
        assert str(path) in done.stderr
    assert read_image_info(path, allow_untrusted=True).untrusted
    done = run_srpipe("enhance", path, tmp_path / "out.tif", "--allow-untrusted")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp", ".heic"])
def test_the_formats_of_the_readme_are_trusted(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    try:
        write_pixels(path, photograph_pixels(40, 60))
    except pyvips.Error:
        pytest.skip("this libvips does not write it")
    assert not read_image_info(path).untrusted


def test_the_callers_own_pyvips_is_left_alone(tmp_path: Path, photograph: Path) -> None:
    (tmp_path / "a.svg").write_text(_SVG.format(64))
    srpipe.enhance(photograph, tmp_path / "out.tif")
    assert pyvips.Image.new_from_file(str(tmp_path / "a.svg")).width == 64


def png(width: int, height: int, interlace: int, data: bytes, text: bytes = b"") -> bytes:
    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlace)
    extra = chunk(b"zTXt", b"a\0\0" + zlib.compress(text)) if text else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data)


def refused(path: Path, tmp_path: Path, code: int = 2) -> str:
    """The one line of a request that must be refused, in little memory."""
    done = run_srpipe("enhance", path, tmp_path / "out.tif")
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out.tif").exists()
    return done.stderr


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_png_that_claims_a_hundred_gigapixels(tmp_path: Path, interlace: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(320_000, 320_000, interlace, zlib.compress(bytes(10_000_000))))
    line = refused(path, tmp_path)
    assert ("of memory, and" if interlace else "free: make room") in line


def test_a_tiff_that_claims_a_hundred_gigapixels(tmp_path: Path) -> None:
    """One strip, whose deflate stream is a bomb of its own."""
    strip = zlib.compress(bytes(50_000_000))
    tags = [
        (256, 4, 300_000), (257, 4, 300_000), (258, 3, 8), (259, 3, 8), (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 4, 300_000), (279, 4, len(strip)),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4)
    (tmp_path / "bomb.tif").write_bytes(head + strip)
    assert "free: make room" in refused(tmp_path / "bomb.tif", tmp_path)


def test_an_svg_that_claims_a_hundred_gigapixels(tmp_path: Path) -> None:
    (tmp_path / "bomb.svg").write_text(_SVG.format(300_000))
    done = run_srpipe("enhance", tmp_path / "bomb.svg", tmp_path / "o.tif", "--allow-untrusted")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_bomb_in_a_text_chunk_takes_no_memory(tmp_path: Path) -> None:
    data = zlib.compress(bytes(64 * (1 + 3 * 64)))
    (tmp_path / "text.png").write_bytes(png(64, 64, 0, data, text=bytes(400_000_000)))
    before = psutil.Process().memory_info().rss
    with contextlib.suppress(srpipe.InputError):
        assert read_image_info(tmp_path / "text.png").size.width == 64
    assert psutil.Process().memory_info().rss - before < 50_000_000


@pytest.mark.parametrize(
    ("suffix", "options", "whole"),
    [
        (".webp", {}, True), (".gif", {}, True), (".jpg", {"interlace": True}, True),
        (".jpg", {}, False), (".png", {"interlace": True}, True), (".png", {}, False),
        (".tif", {}, False),
    ],
)  # fmt: skip
def test_what_is_decoded_whole_must_fit_in_memory(
    tmp_path: Path, suffix: str, options: dict[str, bool], whole: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / f"a{suffix}"
    write_pixels(path, photograph_pixels(100, 100), **options)
    info = read_image_info(path)
    assert info.decoded_whole is whole
    least = 100 * 100 * info.bands * (2 if suffix == ".jpg" else 1)
    assert info.decoder_bytes == (least if whole else 0)
    monkeypatch.setattr(space, "available_memory_bytes", lambda: least - 1)
    if whole:
        with pytest.raises(srpipe.SpaceError, match="decoded whole, which needs"):
            srpipe.enhance(path, tmp_path / "o.tif")
    else:
        space.check_decoder_memory(str(path), info.decoder_bytes)


@pytest.mark.parametrize("place", [2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_tiff_whose_directory_is_nowhere(tmp_path: Path, place: int) -> None:
    path = tmp_path / "far.tif"
    path.write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, place) + bytes(100))
    assert str(path) in refused(path, tmp_path)
