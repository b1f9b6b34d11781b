from __future__ import annotations

import functools
import itertools
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from srpipe.errors import Interrupted, WriteError
from srpipe.io.joined_tiff import join_tiffs
from srpipe.io.vips import pyvips
from srpipe.plan.output import parse_output
from tests.conftest import PHOTOGRAPH, read_pixels

DEFAULT = parse_output("o.tif").options
SMALL = "compression=none,tile,tile_width=16,tile_height=16"
# libvips pads the last row of tiles with what its buffers held of rows before.
BUFFERED = 3

KINDS = {
    "grey": (1, "b-w"),
    "grey alpha": (2, "b-w"),
    "rgb": (3, "srgb"),
    "rgba": (4, "srgb"),
    "data": (7, "multiband"),
}


@functools.cache
def tall_photograph() -> Any:
    """A photograph and its mirror images, one below the other: 300x3152, seven bands."""
    rgb = pyvips.Image.new_from_file(str(PHOTOGRAPH)).crop(500, 0, 300, 788)
    parts = [rgb, rgb.flip("horizontal"), rgb.invert(), rgb.flip("vertical")]
    tall = pyvips.Image.arrayjoin(parts, across=1)
    return tall.bandjoin(tall.rot180()).bandjoin(tall[1]).copy_memory()


def picture(
    width: int, height: int, kind: str = "rgb", *, deep: bool = False, metadata_bytes: int = 0
) -> Any:
    bands, interpretation = KINDS[kind]
    image = tall_photograph().crop(0, 0, width, height)[:bands]
    if deep:
        image = (image * 257 - 3).cast("ushort")
        interpretation = {"b-w": "grey16", "srgb": "rgb16"}.get(interpretation, interpretation)
    image = image.copy(interpretation=interpretation)
    if metadata_bytes:
        image = image.copy(xres=11.811, yres=3.3)
        profile = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb")
        profile = profile.icc_export(output_profile="srgb").get("icc-profile-data")
        blob, text = pyvips.GValue.blob_type, pyvips.GValue.gstr_type
        image.set_type(blob, "icc-profile-data", profile)
        image.set_type(blob, "xmp-data", b"<x:xmpmeta>" + b"a" * metadata_bytes)
        image.set_type(blob, "iptc-data", b"\x1c\x02" + b"b" * metadata_bytes)
        image.set_type(text, "image-description", "c" * metadata_bytes)
        image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    return image


def save(image: Any, path: Path, options: str = DEFAULT) -> str:
    image.write_to_target(pyvips.Target.new_to_file(str(path)), f".tif[{options}]")
    return str(path)


def save_parts(image: Any, folder: Path, lines: Sequence[int], options: str = DEFAULT) -> list[str]:
    """Save the rows between lines, each in a file."""
    return [
        save(image.crop(0, top, image.width, stop - top), folder / f"{top}.tif", options)
        for top, stop in itertools.pairwise([0, *lines, image.height])
    ]


