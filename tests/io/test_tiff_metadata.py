"""EXIF and IPTC in TIFFs, which libvips does not write."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import pyvips
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import srpipe
from srpipe.io.tiff_metadata import bare_records
from tests.conftest import photograph_pixels, write_pixels

RECORDS = b"\x1c\x02\x05\x00\x05title\x1c\x02\x50\x00\x03who"


def resources(records: bytes = RECORDS, before: bytes = b"") -> bytes:
    block = b"8BIM" + struct.pack(">H2xI", 0x0404, len(records)) + records
    return b"Photoshop 3.0\0" + before + block + bytes(len(block) % 2)


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = write_pixels(tmp_path / "plain.tif", photograph_pixels(48, 64))
    image = pyvips.Image.new_from_file(str(path)).copy()
    texts = {
        "exif-ifd0-Make": "ACME (ACME, ASCII, 5 components, 5 bytes)",
        "exif-ifd0-ImageDescription": "A hill (A hill, ASCII, 7 components, 7 bytes)",
        "exif-ifd2-ExposureTime": "1/125 (1/125 sec., Rational, 1 components, 8 bytes)",
        "exif-ifd2-PixelXDimension": "64 (64, Long, 1 components, 4 bytes)",
        "exif-ifd3-GPSLatitude": "47/1 30/1 0/1 (47, 30,  0, Rational, 3 components, 24 bytes)",
    }
    for name, text in texts.items():
        image.set_type(pyvips.GValue.gstr_type, name, text)
    image.set_type(pyvips.GValue.blob_type, "iptc-data", resources())
    image.jpegsave(str(tmp_path / "in.jpg"))
    return tmp_path / "in.jpg"


def tags_of(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as file:
        return {tag.name: tag.value for tag in file.pages[0].tags}  # type: ignore[union-attr]


@pytest.mark.parametrize("options", ["", "[bigtiff]", "[pyramid,tile]"])
def test_they_go_from_a_jpeg_to_a_tiff_and_on(
    tmp_path: Path, jpeg: Path, x2_model: Path, options: str
) -> None:
    first, second = tmp_path / "first.tif", tmp_path / "second.tif"
    srpipe.enhance(jpeg, f"{first}{options}", model=x2_model)
    srpipe.enhance(first, f"{second}{options}", model=x2_model)
    for output, width in ((first, 128), (second, 256)):
        tags = tags_of(output)
        assert (tags["Make"], tags["ImageDescription"]) == ("ACME", "A hill")
        assert tags["ImageWidth"] == tags["ExifTag"]["PixelXDimension"] == width
        assert tags["ExifTag"]["ExposureTime"] == (1, 125)
        assert tags["GPSTag"]["GPSLatitude"] == (47, 1, 30, 1, 0, 1)
        with tifffile.TiffFile(output) as file:
            tag = file.pages[0].tags[33723]  # type: ignore[union-attr]
            file.filehandle.seek(tag.valueoffset)
            assert file.filehandle.read(tag.count) == RECORDS
        assert pyvips.Image.new_from_file(str(output)).width == width


def test_records_are_found_among_other_resources() -> None:
    other = b"8BIM" + struct.pack(">H", 0x03ED) + b"\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    assert bare_records(resources(before=other)) == RECORDS
    assert bare_records(RECORDS) == RECORDS
    assert bare_records(other) == b""


@given(st.binary(max_size=80))
def test_damaged_resources(content: bytes) -> None:
    bare_records(content)
    bare_records(b"8BIM" + content)
    bare_records(resources(before=b"8BIM" + content))


@pytest.mark.parametrize("options", ["[keep=none]", "[strip]", "[keep=icc]"])
def test_what_is_to_be_left_out_is(
    tmp_path: Path, jpeg: Path, x2_model: Path, options: str
) -> None:
    srpipe.enhance(jpeg, f"{tmp_path / 'out.tif'}{options}", model=x2_model)
    assert not {"ExifTag", "GPSTag", "Make", "IPTCNAA"} & tags_of(tmp_path / "out.tif").keys()


def test_a_program_is_not_told_the_old_scale(tmp_path: Path, x2_model: Path) -> None:
    source = tmp_path / "in.tif"
    told = "Aperio Image Library v11|MPP = 0.5"
    tifffile.imwrite(source, photograph_pixels(40, 50), photometric="rgb", description=told)
    srpipe.enhance(source, tmp_path / "out.tif", model=x2_model)
    assert "Aperio" not in str(tags_of(tmp_path / "out.tif").get("ImageDescription"))
