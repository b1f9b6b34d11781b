"""What a TIFF says of its bands decides which are colors, which is alpha, and what OUTPUT says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tifffile

import srpipe
from srpipe.errors import InputError, OutputError
from srpipe.io.source import read_image_info
from tests.conftest import photograph_pixels
from tests.onnx_models import conv_model

GREY, RGB, CMYK = 1, 2, 5
ARGUMENTS: dict[str, Any] = {"tile_size": 48, "overlap": 8}


def gdal_roles(*roles: str) -> tuple[int, str, int, str, bool]:
    """GDAL's metadata, by which each sample has a color."""
    items = "".join(
        f'<Item name="COLORINTERP" sample="{i}" role="colorinterp">{role}</Item>'
        for i, role in enumerate(roles)
    )
    return (42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True)


@pytest.mark.parametrize(
    ("photometric", "bands", "extra", "roles", "kind", "alpha"),
    [
        (GREY, 1, None, None, "grey", None),
        (GREY, 2, [2], None, "grey + alpha", 1),
        (GREY, 2, [1], None, "grey + alpha", 1),
        (GREY, 2, [0], None, "data, no alpha", None),
        (GREY, 2, [0], ("Gray", "Alpha"), "grey + alpha", 1),
        (GREY, 3, [0, 0], None, "data, no alpha", None),
        (GREY, 4, [0, 0, 0], ("Red", "Green", "Blue", "NIR"), "RGB + 1 more", None),
        (GREY, 4, [0, 0, 2], None, "data + alpha", 3),
        (GREY, 4, [2, 2, 2], None, "data, no alpha", None),
        (RGB, 3, None, None, "RGB", None),
        (RGB, 3, None, ("Undefined", "Undefined", "Undefined"), "data, no alpha", None),
        (RGB, 4, [2], None, "RGB + alpha", 3),
        (RGB, 4, [1], None, "RGB + alpha", 3),
        (RGB, 4, [0], None, "RGB + 1 more", None),
        (RGB, 4, [2], ("Red", "Green", "Blue", "NIR"), "RGB + 1 more", None),
        (RGB, 4, [0], ("Red", "Green", "Blue", "Alpha"), "RGB + alpha", 3),
        (RGB, 5, [0, 2], None, "RGB + alpha + 1 more", 4),
        (RGB, 5, [2, 0], None, "RGB + alpha + 1 more", 3),
        (CMYK, 4, None, None, "RGB", None),
        (CMYK, 5, [2], None, "RGB + alpha", 3),
    ],
)
def test_what_a_tiff_says_of_its_bands(
    tmp_path: Path,
    photometric: int,
    bands: int,
    extra: list[int] | None,
    roles: tuple[str, ...] | None,
    kind: str,
    alpha: int | None,
) -> None:
    path = tmp_path / "in.tif"
    tags = [gdal_roles(*roles)] if roles else []
    pixels = np.full((20, 30, bands) if bands > 1 else (20, 30), 100, np.uint8)
    tifffile.imwrite(
        path, pixels, photometric=photometric, planarconfig=1 if bands > 1 else None,
        extrasamples=extra, extratags=tags,
    )  # fmt: skip
    info = read_image_info(path)
    assert (info.kind, info.alpha_band) == (kind, alpha)


