from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips

from srpipe.errors import InputError, ReadError
from srpipe.io.source import read_image_info
from srpipe.io.tile_reader import TileReader
from srpipe.plan.geometry import Rect, Size
from srpipe.plan.grid import Grid, plan_axis
from tests.conftest import photograph_pixels, read_pixels, write_pixels
from tests.factories import image_info
from tests.tiff_files import write_band_tiff


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_depth_and_bands_come_from_the_file(
    tmp_path: Path, dtype: str, bands: int, suffix: str
) -> None:
    pixels = photograph_pixels(17, 23, bands, dtype)
    info = read_image_info(write_pixels(tmp_path / f"a{suffix}", pixels))
    assert (info.size, info.bands, info.dtype) == (Size(23, 17), bands, dtype)


@pytest.mark.parametrize("bands", [2, 3, 4, 5, 12])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_bands_of_no_stated_meaning(tmp_path: Path, bands: int, big: bool, order: str) -> None:
    """As GDAL writes a satellite's."""
    pixels = np.random.default_rng(0).integers(0, 10_001, (9, 14, bands)).astype(np.uint16)
    path = write_band_tiff(tmp_path / "a.tif", pixels, big=big, order=order)
    info = read_image_info(path)
    assert (info.bands, info.dtype, info.alpha_band) == (bands, "uint16", None)
    assert info.kind == "data, no alpha"
    out = np.zeros((9, 14, bands), np.uint16)
    TileReader(info).read(Rect(0, 0, 14, 9), out)
    np.testing.assert_array_equal(out, pixels)
    path = write_band_tiff(tmp_path / "a.tif", pixels, separate=True, big=big, order=order)
    with pytest.raises(InputError, match="one after another"):
        read_image_info(path)


@pytest.mark.parametrize(
    ("interpretation", "bands", "kind"),
    [
        ("multiband", 1, "grey"), ("multiband", 2, "data, no alpha"), ("multiband", 3, "RGB"),
        ("multiband", 4, "data, no alpha"), ("srgb", 4, "RGB + alpha"), ("rgb16", 4, "RGB + alpha"),
        ("b-w", 2, "grey + alpha"), ("grey16", 4, "data, no alpha"), ("srgb", 5, "data, no alpha"),
    ],
)  # fmt: skip
def test_what_bands_are(interpretation: str, bands: int, kind: str) -> None:
    assert image_info(interpretation=interpretation, bands=bands).kind == kind


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiles.tif", {"tile": True, "tile_width": 64, "tile_height": 64}),
        ("strips.tif", {"compression": "deflate"}),
        ("a.png", {}),
        ("a.jpg", {"Q": 95}),
        ("interlaced.png", {"interlace": True}),
        ("progressive.jpg", {"interlace": True}),
        ("a.webp", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("overlap", [0, 16, 127])
def test_tiles_are_the_image(
    tmp_path: Path, name: str, options: dict[str, object], overlap: int
) -> None:
    path = write_pixels(tmp_path / name, photograph_pixels(700, 900), **options)
    expected = read_pixels(path)
    info = read_image_info(path)
    reader = TileReader(info)
    axes = [plan_axis(n, 256, overlap, 1, least_px=1) for n in (info.size.width, info.size.height)]
    out = np.zeros((256, 256, 3), np.uint8)
    for tile in Grid(*axes).tiles():
        rect = tile.source
        reader.read(rect, out)
        there = expected[rect.top : rect.top + rect.height, rect.left : rect.left + rect.width]
        np.testing.assert_array_equal(out[: rect.height, : rect.width], there)


def test_brackets_in_a_name_are_no_options(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "plain.tif", photograph_pixels(8, 8))
    path = path.rename(tmp_path / "page[page=1].tif")
    TileReader(read_image_info(path)).read(Rect(0, 0, 8, 8), np.zeros((8, 8, 3), np.uint8))


def bad_inputs(folder: Path) -> dict[str, Path]:
    """Files that are no image srpipe takes, and one that is not there."""
    (folder / "text.jpg").write_text("this is no photograph\n")
    (folder / "empty.tif").touch()
    (folder / "folder.png").mkdir()
    (folder / "random.tif").write_bytes(bytes(range(256)) * 40)
    pyvips.Image.black(4, 4, bands=3).cast("int").tiffsave(str(folder / "int.tif"))
    write_pixels(folder / "many.tif", np.ones((4, 4, 65), np.uint8))
    write_band_tiff(folder / "planes.tif", photograph_pixels(4, 4, 4), separate=True)
    return {path.name: path for path in folder.iterdir()} | {"missing": folder / "missing.tif"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "does not exist"),
        ("folder.png", "is a folder"),
        ("empty.tif", "0 bytes"),
        ("text.jpg", "not an image"),
        ("random.tif", "not an image"),
        ("int.tif", "int32 samples"),
        ("many.tif", "65 bands"),
        ("planes.tif", "INTERLEAVE=PIXEL"),
    ],
)
def test_bad_inputs_say_what_they_are(tmp_path: Path, name: str, message: str) -> None:
    path = bad_inputs(tmp_path)[name]
    with pytest.raises(InputError, match=message) as caught:
        read_image_info(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_truncated_file_says_at_which_rows(tmp_path: Path, suffix: str) -> None:
    path = write_pixels(tmp_path / f"whole{suffix}", photograph_pixels(400, 400))
    data = path.read_bytes()
    info = read_image_info(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises((ReadError, InputError), match=r"truncated|rows|opened") as caught:  # noqa: PT012
        reader = TileReader(info)
        for top in range(0, 400, 50):
            reader.read(Rect(0, top, 400, 50), np.zeros((50, 400, 3), np.uint8))
    assert str(path) in str(caught.value)


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    path = write_pixels(tmp_path / "a.tif", photograph_pixels(40, 40))
    info = read_image_info(path)
    write_pixels(path, photograph_pixels(40, 41))
    with pytest.raises(ReadError, match="changed"):
        TileReader(info)
    path.unlink()
    with pytest.raises(ReadError, match="can no longer be opened"):
        TileReader(info)
