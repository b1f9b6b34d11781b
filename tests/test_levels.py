"""Levels of pyramids and resized results, against means and resizing by others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tifffile
import zarr
from PIL import Image

import srpipe
from tests.conftest import photograph_pixels
from tests.onnx_models import save

GREY, RGB = "minisblack", "rgb"
KINDS: dict[str, tuple[str, int, list[int]]] = {
    "grey": (GREY, 1, []),
    "grey + alpha": (GREY, 2, [2]),
    "two bands of data": (GREY, 2, [0]),
    "four bands of data": (GREY, 4, [0, 0, 0]),
    "six bands of data": (GREY, 6, [0] * 5),
    "RGB": (RGB, 3, []),
    "RGB + alpha": (RGB, 4, [2]),
    "RGB + near infrared": (RGB, 4, [0]),
}
WITH_ALPHA = ("grey + alpha", "RGB + alpha")


def source(folder: Path, kind: str, dtype: str) -> tuple[np.ndarray, Path, Path]:
    """Pixels, a TIFF of them, and a model that changes nothing; the last band has a hole."""
    photometric, bands, extra = KINDS[kind]
    rgb = photograph_pixels(192, 256, 3, dtype)
    pixels = np.dstack([rgb, rgb[..., ::-1]])[..., :bands].copy()
    if bands > 1:
        pixels[50:101, 50:141, -1] = 0
    path = folder / "in.tif"
    tifffile.imwrite(
        path,
        pixels if bands > 1 else pixels[..., 0],
        photometric=photometric,
        planarconfig="contig" if bands > 1 else None,
        extrasamples=extra or None,
    )
    node = onnx.helper.make_node("Identity", ["input"], ["output"])
    channels = bands if "data" in kind else 3
    model = save(folder / "same.onnx", [node], [], ["n", channels, "h", "w"])
    return pixels, path, model


def half(pixels: np.ndarray, *, alpha: bool) -> np.ndarray:
    """Means of 2x2 pixels, float64; under alpha, of what is seen."""
    height, width, bands = pixels.shape
    blocks = pixels.astype(float).reshape(height // 2, 2, width // 2, 2, bands)
    plain = blocks.mean(axis=(1, 3))
    if not alpha:
        return plain
    weights = blocks[..., -1:]
    total = weights.sum(axis=(1, 3))
    seen = (blocks[..., :-1] * weights).sum(axis=(1, 3)) / np.maximum(total, 1)
    return np.concatenate([np.where(total > 0, seen, np.nan), plain[..., -1:]], axis=2)


def tiff_levels(path: Path) -> Iterator[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        first: Any = file.pages[0]
        for page in [*file.pages, *(first.pages or ())]:
            yield page.asarray()


def zarr_levels(path: Path) -> Iterator[np.ndarray]:
    group = zarr.open_group(path, mode="r")
    for name in sorted(group.array_keys(), key=int):
        yield group[name][:].transpose(1, 2, 0)


def deepzoom_levels(path: Path) -> Iterator[np.ndarray]:
    """Of one tile each, as the tiles here are as large as the image."""
    folder = path.with_name(f"{path.stem}_files")
    for level in sorted(folder.iterdir(), key=lambda level: -int(level.name)):
        yield cv2_read(level / "0_0.png")


def cv2_read(path: Path) -> np.ndarray:
    pixels: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        order = [2, 1, 0, 3][: pixels.shape[2]]
        pixels = pixels[..., order]
    return np.asarray(pixels)


FORMATS = {
    "out.tif[tile,pyramid,tile_width=32,tile_height=32]": tiff_levels,
    "out.tif[tile,pyramid,subifd,compression=deflate,tile_width=32,tile_height=32]": tiff_levels,
    "out.zarr[chunk=64]": zarr_levels,
    "out.dzi[suffix=.png,tile_size=512,overlap=0]": deepzoom_levels,
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_level_is_the_mean_of_the_one_above(
    tmp_path: Path, kind: str, name: str, dtype: str
) -> None:
    if ".dzi" in name and ("data" in kind or "infrared" in kind or kind == "grey + alpha"):
        pytest.skip("not in these tiles, or not read by OpenCV")
    pixels, path, model = source(tmp_path, kind, dtype)
    srpipe.enhance(path, f"{tmp_path}/{name}", model=model)
    levels = list(FORMATS[name](tmp_path / name.partition("[")[0]))
    levels = [level.reshape(*level.shape[:2], pixels.shape[2]) for level in levels]
    alpha = kind in WITH_ALPHA
    seen = pixels[..., -1] > 0 if alpha else np.full(pixels.shape[:2], True)
    np.testing.assert_array_equal(levels[0][seen], pixels[seen])
    assert len(levels) >= 3
    for above, level in itertools.pairwise(levels[:3]):
        expected = half(above, alpha=alpha)
        difference = np.abs(level - expected)
        assert level.shape == expected.shape
        assert np.nanmax(difference) <= (1.01 if dtype == "uint8" else 2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_resized_is_weighted_by_alpha_alone(tmp_path: Path, kind: str, dtype: str) -> None:
    """Pillow's Lanczos, on floats, band by band."""
    pixels, path, model = source(tmp_path, kind, dtype)
    srpipe.enhance(path, tmp_path / "out.tif", model=model, outscale=0.5)
    found = tifffile.imread(tmp_path / "out.tif").reshape(96, 128, -1).astype(float)
    values = pixels.astype(np.float32)

    def smaller(band: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(band).resize((128, 96), Image.Resampling.LANCZOS))

    alpha = values[..., -1] if kind in WITH_ALPHA else None
    for band in range(pixels.shape[2] - (alpha is not None)):
        expected = smaller(values[..., band] if alpha is None else values[..., band] * alpha)
        if alpha is not None:
            weight = smaller(alpha)
            seen = weight > 0.2 * weight.max()
            expected = np.where(seen, expected / np.where(seen, weight, 1), np.nan)
        expected = np.clip(expected, 0, np.iinfo(dtype).max)[4:-4, 4:-4]
        difference = np.abs(found[4:-4, 4:-4, band] - expected)
        assert np.nanmax(difference) <= 0.02 * np.iinfo(dtype).max
        assert np.nanmean(difference) <= 0.002 * np.iinfo(dtype).max
