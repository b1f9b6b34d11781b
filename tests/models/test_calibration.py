"""Tiles that differ, from images of any kind, packed as the model wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpipe.errors import InputError
from srpipe.io.model_probe import probe_model
from srpipe.models.calibration import (
    choose_tiles,
    describe,
    farthest_points,
    share_out,
    spread_rects,
)
from srpipe.plan.geometry import Size
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model


def _flat_with_one_detail(path: Path) -> Path:
    """320x320 of grey, with a 32x32 square of the photograph somewhere in it."""
    pixels = np.full((320, 320, 3), 90, np.uint8)
    pixels[256:288, 192:224] = photograph_pixels(32, 32)
    return write_pixels(path, pixels)


def test_variety_is_found_among_uniform_tiles(tmp_path: Path, x2_model: Path) -> None:
    image = _flat_with_one_detail(tmp_path / "flat.tif")
    first, second = choose_tiles([image], probe_model(x2_model), 2, 32)
    expected = photograph_pixels(32, 32).transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255
    np.testing.assert_allclose(first, expected, atol=1e-6)
    assert np.ptp(second) == 0


def test_every_image_is_looked_at(tmp_path: Path, x2_model: Path) -> None:
    kinds = {"red": (255, 0, 0), "black": (0, 0, 0), "white": (255, 255, 255)}
    images = [
        write_pixels(tmp_path / f"{name}.png", np.tile(np.uint8(colour), (64, 64, 1)))
        for name, colour in kinds.items()
    ]
    tiles = choose_tiles(images, probe_model(x2_model), 3, 32)
    seen = {tuple(np.rint(tile[0, :, 0, 0] * 255).astype(int)) for tile in tiles}
    assert seen == set(kinds.values())


def test_the_same_files_give_the_same_tiles(photograph: Path, x2_model: Path) -> None:
    info = probe_model(x2_model)
    for a, b in zip(
        choose_tiles([photograph], info, 5, 40),
        choose_tiles([photograph], info, 5, 40),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, "uint8"), (2, "uint8"), (3, "uint16"), (4, "uint8")]
)
@pytest.mark.parametrize(("layout", "channels"), [("NCHW", 3), ("NHWC", 3), ("NCHW", 1)])
def test_packed_as_the_model_wants(
    tmp_path: Path, bands: int, dtype: str, layout: str, channels: int
) -> None:
    image = write_pixels(tmp_path / "i.tif", photograph_pixels(50, 70, bands, dtype))
    model = conv_model(tmp_path / "m.onnx", layout=layout, channels=channels)
    tiles = choose_tiles([image], probe_model(model), 4, 24)
    planes = (channels, 24, 24) if layout == "NCHW" else (24, 24, channels)
    assert [tile.shape for tile in tiles] == [(1, *planes)] * 4
    assert all(0 <= tile.min() < tile.max() <= 1 for tile in tiles)


def test_fixed_sizes_and_multiples_are_kept(tmp_path: Path, photograph: Path) -> None:
    fixed = conv_model(tmp_path / "fixed.onnx", batch=2, height=32, width=48)
    (tile,) = choose_tiles([photograph], probe_model(fixed), 1, 100)
    assert tile.shape == (2, 3, 32, 48)
    np.testing.assert_array_equal(tile[0], tile[1])
    lattice = conv_model(tmp_path / "lattice.onnx", multiple=16, scale=1, layers=1)
    (tile,) = choose_tiles([photograph], probe_model(lattice), 1, 40)
    assert tile.shape == (1, 3, 48, 48)


def test_an_image_smaller_than_a_tile_is_continued(tmp_path: Path, x2_model: Path) -> None:
    image = write_pixels(tmp_path / "small.png", photograph_pixels(10, 12))
    (tile,) = choose_tiles([image], probe_model(x2_model), 9, 32)
    assert tile.shape == (1, 3, 32, 32)
    np.testing.assert_array_equal(tile[..., 9, :], tile[..., 31, :])


def test_no_image_is_an_error(tmp_path: Path, x2_model: Path) -> None:
    with pytest.raises(InputError, match="no image to calibrate on"):
        choose_tiles([], probe_model(x2_model), 4, 32)
    with pytest.raises(InputError, match="does not exist"):
        choose_tiles([tmp_path / "none.tif"], probe_model(x2_model), 4, 32)


@given(
    image=st.tuples(st.integers(1, 40_000), st.integers(1, 40_000)),
    tile=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    most=st.integers(1, 512),
)
def test_rects_lie_inside_and_apart(
    image: tuple[int, int], tile: tuple[int, int], most: int
) -> None:
    rects = spread_rects(Size(*image), Size(*tile), most)
    assert 1 <= len(rects) <= most
    order = [(rect.top, rect.left) for rect in rects]
    assert order == sorted(set(order))
    for rect in rects:
        assert 0 <= rect.left <= image[0] - rect.width
        assert 0 <= rect.top <= image[1] - rect.height
    for positions, side in (({r.left for r in rects}, 0), ({r.top for r in rects}, 1)):
        gaps = np.diff(sorted(positions))
        assert not len(gaps) or gaps.min() >= min(tile[side], image[side])


def test_farthest_points_are_each_far_from_those_before() -> None:
    points = np.array([[0.0, 0], [0.1, 0], [10, 0], [0, 10], [10.1, 0]])
    assert set(farthest_points(points, 3)) == {0, 3, 4}
    assert sorted(farthest_points(points, 9)) == [0, 1, 2, 3, 4]
    assert sorted(farthest_points(np.zeros((3, 2)), 3)) == [0, 1, 2]


def test_description_tells_what_people_see() -> None:
    flat = np.full((8, 8, 3), 128, np.uint8)
    stripes = flat.copy()
    stripes[:, ::2] = 255
    red = np.tile(np.uint8([255, 0, 0]), (8, 8, 1))
    plain = describe(flat)
    assert plain[1] == plain[2] == plain[3] == 0
    assert (describe(stripes)[:3] > plain[:3]).all()
    assert describe(red)[3] == 1


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 24])
def test_tiles_for_checking_are_not_calibrated_on(n: int) -> None:
    tiles = [np.full((1, 1, 1, 1), i, np.float32) for i in range(n)]
    shares = share_out(tiles)
    calibration, deciding, checking = (
        {int(tile.max()) for tile in share}
        for share in (shares.calibration, shares.deciding, shares.checking)
    )
    assert calibration
    assert deciding
    assert checking
    assert calibration | deciding | checking == set(range(n))
    assert not calibration & (deciding | checking)
    assert n < 6 or not deciding & checking


def test_a_single_tile_is_not_enough() -> None:
    with pytest.raises(InputError, match="a single tile"):
        share_out([np.zeros((1, 3, 8, 8), np.float32)])