def test_a_fourth_band_that_says_nothing_is_no_alpha(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    tifffile.imwrite(path, np.zeros((20, 30, 4), np.uint8), photometric="rgb", extrasamples=[0])
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[338].overwrite([0])  # type: ignore[union-attr]
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags[338].offset  # type: ignore[union-attr]
    path.write_bytes(data[:at] + (65000).to_bytes(2, "little") + data[at + 2 :])
    info = read_image_info(path)
    assert (info.kind, info.alpha_band) == ("RGB + 1 more", None)


def whole(model: Path, pixels: np.ndarray) -> np.ndarray:
    """The model's result on a whole picture, by bare ONNX Runtime, (height, width, bands)."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    planes = (pixels / np.float32(np.iinfo(pixels.dtype).max)).transpose(2, 0, 1)[np.newaxis]
    result = session.run(None, {"input": planes.astype(np.float32)})[0][0].transpose(1, 2, 0)
    highest = np.iinfo(pixels.dtype).max
    return np.floor(np.clip(result, 0, 1) * highest + 0.5).astype(pixels.dtype)


def interior(pixels: np.ndarray) -> np.ndarray:
    """But for the border, which models see continued."""
    return pixels[8:-8, 8:-8].astype(int)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("options", ["", "[tile,pyramid,tile_width=64,tile_height=64]"])
def test_near_infrared_beside_rgb(
    tmp_path: Path, x2_model: Path, caplog: pytest.LogCaptureFixture, dtype: str, options: str
) -> None:
    rgb = photograph_pixels(120, 150, 3, dtype)
    infrared = rgb[..., 1].copy()
    infrared[30:60, 30:60] = 0
    tifffile.imwrite(tmp_path / "in.tif", np.dstack([rgb, infrared]), photometric="rgb",
                     extrasamples=["unspecified"])  # fmt: skip
    with caplog.at_level(logging.WARNING):
        srpipe.enhance(
            tmp_path / "in.tif", f"{tmp_path}/out.tif{options}", model=x2_model, **ARGUMENTS
        )
    assert "band 4 is only resized, since the model does not see it" in caplog.text
    expected = whole(x2_model, rgb)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        for level, page in enumerate(file.pages):
            assert (page.photometric, page.extrasamples) == (RGB, (0,))  # type: ignore[union-attr]
            pixels = page.asarray()
            hole = pixels[80 >> level : 100 >> level, 80 >> level : 100 >> level]
            assert (hole[..., 3] == 0).all()
            assert (hole[..., :3].max(axis=(0, 1)) > 0).all()  # not premultiplied
            if level == 0:
                difference = interior(pixels[..., :3]) - interior(expected)
                assert np.abs(difference).max() <= (1 if dtype == "uint8" else 16)


@pytest.mark.parametrize("content", ["data", "data + alpha"])
@pytest.mark.parametrize("options", ["", "[tile,pyramid,tile_width=64,tile_height=64]",
                                     "[tile,pyramid,subifd,tile_width=64,tile_height=64]"])  # fmt: skip
def test_bands_of_data(tmp_path: Path, content: str, options: str) -> None:
    rgb = photograph_pixels(120, 150, 3, "uint16")
    last = rgb[..., 1].copy()
    last[30:60, 30:60] = 0
    bands = np.dstack([rgb, last])
    kinds = [0, 0, 2 if content == "data + alpha" else 0]
    tifffile.imwrite(
        tmp_path / "in.tif", bands, photometric="minisblack", planarconfig="contig",
        extrasamples=kinds,
    )  # fmt: skip
    model = conv_model(tmp_path / "four.onnx", channels=4, scale=1, layers=1)
    srpipe.enhance(tmp_path / "in.tif", f"{tmp_path}/out.tif{options}", model=model, **ARGUMENTS)
    expected = whole(model, bands)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        pages = list(file.pages) + list(file.pages[0].pages or ())  # type: ignore[union-attr]
        for page in pages:
            assert (page.photometric, page.extrasamples) == (GREY, tuple(kinds))  # type: ignore[union-attr]
        difference = interior(pages[0].asarray()) - interior(expected)
        assert np.abs(difference).max() <= 16
        if len(pages) > 1:
            small = pages[1].asarray()
            mean = expected[60:100, 60:100].astype(float).reshape(20, 2, 20, 2, 4).mean(axis=(1, 3))
            assert np.abs(small[30:50, 30:50] - mean).max() < 600


def test_data_is_resized_band_by_band(tmp_path: Path) -> None:
    bands = np.dstack([photograph_pixels(60, 80, 3)] * 2)
    bands[20:40, 20:40, 5] = 0
    tifffile.imwrite(tmp_path / "in.tif", bands, photometric="minisblack", planarconfig="contig")
    model = conv_model(tmp_path / "six.onnx", channels=6, scale=2, layers=1)
    srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.tif", model=model, outscale=1, **ARGUMENTS)
    assert tifffile.imread(tmp_path / "out.tif")[25:35, 25:35, :5].min() > 0


def test_two_bands_of_data_are_not_half_enhanced(tmp_path: Path, x2_model: Path) -> None:
    pixels = photograph_pixels(60, 80, 2)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="minisblack", extrasamples=[0],
                     planarconfig="contig")  # fmt: skip
    with pytest.raises(InputError, match=r"2 bands \(data, no alpha\).*model of 2 channels"):
        srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.tif", model=x2_model)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_formats_that_would_call_it_alpha_refuse_the_band(
    tmp_path: Path, x2_model: Path, suffix: str
) -> None:
    pixels = photograph_pixels(60, 80, 4)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", extrasamples=[0])
    with pytest.raises(
        OutputError, match=r"4 bands, of which band 4 is no alpha.*as \.tif instead"
    ):
        srpipe.enhance(tmp_path / "in.tif", tmp_path / f"out{suffix}", model=x2_model)


def test_premultiplied_alpha(tmp_path: Path, x2_model: Path) -> None:
    rgb = photograph_pixels(120, 150, 3)
    alpha = np.full((120, 150), 255, np.uint8)
    alpha[:, :70] = 128
    stored = np.dstack([np.round(rgb * (alpha[..., np.newaxis] / 255)).astype(np.uint8), alpha])
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="rgb", extrasamples=[1])
    srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.tif", model=x2_model, **ARGUMENTS)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages[0].extrasamples == (2,)  # type: ignore[union-attr]
        pixels = file.asarray()
    difference = interior(pixels[..., :3]) - interior(whole(x2_model, rgb))
    assert np.abs(difference).max() <= 6  # half of 255 levels are left
    assert np.abs(difference.mean()) < 1
