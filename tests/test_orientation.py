"""A picture is seen the same way up after it is enhanced, whatever formats it comes in and goes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image, ImageOps

import srpipe
from srpipe.io.vips import pyvips
from tests.conftest import photograph_pixels, read_pixels
from tests.onnx_models import elementwise_model

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syn'
    b'tax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def write_turned(path: Path, orientation: int, **options: Any) -> np.ndarray:
    """Write a picture that says how it is to be turned; returns it as it is seen."""
    image = pyvips.Image.new_from_array(photograph_pixels(40, 60)).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.write_to_file(str(path), **options)
    if path.suffix == ".avif":
        return read_pixels(path)  # libheif turns it
    return seen(path)


def seen(path: Path) -> np.ndarray:
    """What a viewer shows, by Pillow's rules."""
    with Image.open(path) as image:
        if path.suffix != ".tif":  # Pillow turns TIFFs by itself
            return np.asarray(ImageOps.exif_transpose(image))
        return np.asarray(image)


def pixels_of(output: Path) -> np.ndarray:
    """The pixels of an output that cannot say how it is to be turned."""
    if output.suffix == ".zarr":
        return zarr.open_group(output, mode="r")["0"][:].transpose(1, 2, 0)
    if output.suffix == ".raw":
        facts = json.loads(Path(f"{output}.json").read_text())
        shape = (facts["height"], facts["width"], facts["bands"])
        return np.fromfile(output, facts["dtype"]).reshape(shape)
    return read_pixels(output.with_name("out_files") / "6" / "0_0.png")


@pytest.fixture
def same(tmp_path: Path) -> Path:
    return elementwise_model(tmp_path / "same.onnx", "Identity")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["out.dzi[suffix=.png]", "out.zarr", "out.raw"])
def test_pixels_are_turned_where_the_output_cannot_say_so(
    tmp_path: Path, same: Path, name: str, orientation: int
) -> None:
    expected = write_turned(tmp_path / "in.tif", orientation)
    report = srpipe.enhance(tmp_path / "in.tif", f"{tmp_path}/{name}", model=same, tile_size=32)
    assert (report.output_size.height, report.output_size.width) == expected.shape[:2]
    found = pixels_of(tmp_path / name.partition("[")[0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("name", ["in.tif", "in.png", "in.webp", "in.jpg", "in.avif"])
@pytest.mark.parametrize("output", ["out.tif", "out.png", "out.webp[lossless]", "out.jpg[Q=100]"])
def test_other_formats_say_so(
    tmp_path: Path, same: Path, name: str, output: str, orientation: int
) -> None:
    options: dict[str, Any] = {"in.webp": {"lossless": True}, "in.avif": {"compression": "av1"}}
    expected = write_turned(tmp_path / name, orientation, **options.get(name, {}))
    srpipe.enhance(tmp_path / name, f"{tmp_path}/{output}", model=same)
    found = seen(tmp_path / output.partition("[")[0])
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < (2 if "jpg" in output else 0.01)


def test_heif_with_an_orientation_in_xmp(tmp_path: Path, same: Path) -> None:
    image = pyvips.Image.new_from_array(photograph_pixels(40, 60)).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    image.write_to_file(str(tmp_path / "in.avif"), compression="av1")
    srpipe.enhance(tmp_path / "in.avif", tmp_path / "out.png", model=same)
    written = pyvips.Image.new_from_file(str(tmp_path / "out.png"))
    assert b'tiff:Orientation="1"' in written.get("xmp-data")
    assert seen(tmp_path / "out.png").shape == (60, 40, 3)


@pytest.mark.parametrize("name", ["out.zarr[chunk=64]", "out.raw"])
def test_slabs_of_what_is_turned(tmp_path: Path, same: Path, name: str) -> None:
    expected = write_turned(tmp_path / "in.tif", 6)
    for number in (1, 2):
        srpipe.enhance(
            tmp_path / "in.tif", f"{tmp_path}/{name}", model=same, tile_size=32, overlap=8,
            slab=(number, 2),
        )  # fmt: skip
    srpipe.assemble(f"{tmp_path}/{name}")
    np.testing.assert_array_equal(pixels_of(tmp_path / name.partition("[")[0]), expected)


def test_outscale_and_a_part_of_what_is_turned(tmp_path: Path, same: Path) -> None:
    write_turned(tmp_path / "in.tif", 6)
    options: dict[str, Any] = {"model": same, "outscale": 2, "region": (4, 6, 30, 20)}
    report = srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.raw", **options)
    assert str(report.output_size) == "40x60"
    srpipe.enhance(tmp_path / "in.tif", tmp_path / "out.png", **options)
    np.testing.assert_array_equal(pixels_of(tmp_path / "out.raw"), seen(tmp_path / "out.png"))
