"""What a file tells is carried, or named in one warning; no resolution is made up."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

import srpipe
from tests.conftest import photograph_pixels
from tests.onnx_models import conv_model

PIXELS = photograph_pixels(40, 60)
RPC = tuple(float(n) for n in range(92))
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels'
    ' PhysicalSizeX="500" PhysicalSizeXUnit="nm" PhysicalSizeY="0.25" PhysicalSizeYUnit="µm"/></Image>'
    "</OME>"
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, *chunks: bytes, **options: Any) -> Path:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "PNG", **options)
    data = content.getvalue()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def write_jpeg(path: Path, *segments: tuple[int, bytes], unit: int = 0, **options: Any) -> Path:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "JPEG", quality=95, **options)
    data = bytearray(content.getvalue())
    data[13] = unit
    more = b"".join(struct.pack(">BBH", 0xFF, m, len(d) + 2) + d for m, d in segments)
    path.write_bytes(data[:20] + more + data[20:])
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return conv_model(tmp_path / "x2.onnx")


def warned(caplog: pytest.LogCaptureFixture, source: Path, output: str, model: Path) -> str:
    """Enhance, and return what a warning says is left out."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "srpipe"):
        srpipe.enhance(source, source.parent / output, model=model, overwrite=True)
    said = [r.getMessage() for r in caplog.records if "will not have" in r.getMessage()]
    assert len(said) <= 1
    return said[0].rsplit(" tells: ", 1)[1] if said else ""


def test_what_a_png_tells(tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "somebody")
    texts.add_text("Title", "a long one " * 30, zip=True)
    source = write_png(
        tmp_path / "in.png", chunk(b"gAMA", struct.pack(">I", 100_000)),
        chunk(b"cICP", bytes((9, 16, 0, 1))), pnginfo=texts,
    )  # fmt: skip
    assert warned(caplog, source, "out.png", model) == (
        "its gamma of 1 (gAMA), its color space (cICP)."
    )
    with Image.open(tmp_path / "out.png") as written:
        assert written.text == {"Author": "somebody", "Title": "a long one " * 30}  # type: ignore[attr-defined]
    assert "its texts" in warned(caplog, source, "out.jpg", model)
    plain = write_png(tmp_path / "srgb.png", chunk(b"gAMA", struct.pack(">I", 45_455)))
    assert warned(caplog, plain, "out.tif", model) == ""


