from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from srpipe.errors import OutputError
from srpipe.io.zarr_saver import ZarrOptions, ZarrPyramid, halve, ome_metadata
from srpipe.plan.geometry import Size
from srpipe.plan.output import parse_output


def written(folder: Path, pixels: np.ndarray, options: ZarrOptions, piece: int) -> zarr.Group:
    height, width, bands = pixels.shape
    path = folder / f"{piece}.zarr"
    size = Size(width, height)
    pyramid = ZarrPyramid(str(path), size, bands, pixels.dtype.name, options, colours=bands)
    data = pixels.tobytes()
    for start in range(0, len(data), piece):
        pyramid.write(data[start : start + piece])
    pyramid.finish()
    return zarr.open_group(path, mode="r")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compression", ["blosc", "gzip", "none"])
@pytest.mark.parametrize(("height", "width", "bands"), [(1, 1, 1), (301, 97, 3), (64, 500, 2)])
def test_every_level_is_half_of_the_one_above(
    tmp_path: Path, dtype: str, compression: str, height: int, width: int, bands: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, bands))
    pixels = pixels.astype(dtype)
    for piece in (7, 10_000_000):
        group = written(tmp_path, pixels, ZarrOptions(64, compression), piece)
        expected = pixels
        for level in range(len(list(group.array_keys()))):
            array = group[str(level)]
            assert (array.dtype, array.chunks) == (pixels.dtype, (bands, 64, 64))
            assert array.metadata.dimension_names == ("c", "y", "x")
            np.testing.assert_array_equal(array[:], expected.transpose(2, 0, 1))
            expected = halve(expected)
        assert max(array.shape[1:]) <= 64


def test_means_are_exact_to_half_a_level_and_do_not_drift() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 1)).astype(np.uint8)
    level = halve(pixels)
    exact = pixels.reshape(256, 2, 256, 2).mean(axis=(1, 3))
    assert np.abs(level[..., 0] - exact).max() <= 0.5
    for _ in range(5):
        level = halve(level)
    assert abs(level.mean() - pixels.mean()) < 0.1


def test_a_side_of_odd_length_ends_with_the_mean_of_what_is_there() -> None:
    pixels = np.array([[10, 20, 30], [20, 30, 50]], np.uint16)[..., np.newaxis]
    np.testing.assert_array_equal(halve(pixels)[..., 0], [[20, 40]])


def test_metadata_say_where_the_pixels_of_a_level_lie() -> None:
    ome = ome_metadata(3, 4, 3, (0, 65535))["ome"]
    (image,) = ome["multiscales"]
    assert ome["version"] == "0.5"
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    last = image["datasets"][2]
    assert last["path"] == "2"
    assert last["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 4.0, 4.0]},
        {"type": "translation", "translation": [0.0, 1.5, 1.5]},
    ]
    labels = [channel["label"] for channel in ome["omero"]["channels"]]
    assert labels == ["red", "green", "blue", "alpha"]
    assert "omero" not in ome_metadata(1, 5, 5, (0, 255))["ome"]


def test_an_image_that_ends_early_is_an_error(tmp_path: Path) -> None:
    pyramid = ZarrPyramid(str(tmp_path / "a.zarr"), Size(10, 10), 1, "uint8", ZarrOptions(), 1)
    pyramid.write(bytes(95))
    with pytest.raises(OSError, match="ended early"):
        pyramid.finish()


def test_options() -> None:
    options = ZarrOptions.parse(parse_output("a.zarr[chunk=512,compression=gzip]"))
    assert options == ZarrOptions(512, "gzip")
    assert ZarrOptions.parse(parse_output("a.zarr")) == ZarrOptions()
    assert ZarrOptions.parse(parse_output("a.zarr[levels=3]")) == ZarrOptions(levels=3)


@pytest.mark.parametrize("levels", ["0", "33", "-1", "2.5", ""])
def test_levels_that_cannot_be_are_refused(levels: str) -> None:
    with pytest.raises(OutputError, match="levels: use a number from 1 to 32"):
        ZarrOptions.parse(parse_output(f"a.zarr[levels={levels}]"))


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_as_many_levels_as_asked_for(tmp_path: Path, levels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (301, 97, 3)).astype(np.uint8)
    group = written(tmp_path, pixels, ZarrOptions(64, levels=levels), 10_000)
    (image,) = group.attrs["ome"]["multiscales"]
    names = [str(level) for level in range(levels)]
    assert sorted(group.array_keys()) == names
    assert [dataset["path"] for dataset in image["datasets"]] == names
    for name in names:
        np.testing.assert_array_equal(group[name][:], pixels.transpose(2, 0, 1))
        pixels = halve(pixels)
