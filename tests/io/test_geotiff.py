"""Georeference tags: read, moved with the pixels, and added to finished files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile

import srpipe
from srpipe.io.geotiff import enlarged, lies_on_earth, read_georeference
from srpipe.io.tiff_directory import Tag, add_tags

KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)
POINT_KEYS = (1, 1, 0, 1, 1025, 0, 1, 2)
SCALE, TIEPOINT = (10.0, 20.0, 0.0), (3.0, 4.0, 0.0, 500_000.0, 5_000_000.0, 0.0)
MATRIX = (10.0, 2, 0, 500, -1, -20, 0, 900, 0, 0, 0, 0, 0, 0, 0, 1)
NODATA = "65535"


def write(
    path: Path, *extra: tuple[Any, ...], keys: tuple[int, ...] = KEYS, **options: Any
) -> Path:
    tags = [(34735, "H", len(keys), keys, True), (42113, "s", 0, NODATA, True), *extra]
    pixels = np.arange(40 * 50 * 3, dtype=np.uint16).reshape(40, 50, 3)
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=tags, **options)
    return path


def with_tiepoint(path: Path, **options: Any) -> Path:
    return write(path, (33550, "d", 3, SCALE, True), (33922, "d", 6, TIEPOINT, True), **options)


def values(path: Path) -> dict[int, Any]:
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags if tag.code > 33000}  # type: ignore[union-attr]


@pytest.mark.parametrize(("order", "big"), list(itertools.product("<>", [False, True])))
def test_tags_go_from_any_tiff_to_any_other(tmp_path: Path, order: str, big: bool) -> None:
    source = with_tiepoint(tmp_path / "in.tif", byteorder=order, bigtiff=big)
    tags = read_georeference(source)
    assert lies_on_earth(tags)
    expected = values(source)
    assert expected.keys() == {33550, 33922, 34735, 42113}
    for name, options in (
        ("a.tif", {}),
        ("b.tif", {"bigtiff": True}),
        ("c.tif", {"pyramid": True, "tile": True, "tile_width": 16, "tile_height": 16}),
        ("d.tif", {"pyramid": True, "subifd": True, "tile": True, "bigtiff": True}),
    ):
        output = tmp_path / name
        image = pyvips.Image.black(90, 70, bands=3) + 7
        image.cast("uchar").tiffsave(str(output), **options)
        with tifffile.TiffFile(output) as file:
            n_pages = len(file.pages)
        add_tags(output, tags)
        add_tags(output, tags)  # again: it is not there twice
        assert values(output) == expected
        with tifffile.TiffFile(output) as file:
            assert len(file.pages) == n_pages
        again = pyvips.Image.new_from_file(str(output))
        assert (again.width, again.height, again.avg()) == (90, 70, 7)


def located(tags: dict[int, Any], column: float, row: float) -> tuple[float, float]:
    """Where a raster coordinate lies, of a tie point and a pixel scale, or of a matrix."""
    if 34264 in tags:
        m = np.array(tags[34264]).reshape(4, 4)
        x, y, *_ = m @ (column, row, 0, 1)
        return float(x), float(y)
    i, j, _, x, y, _ = tags[33922]
    across, down, _ = tags[33550]
    return x + (column - i) * across, y - (row - j) * down


@pytest.mark.parametrize("keys", [KEYS, POINT_KEYS])
@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("scale", [(2.0, 2.0), (1.5, 3.0)])
@pytest.mark.parametrize("part", [(0, 0), (7, 11)])
def test_every_place_stays_where_it_is(
    tmp_path: Path, keys: tuple[int, ...], matrix: bool, scale: tuple[float, float],
    part: tuple[int, int],
) -> None:  # fmt: skip
    path = tmp_path / "in.tif"
    if matrix:
        write(path, (34264, "d", 16, MATRIX, True), keys=keys)
    else:
        with_tiepoint(path, keys=keys)
    before = values(path)
    add_tags(path, enlarged(read_georeference(path), scale, *part))
    after = values(path)
    assert after[42113] == before[42113]
    for corner in ((0.0, 0.0), (20.0, 0.0), (0.0, 13.0), (31.0, 17.0)):
        # Corners of pixels; a point's coordinate is that of the middle of its pixel.
        shift = 0.5 if keys is POINT_KEYS else 0.0
        old = [corner[axis] - shift for axis in (0, 1)]
        new = [(corner[axis] - part[axis]) * scale[axis] - shift for axis in (0, 1)]
        assert located(after, *new) == pytest.approx(located(before, *old), rel=1e-12)


@pytest.mark.parametrize(
    "content",
    [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"MM\0+\0\x08\0\0" + b"\xff" * 40, b"PNG" * 9],
)
def test_damage_is_no_georeference(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.tif"
    path.write_bytes(content)
    assert read_georeference(path) == ()


def test_no_tags_change_nothing(tmp_path: Path) -> None:
    path = with_tiepoint(tmp_path / "a.tif")
    content = path.read_bytes()
    add_tags(path, ())
    assert path.read_bytes() == content
    assert not lies_on_earth((Tag(42113, 2, 2, b"1\0"),))


@pytest.mark.parametrize("options", ["", "[compression=deflate,tile,pyramid]", "[bigtiff,subifd]"])
@pytest.mark.parametrize("outscale", [None, 1.5])
def test_an_enhanced_picture_lies_where_it_did(
    tmp_path: Path, x2_model: Path, options: str, outscale: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    source, output = with_tiepoint(tmp_path / "in.tif"), tmp_path / "out.tif"
    report = srpipe.enhance(
        source, f"{output}{options}", model=x2_model, tile_size=32, outscale=outscale
    )
    before, after = values(source), values(output)
    width, height = 50, 40
    corner = located(after, report.output_size.width, report.output_size.height)
    assert corner == pytest.approx(located(before, width, height), rel=1e-12)
    assert located(after, 0, 0) == pytest.approx(located(before, 0, 0), rel=1e-12)
    assert not caplog.messages
    srpipe.enhance(source, tmp_path / "out.png", model=x2_model)
    assert caplog.messages == [
        f"{tmp_path / 'out.png'} will not have all that {source} tells: its place on earth.",
        f"{tmp_path / 'out.png'} does not say which value means no data, which {source} does (65535): "
        "write a .tif.",
    ]
