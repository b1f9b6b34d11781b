"""make-gigapixel: size, kind and reproducibility of the picture, and that no cell repeats."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pytest
import pyvips

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks.make_gigapixel import main, parse_size
from benchmarks.mosaic import PictureSpec, make_picture, with_bigtiff

PHOTOGRAPH = Path(__file__).parents[1] / "data" / "dandelion.jpg"


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """240 x 200 pixels of a photograph."""
    image = pyvips.Image.thumbnail(str(PHOTOGRAPH), 240, height=200, size="force")
    path = tmp_path / "photograph.png"
    image.write_to_file(str(path))
    return path


def test_command_writes_the_size_asked_for(photograph: Path, tmp_path: Path, capsys):
    output = tmp_path / "big.tif"
    assert main([str(photograph), f"{output}[compression=deflate]", "--size", "600x500"]) == 0
    image = pyvips.Image.new_from_file(str(output))
    assert (image.width, image.height, image.bands, image.format) == (600, 500, 3, "uchar")
    assert image.interpretation == "srgb"
    assert image.deviate() > 10
    assert "600x500" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.tif", "photograph.png"]


def test_no_cell_repeats(photograph: Path, tmp_path: Path):
    output = tmp_path / "big.png"
    make_picture([photograph], str(output), PictureSpec(600, 600))
    pixels = pyvips.Image.new_from_file(str(output)).numpy()
    cell_px = 150  # three quarters of the photograph's shorter side
    cells = {
        pixels[y : y + cell_px, x : x + cell_px].tobytes()
        for y in range(0, 600, cell_px)
        for x in range(0, 600, cell_px)
    }
    assert len(cells) == 16


def test_is_the_same_every_time_and_differs_by_seed(photograph: Path, tmp_path: Path):
    pictures = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        output = tmp_path / f"{name}.png"
        make_picture([photograph], str(output), PictureSpec(300, 310, seed=seed))
        pictures.append(pyvips.Image.new_from_file(str(output)).numpy())
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


def test_small_photographs_grow_into_sheets(photograph: Path, tmp_path: Path):
    tiny = tmp_path / "tiny.png"
    pyvips.Image.thumbnail(str(photograph), 12, height=10, size="force").write_to_file(str(tiny))
    output = tmp_path / "big.png"
    make_picture([tiny, photograph], str(output), PictureSpec(500, 400))
    image = pyvips.Image.new_from_file(str(output))
    assert (image.width, image.height) == (500, 400)


@pytest.mark.parametrize(
    ("depth", "grey", "alpha", "bands", "interpretation"),
    [
        (8, True, False, 1, "b-w"),
        (8, False, True, 4, "srgb"),
        (16, False, False, 3, "rgb16"),
        (16, True, True, 2, "grey16"),
    ],
)
def test_depths_and_bands(
    photograph: Path, tmp_path: Path, depth: int, grey: bool, alpha: bool, bands: int,
    interpretation: str,
):  # fmt: skip
    output = tmp_path / "picture.tif"
    spec = PictureSpec(200, 100, depth=depth, grey=grey, alpha=alpha)
    make_picture([photograph], str(output), spec)
    image = pyvips.Image.new_from_file(str(output))
    assert (image.bands, image.interpretation) == (bands, interpretation)
    assert spec.n_bytes == 200 * 100 * bands * depth // 8
    assert image.max() > 2 ** (depth - 1)


def test_bigtiff_is_asked_for_where_it_is_needed():
    assert with_bigtiff("a.tif", 5_000_000_000) == "a.tif[bigtiff]"
    assert with_bigtiff("a.tif[tile]", 5_000_000_000) == "a.tif[tile,bigtiff]"
    assert with_bigtiff("a.tif[bigtiff]", 5_000_000_000) == "a.tif[bigtiff]"
    assert with_bigtiff("a.tif", 1000) == "a.tif"
    assert with_bigtiff("a.png[compression=1]", 5_000_000_000) == "a.png[compression=1]"


def test_missing_photograph_is_one_line(tmp_path: Path, capsys):
    code = main([str(tmp_path / "none.jpg"), str(tmp_path / "out.png"), "--size", "20x20"])
    assert code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "100", "0x10", "10x", "axb", "-1x5"])
def test_sizes_that_are_none(text: str):
    with pytest.raises(ArgumentTypeError):
        parse_size(text)
