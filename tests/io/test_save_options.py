"""Options that a saver does not take, and samples that it would change, are known before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import srpipe
from srpipe.errors import OutputError
from srpipe.io.save_options import check_options, saver_arguments, value_range
from srpipe.io.vips import find_saver, pyvips
from srpipe.plan.output import parse_output
from tests.conftest import photograph_pixels, write_pixels
from tests.factories import image_info
from tests.onnx_models import elementwise_model
from tests.processes import run_srpipe

KINDS: dict[str, dict[str, Any]] = {
    "grey": {"bands": 1, "content": "grey", "interpretation": "b-w"},
    "grey + alpha": {"bands": 2, "content": "grey", "interpretation": "b-w", "alpha_band": 1},
    "RGB": {},
    "RGB + alpha": {"bands": 4, "alpha_band": 3},
    "RGB, 16 bits": {"dtype": "uint16", "interpretation": "rgb16"},
    "float": {"dtype": "float32", "interpretation": "scrgb"},
    "signed": {"dtype": "int16", "bands": 1, "content": "grey", "interpretation": "grey16"},
    "data": {"bands": 5, "content": "data", "interpretation": "multiband"},
}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("o.tif[Q=900]", "with Q=900: it must be a whole number from 1 to 100"),
        ("o.tif[Q=0]", "with Q=0: it must be a whole number from 1 to 100"),
        ("o.tif[Q=9.5]", "with Q=9.5: it must be a whole number"),
        ("o.tif[Q=90x]", "with Q=90x: it must be a whole number"),
        ("o.tif[level=99]", "with level=99: it must be a whole number from 0 to 22"),
        ("o.tif[compression=deflate,level=12]", "with deflate, it must be .* from 0 to 9"),
        ("o.tif[tile,tile-width=0]", "with tile_width=0: it must be a whole number from 1"),
        ("o.tif[tile,tile_width=100,tile_height=100]", "not a multiple of 16"),
        ("o.tif[tile,tile_width=32768,tile_height=32768]", "tiles of 32768x32768"),
        ("o.tif[xres=-1]", "with xres=-1: it must be a number from 0.001"),
        ("o.tif[tile=maybe]", "with tile=maybe: it must be true or false"),
        ("o.tif[compression=jpgg]", "should be one of: none, jpeg"),
        ("o.tif[compresion=jpeg]", "'compresion'.* did you mean compression?"),
        ("o.tif[Q=80,Q=90]", "the option Q twice"),
        ("o.tif[page_height=5]", "cut into pages"),
        ("o.png[compression=10]", "with compression=10: it must be a whole number from 0 to 9"),
        ("o.jpg[quality=90]", "does not have: it takes Q, "),
        ("o.webp[effort=7]", "with effort=7: it must be a whole number from 0 to 6"),
        ("o.dzi[tile_size=0]", "with tile_size=0"),
        ("o.dzi[suffix=.jpg[Q=101]]", "with Q=101: it must be a whole number from 1 to 100"),
        ("o.raw[Q=50]", "the option 'Q', which libvips' rawsave_target does not have"),
    ],
)
def test_options_that_no_saver_takes(output: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        check_options(parse_output(output), image_info())


@pytest.mark.parametrize(
    ("output", "kinds", "message"),
    [
        (
            "o.tif[compression=jpeg]",
            ["RGB, 16 bits"],
            "uint8 samples .* and not uint16.* --depth 8",
        ),
        ("o.tif[compression=jpeg]", ["float", "signed"], "uint8 samples .* --depth 8"),
        ("o.tif[miniswhite]", ["signed"], "hold other values"),
        ("o.tif[compression=jpeg]", ["grey + alpha", "RGB + alpha"], "bands .*without alpha"),
        ("o.tif[compression=jpeg]", ["data"], "compression=jpeg is for grey or RGB"),
        ("o.tif[compression=webp]", ["RGB, 16 bits"], "8 bit"),
        ("o.tif[miniswhite]", ["data"], "miniswhite is for grey or RGB"),
        ("o.tif[premultiply]", ["data"], "hold other values"),
        ("o.png[bitdepth=8]", ["RGB, 16 bits"], "uint8 samples"),
        ("o.png[bitdepth=16]", ["RGB", "grey"], "uint16 samples .* --depth 16"),
        ("o.dzi[suffix=.png[bitdepth=8]]", ["RGB, 16 bits"], "uint8 samples"),
    ],
)
def test_samples_that_would_be_others(output: str, kinds: list[str], message: str) -> None:
    for kind in kinds:
        with pytest.raises(OutputError, match=message):
            check_options(parse_output(output), image_info(**KINDS[kind]))


@pytest.mark.parametrize(
    ("output", "kinds"),
    [
        ("o.tif", list(KINDS)),
        ("o.tif[compression=jpeg,Q=1,tile,pyramid]", ["grey", "RGB"]),
        ("o.tif[compression=lzw,predictor=horizontal,strip]", list(KINDS)),
        ("o.tif[compression=webp,lossless,tile]", ["RGB", "RGB + alpha"]),
        ("o.tif[premultiply]", ["RGB + alpha", "grey + alpha"]),
        ("o.tif[miniswhite]", ["grey", "RGB", "RGB, 16 bits"]),
        ("o.tif[bitdepth=1,compression=ccittfax4]", ["grey"]),
        ("o.png[bitdepth=1]", ["grey"]),
        ("o.png[palette]", ["RGB"]),
        ("o.png", ["grey", "grey + alpha", "RGB", "RGB + alpha", "RGB, 16 bits"]),
        ("o.webp", ["grey", "grey + alpha", "RGB", "RGB + alpha"]),
        ("o.jpg[Q=1]", ["grey", "RGB"]),
        ("o.dzi[suffix=.png]", ["grey", "grey + alpha", "RGB", "RGB + alpha", "RGB, 16 bits"]),
        ("o.v", list(KINDS)),
        ("o.raw", list(KINDS)),
        ("o.zarr", list(KINDS)),
    ],
)
def test_what_is_stored_as_it_is(output: str, kinds: list[str]) -> None:
    for kind in kinds:
        check_options(parse_output(output), image_info(**KINDS[kind]))


def test_ranges_are_those_that_libvips_keeps_to() -> None:
    """At both ends of a range it sets what it is told to."""
    for suffix in (".tif", ".png", ".jpg", ".webp"):
        saver = find_saver(suffix)
        for name, argument in saver_arguments(saver).items():
            if argument["type"] != pyvips.GValue.gint_type:
                continue
            for value in value_range(saver, name, whole=True):
                operation = pyvips.Operation.new_from_name(saver)
                super(pyvips.Operation, operation).set(name, int(value))
                assert operation.get(name) == value


def test_sixteen_bits_in_jpeg_tiles_of_a_tiff(tmp_path: Path) -> None:
    """Eight bits, where they are asked for."""
    pixels = photograph_pixels(100, 120, 3, "uint16")
    source = write_pixels(tmp_path / "in.tif", pixels)
    model = elementwise_model(tmp_path / "same.onnx", "Identity")
    output = f"{tmp_path}/out.tif[compression=jpeg,Q=95,tile]"
    with pytest.raises(OutputError, match="--depth 8"):
        srpipe.enhance(source, output, model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "same.onnx"]
    srpipe.enhance(source, output, model=model, depth=8)
    written = pyvips.Image.new_from_file(str(tmp_path / "out.tif")).numpy()
    assert np.abs(written - pixels / 257).mean() < 3


def test_nothing_but_the_error_is_said(tmp_path: Path) -> None:
    source = write_pixels(tmp_path / "in.png", photograph_pixels(20, 30))
    done = run_srpipe("enhance", source, f"{tmp_path}/o.tif[Q=900,level=99,tile_width=0]")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Q=900" in done.stderr
