"""Metadata that claim to be far larger than they can be: refused, or left out with a warning."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import pytest

import srpipe
from srpipe.io.tiff_directory import read_tags
from srpipe.io.vips import pyvips
from tests.conftest import photograph_pixels, read_pixels, write_pixels

BLOCK_BYTES = 1 << 20


def shared_block(order: str, entries: int = 2000, kind: int = 7) -> bytes:
    """An 8x8 TIFF whose EXIF has so many entries that all lead to one block."""
    exif_at = 8 + 2 + 12 * 9 + 4
    data_at = exif_at + 2 + 12 * entries + 4
    tags = [
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, data_at), (278, 3, 1, 8), (279, 4, 1, 64), (34665, 4, 1, exif_at),
    ]  # fmt: skip
    value = {3: "H2x", 4: "I"}
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    head += struct.pack(f"{order}H", len(tags))
    head += b"".join(struct.pack(f"{order}HHI{value[k]}", n, k, c, v) for n, k, c, v in tags)
    inside = struct.pack(f"{order}H", entries)
    inside += b"".join(
        struct.pack(f"{order}HHII", 40000 + i, kind, BLOCK_BYTES, data_at) for i in range(entries)
    )
    end = struct.pack(f"{order}I", 0)
    return head + end + inside + end + bytes(range(64)) + bytes(BLOCK_BYTES - 64)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("engine", ["serial", "local"])
def test_entries_that_share_a_block_are_left_out(
    tmp_path: Path, x2_model: Path, caplog: pytest.LogCaptureFixture, order: str, engine: str
) -> None:
    bomb, output = tmp_path / "bomb.tif", tmp_path / "out.tif"
    bomb.write_bytes(shared_block(order))
    srpipe.enhance(bomb, output, model=x2_model, engine=engine)
    assert "bomb.tif claims 2.1 GB of EXIF: they are left out" in caplog.text
    assert output.stat().st_size < 10_000
    plain = write_pixels(tmp_path / "plain.png", read_pixels(bomb))
    srpipe.enhance(plain, tmp_path / "plain.tif", model=x2_model)
    assert (read_pixels(output) == read_pixels(tmp_path / "plain.tif")).all()


@pytest.mark.parametrize("kind", [3, 7, 12])
def test_all_tags_together_are_bounded(tmp_path: Path, kind: int) -> None:
    bomb = tmp_path / "bomb.tif"
    bomb.write_bytes(shared_block(">", kind=kind))
    with bomb.open("rb") as file:
        assert [tag.number for tag in read_tags(file, (256,), (34665,))] == [256]
    with bomb.open("rb") as file:  # the same bytes as the image's own tags
        assert read_tags(file, (256, 273)) != ()


def test_a_jpeg_of_markers_is_refused(tmp_path: Path, x2_model: Path) -> None:
    plain = pyvips.Image.new_from_file(
        str(write_pixels(tmp_path / "plain.png", photograph_pixels(40, 40)))
    ).jpegsave_buffer()
    for name, marker, label in (
        ("icc.jpg", 0xE2, b"ICC_PROFILE\0\1\1"),
        ("xmp.jpg", 0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
        ("comments.jpg", 0xFE, b""),
    ):
        segment = struct.pack(">BBH", 0xFF, marker, 65535) + label.ljust(65533, b" ")
        (tmp_path / name).write_bytes(plain[:2] + segment * 300 + plain[2:])
        with pytest.raises(srpipe.InputError, match=r"holds 19.7 MB of metadata"):
            srpipe.enhance(tmp_path / name, tmp_path / "out.tif", model=x2_model)


def test_a_webp_of_a_large_profile_is_refused(tmp_path: Path, x2_model: Path) -> None:
    image = pyvips.Image.new_from_file(
        str(write_pixels(tmp_path / "plain.png", photograph_pixels(40, 40)))
    ).webpsave_buffer(lossless=True)
    extended = b"VP8X" + struct.pack("<IB3x", 10, 0x20) + struct.pack("<I", 39)[:3] * 2
    profile = b"ICCP" + struct.pack("<I", 20_000_000) + bytes(20_000_000)
    body = b"WEBP" + extended + profile + image[12:]
    (tmp_path / "icc.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with pytest.raises(srpipe.InputError, match="holds 20 MB of metadata"):
        srpipe.enhance(tmp_path / "icc.webp", tmp_path / "out.tif", model=x2_model)


def test_what_photographs_have_is_no_news(
    tmp_path: Path, x2_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(__file__).parents[1] / "data" / "dandelion.jpg"
    with caplog.at_level(logging.WARNING):
        srpipe.read_image_info(path)
    assert not caplog.records
