"""CMYK and CIELAB pictures, converted while they stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

import srpipe
from srpipe.io.source import open_image
from tests.conftest import photograph_pixels, read_pixels, write_pixels


def rgb(dtype: str = "uint8") -> pyvips.Image:
    image = pyvips.Image.new_from_array(photograph_pixels(60, 80, 3, dtype))
    return image.copy(interpretation="srgb" if dtype == "uint8" else "rgb16")


@pytest.mark.parametrize("profile", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_cmyk(
    tmp_path: Path, x2_model: Path, dtype: str, profile: bool, caplog: pytest.LogCaptureFixture
) -> None:
    depth = 8 if dtype == "uint8" else 16
    original = rgb(dtype)
    printed = original.icc_transform("cmyk", input_profile="srgb", depth=depth)
    if not profile:
        printed = printed.copy()
        printed.remove("icc-profile-data")
    source, output = tmp_path / "in.tif", tmp_path / "out.tif"
    printed.tiffsave(str(source))
    info = srpipe.read_image_info(source)
    assert (info.converted_from, info.bands, info.dtype) == ("CMYK", 3, dtype)
    srpipe.enhance(source, output, model=x2_model, tile_size=48)
    assert caplog.messages == [f"{source} is CMYK: its result is sRGB."]
    result = pyvips.Image.new_from_file(str(output))
    assert result.get_typeof("icc-profile-data")
    assert result.interpretation == ("srgb" if dtype == "uint8" else "rgb16")
    # The same as converting first.
    converted = printed.icc_transform(
        "srgb", embedded=True, input_profile="cmyk", intent="perceptual", depth=depth
    )
    plain = write_pixels(tmp_path / "plain.tif", converted.numpy())
    srpipe.enhance(plain, tmp_path / "expected.tif", model=x2_model, tile_size=48)
    assert np.array_equal(read_pixels(output), read_pixels(tmp_path / "expected.tif"))
    # And near the picture before it was printed; inks hold fewer colours.
    small = result.resize(0.5).cast("float") * (1 if dtype == "uint8" else 1 / 257)
    before = original.cast("float") * (1 if dtype == "uint8" else 1 / 257)
    assert (small - before).abs().avg() < 20


@pytest.mark.parametrize("space", ["lab", "labs"])
def test_lab(tmp_path: Path, x2_model: Path, space: str) -> None:
    source, output = tmp_path / "in.tif", tmp_path / "out.tif"
    lab = rgb().icc_import(input_profile="srgb", intent="relative", pcs="lab")
    lab.colourspace(space).tiffsave(str(source))
    info = srpipe.read_image_info(source)
    assert (info.converted_from, info.dtype, info.bands) == ("CIELAB", "uint16", 3)
    srpipe.enhance(source, output, model=x2_model, tile_size=48)
    write_pixels(tmp_path / "rgb.tif", rgb().numpy().astype(np.uint16) * 257)
    srpipe.enhance(tmp_path / "rgb.tif", tmp_path / "expected.tif", model=x2_model, tile_size=48)
    difference = read_pixels(output).astype(int) - read_pixels(tmp_path / "expected.tif")
    assert np.abs(difference).mean() < 150  # of 65535: libvips' Lab of 8-bit colours


def test_the_white_of_lab_is_d50(tmp_path: Path) -> None:
    lab = np.array([[50, 0, 0], [81, -30, -7], [60, 40, 30], [40, 20, -50], [70, -10, 60]])
    patches = np.tile(lab.repeat(8, 0), (40, 1, 1))
    values = (patches * [655.35, 256, 256]).round().astype(np.int64).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="cielab")
    shown = open_image(str(tmp_path / "in.tif"), untrusted=False).numpy()
    eight = (lab * [2.55, 1, 1]).round().astype(np.int64).astype(np.uint8)
    expected = ImageCms.profileToProfile(
        Image.frombytes("LAB", (len(lab), 1), eight.tobytes()),
        ImageCms.createProfile("LAB", 5000), ImageCms.createProfile("sRGB"),
        outputMode="RGB", renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )  # fmt: skip
    assert np.abs(shown[20, 4::8] / 257 - np.asarray(expected)[0]).max() < 3


def test_palettes_and_bits_are_read_as_what_they_show(tmp_path: Path, x2_model: Path) -> None:
    rgb().pngsave(str(tmp_path / "palette.png"), palette=True)
    rgb().colourspace("b-w").tiffsave(str(tmp_path / "bits.tif"), bitdepth=1)
    for name, bands in (("palette.png", 3), ("bits.tif", 1)):
        assert srpipe.read_image_info(tmp_path / name).bands == bands
        srpipe.enhance(tmp_path / name, tmp_path / f"{name}.tif", model=x2_model)
        assert read_pixels(tmp_path / f"{name}.tif").shape[:2] == (120, 160)


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_floats_are_what_16_bits_are(tmp_path: Path, x2_model: Path, bands: int) -> None:
    numbers = photograph_pixels(60, 80, bands, "uint16")
    source, output = tmp_path / "in.tif", tmp_path / "out.tif"
    floats = (numbers / np.float32(65535)).astype(np.float32)
    extra = ["unassalpha"] if bands == 4 else None
    tifffile.imwrite(source, floats[..., 0] if bands == 1 else floats,
                     photometric="minisblack" if bands == 1 else "rgb", extrasamples=extra)  # fmt: skip
    assert srpipe.read_image_info(source).is_float
    srpipe.enhance(source, output, model=x2_model, tile_size=48)
    write_pixels(tmp_path / "sixteen.tif", numbers)
    srpipe.enhance(
        tmp_path / "sixteen.tif", tmp_path / "expected.tif", model=x2_model, tile_size=48
    )
    expected = read_pixels(tmp_path / "expected.tif")
    result = tifffile.imread(output).reshape(expected.shape)
    assert result.dtype == np.float32
    rounded = np.floor(np.clip(result, 0, 1) * np.float32(65535) + 0.5)
    # Under alpha 0 are means, which integers round.
    assert np.abs(rounded - expected).max() <= (1 if bands == 4 else 0)
    srpipe.enhance(source, output, model=x2_model, tile_size=48, depth=16, overwrite=True)
    assert np.abs(read_pixels(output).astype(int) - expected).max() <= (1 if bands == 4 else 0)


def test_four_bands_that_are_not_said_to_be_rgb_have_no_alpha(tmp_path: Path) -> None:
    floats = np.random.default_rng(0).random((20, 30, 4), np.float32)
    tifffile.imwrite(tmp_path / "in.tif", floats, photometric="minisblack", planarconfig="contig")
    info = srpipe.read_image_info(tmp_path / "in.tif")
    assert (info.is_float, info.has_alpha, info.kind) == (True, False, "data, no alpha")