def test_what_a_jpeg_tells(tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_jpeg(
        tmp_path / "in.jpg",
        (0xFE, b"a comment"),
        (0xE2, b"MPF\0" + bytes(30)),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta hdrgm:Version='1.0'/>"),
    )
    said = warned(caplog, source, "out.png", model)
    for name in ("its comment", "further pictures (MPF), such as a gain map", "its gain map"):
        assert name in said
    assert "XMP" in warned(caplog, source, "out.raw", model)
    assert warned(caplog, write_jpeg(tmp_path / "plain.jpg"), "out.raw", model) == ""


@pytest.mark.parametrize("kind", ["tif", "jpg", "png"])
def test_a_damaged_profile_is_named(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    damaged = b"no profile at all" * 20
    source = tmp_path / f"in.{kind}"
    if kind == "tif":
        tifffile.imwrite(source, PIXELS, photometric="rgb", iccprofile=damaged)
    elif kind == "jpg":
        write_jpeg(source, (0xE2, b"ICC_PROFILE\0\1\1" + damaged))
    else:
        write_png(source, chunk(b"iCCP", b"x\0\0" + zlib.compress(damaged)))
    for output in ("out.tif", "out.png", "out.jpg"):
        assert "profile, which is damaged" in warned(caplog, source, output, model)
        with Image.open(tmp_path / output) as written:
            assert not written.info.get("icc_profile")


def test_rpc_tags_are_moved_with_the_pixels(tmp_path: Path, model: Path) -> None:
    tifffile.imwrite(
        tmp_path / "in.tif", PIXELS, photometric="rgb", extratags=[(50844, "d", 92, RPC, True)]
    )
    srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.tif", model=model, region=(10, 6, 40, 30))
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        found = file.pages[0].tags[50844].value  # type: ignore[union-attr]
    # The middle of input pixel 2 of line, 3 of sample, counted from the middle of the first.
    assert found[2:4] == ((2 - 6 + 0.5) * 2 - 0.5, (3 - 10 + 0.5) * 2 - 0.5)
    assert found[7:9] == (14, 16)
    assert (found[:2], found[4:7], found[9:]) == (RPC[:2], RPC[4:7], RPC[9:])


@pytest.mark.parametrize("text", [OME, "Aperio Image Library v1|AppMag = 20|MPP = 0.5000"])
def test_pixel_sizes_become_the_resolution(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    source = tmp_path / "in.tif"
    tifffile.imwrite(source, PIXELS, photometric="rgb", description=text.encode(), metadata=None)
    said = warned(caplog, source, "out.tif", model)
    assert said.endswith("description.")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        x, y = (tags[n].value[0] / tags[n].value[1] for n in (282, 283))
        per_um = {2: 25_400, 3: 10_000}[tags[296].value]
    assert per_um / x == pytest.approx(0.25, rel=1e-3)
    assert per_um / y == pytest.approx(0.125 if text is OME else 0.25, rel=1e-3)
    assert "its pixel size" in warned(caplog, source, "out.jpg", model)


def write_without_unit(folder: Path, kind: str) -> Path:
    path = folder / f"in.{kind[-3:]}"
    if kind == "none.tif":
        tifffile.imwrite(path, PIXELS, photometric="rgb", resolution=(1, 1), resolutionunit=1)
    elif kind == "ratio.tif":
        tifffile.imwrite(path, PIXELS, photometric="rgb", resolution=(2, 1), resolutionunit=1)
    elif kind == "bare.tif":
        Image.fromarray(PIXELS).save(path)
    elif kind == "bare.png":
        write_png(path)
    elif kind == "unit.png":
        write_png(path, chunk(b"pHYs", struct.pack(">IIB", 1, 1, 0)))
    else:
        write_jpeg(path)
    return path


@pytest.mark.parametrize(
    "kind", ["none.tif", "ratio.tif", "bare.tif", "bare.png", "unit.png", "bare.jpg"]
)
def test_a_resolution_that_nobody_gave_is_not_made_up(
    tmp_path: Path, model: Path, kind: str
) -> None:
    source = write_without_unit(tmp_path, kind)
    ratio = 2 if kind == "ratio.tif" else 1
    srpipe.enhance(source, tmp_path / "out.tif", model=model)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        assert tags[296].value == 1
        x, y = (tags[n].value[0] / tags[n].value[1] for n in (282, 283))
        assert x / y == ratio
    srpipe.enhance(source, tmp_path / "out.png", model=model)
    with Image.open(tmp_path / "out.png") as png:
        assert "dpi" not in png.info
        across, down = png.info["aspect"]
        assert across / down == ratio
    srpipe.enhance(source, tmp_path / "out.jpg", model=model)
    with Image.open(tmp_path / "out.jpg") as jpeg:
        exif = jpeg.getexif()  # 72 is EXIF's word for nothing known
        assert (exif[282], exif[283]) == (pytest.approx(72 * ratio, rel=1e-3), 72)


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_a_resolution_with_a_unit_is_multiplied(tmp_path: Path, model: Path, suffix: str) -> None:
    source = tmp_path / f"in.{suffix}"
    Image.fromarray(PIXELS).save(source, dpi=(300, 150))
    for output in ("out.tif", "out.png", "out.jpg"):
        srpipe.enhance(source, tmp_path / output, model=model, overwrite=True)
        with Image.open(tmp_path / output) as written:
            exif = written.getexif()
            sides = (exif[282], exif[283]) if output.endswith("jpg") else written.info["dpi"]
            dpi = np.array(sides, float)
        np.testing.assert_allclose(dpi, (600, 300), rtol=1e-3)