def assert_joined_is_whole(image: Any, lines: Sequence[int], options: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        parts = save_parts(image, place, lines, options)
        whole = Path(save(image, place / "whole.tif", options))
        join_tiffs(parts, str(place / "joined.tif"))
        assert (place / "joined.tif").read_bytes() == whole.read_bytes()


@st.composite
def cuts(draw: st.DrawFn, tile_height: int) -> tuple[int, list[int]]:
    """A height, and lines at multiples of a tile's height."""
    n_rows = draw(st.integers(1, min(24, 3152 // tile_height)))
    missing = draw(st.integers(0, tile_height - 1)) if n_rows > BUFFERED else 0
    height = n_rows * tile_height - missing
    highest = n_rows - (BUFFERED + 1 if missing else 1)
    drawn = draw(st.sets(st.integers(1, max(1, highest)), max_size=8)) if highest >= 1 else set()
    return height, [row * tile_height for row in sorted(drawn)]


OPTIONS = [
    DEFAULT,
    "compression=none,tile",
    "compression=lzw,tile",
    "compression=lzw,predictor=horizontal,tile",
    "compression=jpeg,Q=90,tile",
    "compression=jpeg,Q=90,tile,rgbjpeg",
    "compression=jpeg,tile,tile_width=64,tile_height=48",
    "compression=webp,Q=80,tile",
    "compression=packbits,tile,tile_width=16,tile_height=16",
    "compression=packbits,tile,bigtiff",
    "compression=deflate,tile,tile_width=256,tile_height=64",
    "compression=deflate,tile,tile_width=32,tile_height=32",
    f"{DEFAULT},bigtiff",
    "compression=jpeg,tile,bigtiff",
    "compression=none,tile,bigtiff",
    SMALL,
    f"{SMALL},bigtiff",
    f"{DEFAULT},keep=icc",
]


@pytest.mark.parametrize("options", OPTIONS)
@settings(max_examples=6)
@given(st.data())
def test_is_byte_for_byte_what_libvips_writes(options: str, data: st.DataObject) -> None:
    tile_height = int(parse_output(f"o.tif[{options}]").parsed.get("tile_height", 128))
    height, lines = data.draw(cuts(tile_height))
    kinds = sorted(KINDS)
    if "jpeg" in options:
        kinds.remove("data")
    if "webp" in options:
        kinds = ["rgb", "rgba"]
    image = picture(
        data.draw(st.integers(1, 300)),
        height,
        data.draw(st.sampled_from(kinds)),
        deep=data.draw(st.booleans()) and "jpeg" not in options and "webp" not in options,
        metadata_bytes=data.draw(st.sampled_from([0, 1, 3, 2000])),
    )
    assert_joined_is_whole(image, lines, options)


@pytest.mark.parametrize("big", ["", ",bigtiff"])
@pytest.mark.parametrize("compression", ["none", "lzw", "packbits", "jpeg", "deflate"])
@pytest.mark.parametrize("side", [16, 32, 64, 96, 128, 256])
@pytest.mark.parametrize("n_parts", [1, 2, 3, 5])
def test_values_that_fit_into_the_directory_of_a_part_only(
    compression: str, side: int, n_parts: int, big: str
) -> None:
    options = f"compression={compression},tile,tile_width={side},tile_height={side}{big}"
    image = picture(side - 1, n_parts * side)
    assert_joined_is_whole(image, range(side, image.height, side), options)


def test_length_that_needs_more_bits_than_that_of_a_part() -> None:
    image = picture(16, 3072).replicate(1, 22)
    assert image.height >= 2**16
    assert_joined_is_whole(image, range(3072, image.height, 3072), SMALL)


def test_bits() -> None:
    options = "compression=ccittfax4,tile,bitdepth=1"
    assert_joined_is_whole(picture(300, 1280, "grey"), [128, 512], options)


def test_float() -> None:
    image = (picture(300, 1280) / 255).copy(interpretation="scrgb")
    assert_joined_is_whole(image, [128, 512], DEFAULT)


def test_parts_on_another_file_system(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    image = picture(300, 1280)
    whole = Path(save(image, tmp_path / "whole.tif"))
    with tempfile.TemporaryDirectory(dir=other) as folder:
        join_tiffs(save_parts(image, Path(folder), [512]), str(tmp_path / "joined.tif"))
    assert (tmp_path / "joined.tif").read_bytes() == whole.read_bytes()


def test_tiles_in_another_order(tmp_path: Path) -> None:
    image = picture(256, 512, "grey")
    parts = save_parts(image, tmp_path, [256], "compression=none,tile")
    for part in parts:
        with tifffile.TiffFile(part) as file:
            offsets = list(file.pages[0].dataoffsets)
            place = file.pages[0].tags[324].valueoffset
        content = bytearray(Path(part).read_bytes())
        n = offsets[1] - offsets[0]
        tiles = [content[o : o + n] for o in offsets]
        for i, offset in enumerate(reversed(offsets)):
            content[offset : offset + n] = tiles[i]
        struct.pack_into("<4I", content, place, *reversed(offsets))
        Path(part).write_bytes(content)
    join_tiffs(parts, str(tmp_path / "joined.tif"))
    np.testing.assert_array_equal(
        read_pixels(tmp_path / "joined.tif"), image.numpy().reshape(512, 256, 1)
    )


@pytest.mark.parametrize("big", [False, True])
def test_other_byte_order(tmp_path: Path, big: bool) -> None:
    pixels = picture(100, 256, deep=True).numpy()
    parts = [str(tmp_path / f"{top}.tif") for top in (0, 64, 192)]
    for part, (top, stop) in zip(parts, [(0, 64), (64, 192), (192, 256)], strict=True):
        tifffile.imwrite(
            part,
            pixels[top:stop],
            byteorder=">",
            bigtiff=big,
            tile=(64, 64),
            photometric="rgb",
            metadata=None,
        )
    join_tiffs(parts, str(tmp_path / "joined.tif"))
    assert (tmp_path / "joined.tif").read_bytes()[:2] == b"MM"
    np.testing.assert_array_equal(read_pixels(tmp_path / "joined.tif"), pixels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "joined.tif"), pixels)


def test_can_be_interrupted(tmp_path: Path) -> None:
    def stop() -> None:
        raise Interrupted("interrupted.")

    parts = save_parts(picture(300, 512), tmp_path, [256])
    with pytest.raises(Interrupted):
        join_tiffs(parts, str(tmp_path / "joined.tif"), beat=stop)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: picture(299, 256), DEFAULT),
        (lambda: picture(300, 256, "rgba"), DEFAULT),
        (lambda: picture(300, 256, deep=True), DEFAULT),
        (lambda: picture(300, 256, metadata_bytes=5), DEFAULT),
        (lambda: picture(300, 256).copy(xres=2), DEFAULT),
        (lambda: picture(300, 256), f"{DEFAULT},tile_width=64"),
        (lambda: picture(300, 256), f"{DEFAULT},tile_height=64"),
        (lambda: picture(300, 256), f"{DEFAULT},bigtiff"),
        (lambda: picture(300, 256), "compression=lzw,predictor=horizontal,tile"),
    ],
)
def test_part_saved_in_another_way(tmp_path: Path, make: Callable[[], Any], options: str) -> None:
    parts = [save(picture(300, 256), tmp_path / "a.tif"), save(make(), tmp_path / "b.tif", options)]
    with pytest.raises(WriteError, match=r"b\.tif does not continue .*a\.tif.*compute it again"):
        join_tiffs(parts, str(tmp_path / "joined.tif"))
    assert not (tmp_path / "joined.tif").exists()


@pytest.mark.parametrize("which", [0, 1])
def test_part_that_ends_within_a_tile(tmp_path: Path, which: int) -> None:
    heights = [256, 256, 256]
    heights[which] -= 1
    parts = [save(picture(300, h), tmp_path / f"{i}.tif") for i, h in enumerate(heights)]
    with pytest.raises(WriteError, match=rf"{which}\.tif ends within a row of tiles"):
        join_tiffs(parts, str(tmp_path / "joined.tif"))


@pytest.mark.parametrize(
    "options",
    ["compression=deflate", f"{DEFAULT},pyramid", f"{DEFAULT},pyramid,subifd",
     f"{DEFAULT},page_height=128"],
)  # fmt: skip
@pytest.mark.parametrize("alone", [False, True])
def test_strips_and_pages(tmp_path: Path, options: str, alone: bool) -> None:
    bad = save(picture(300, 256), tmp_path / "bad.tif", options)
    parts = [bad] if alone else [save(picture(300, 256), tmp_path / "a.tif"), bad]
    with pytest.raises(WriteError, match=r"bad\.tif is no tiled TIFF of one page"):
        join_tiffs(parts, str(tmp_path / "joined.tif"))


def test_damaged_parts_are_named(tmp_path: Path) -> None:
    whole = Path(save(picture(300, 512, metadata_bytes=9), tmp_path / "a.tif")).read_bytes()
    (place,) = struct.unpack_from("<I", whole, 4)
    damaged = [whole[:n] for n in (0, 1, 7, 8, 5000, place, place + 1, place + 9, len(whole) - 1)]
    for at in range(place, place + 250):
        damaged += [whole[:at] + bytes([value]) + whole[at + 1 :] for value in (0, 0xFF)]
    refusals: list[str] = []
    for content in damaged:
        (tmp_path / "b.tif").write_bytes(content)
        try:
            join_tiffs([str(tmp_path / x) for x in ("a.tif", "b.tif")], str(tmp_path / "o.tif"))
        except WriteError as error:
            refusals.append(str(error))
    assert len(refusals) > 200
    assert all("b.tif" in refusal for refusal in refusals)


def test_missing_part(tmp_path: Path) -> None:
    parts = [save(picture(300, 256), tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    with pytest.raises(FileNotFoundError):
        join_tiffs(parts, str(tmp_path / "joined.tif"))


def sparse_part(path: Path, tile_bytes: int) -> str:
    """A TIFF of one tile that would have so many bytes, most of which take no space on the disk."""
    content = bytearray(Path(save(picture(100, 128, "grey"), path, DEFAULT)).read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        tags = {tag.code: tag for tag in page.tags}
        counts = page.databytecounts
    (place,) = struct.unpack_from("<I", content, 4)
    added = tile_bytes - counts[0]
    added += added % 2
    for tag in tags.values():
        if tag.valueoffset > tag.offset + 12 or tag.valueoffset < tag.offset:
            struct.pack_into("<I", content, tag.offset + 8, tag.valueoffset + added)
    struct.pack_into("<I", content, tags[325].offset + 8, counts[0] + added)
    struct.pack_into("<I", content, 4, place + added)
    with path.open("wb") as out:
        out.write(content[:8])
        out.seek(place + added)
        out.write(content[place:])
    return str(path)


@pytest.mark.parametrize("n_bytes", [1_500_000_000, 2**31 - 160, 4_000_000_000])
def test_classic_tiff_beyond_4_gib(tmp_path: Path, n_bytes: int) -> None:
    part = sparse_part(tmp_path / "a.tif", n_bytes)
    n_parts = 2**32 // n_bytes + 1
    joined = tmp_path / "joined.tif"
    with pytest.raises(WriteError, match=r"joined\.tif .*4 GiB.*bigtiff"):
        join_tiffs([part] * n_parts, str(joined))
    assert not joined.exists()
