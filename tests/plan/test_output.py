from __future__ import annotations

import pytest

from srpipe.errors import OutputError
from srpipe.plan.geometry import Size
from srpipe.plan.output import as_written, companion, fit_output, parse_output
from tests.factories import image_info


def test_options_follow_in_brackets() -> None:
    spec = parse_output("dir[1]/out.TIF[compression=lzw,tile,pyramid]")
    assert spec.path == "dir[1]/out.TIF"
    assert spec.vips_format == ".tif[compression=lzw,tile,pyramid]"


def test_defaults_apply_only_without_options() -> None:
    assert parse_output("a.jpg").vips_format == ".jpg[Q=95]"
    assert parse_output("a.jpg[]").vips_format == ".jpg"
    assert "deflate" in parse_output("a.tif").options


@pytest.mark.parametrize("name", ["out", "out.txt", "out.onnx", ".tif", "out.tif.srpipe"])
def test_unknown_ending(name: str) -> None:
    with pytest.raises(OutputError, match=r"ending .*\.tif"):
        parse_output(name)


@pytest.mark.parametrize(
    ("name", "size", "image"),
    [
        ("a.jpg", Size(65536, 10), {}),
        ("a.webp", Size(10, 16384), {}),
        ("a.jpg", Size(10, 10), {"dtype": "uint16"}),
        ("a.webp", Size(10, 10), {"dtype": "uint16"}),
        ("a.jpg", Size(10, 10), {"bands": 4}),
        ("a.png", Size(10, 10), {"bands": 5}),
        ("a.png", Size(10, 10), {"bands": 4, "interpretation": "multiband"}),
        ("a.webp", Size(10, 10), {"bands": 2, "interpretation": "multiband"}),
        ("a.jpg", Size(10, 10), {"bands": 4, "interpretation": "b-w"}),
        ("a.dzi", Size(10, 10), {"dtype": "uint16"}),
        ("a.dzi", Size(10, 10), {"bands": 2, "interpretation": "b-w"}),
        ("a.dzi[suffix=.webp]", Size(10, 10), {"dtype": "uint16"}),
        ("a.dzi[suffix=.png]", Size(10, 10), {"bands": 5}),
    ],
)
def test_what_a_format_cannot_hold(name: str, size: Size, image: dict[str, object]) -> None:
    with pytest.raises(OutputError, match=r"\.tif"):
        fit_output(parse_output(name), image_info(**image), size)


@pytest.mark.parametrize(
    ("name", "size", "big"),
    [
        ("a.tif", Size(30000, 30000), False),
        ("a.tif", Size(40000, 40000), True),
        ("a.tif[compression=none]", Size(40000, 40000), True),
        ("a.tif[compression=none,pyramid]", Size(33000, 33000), True),
        ("a.tif[bigtiff]", Size(40000, 40000), True),
        ("a.tif[]", Size(40000, 40000), True),
        ("a.png", Size(40000, 40000), False),
    ],
)
def test_bigtiff_where_it_must(name: str, size: Size, big: bool) -> None:
    options = fit_output(parse_output(name), image_info(), size).options.split(",")
    assert options.count("bigtiff") == big


def test_expected_size_of_the_file() -> None:
    assert parse_output("a.tif[compression=none]").estimated_ratio == 1
    assert parse_output("a.tif[compression=none,pyramid]").estimated_ratio == pytest.approx(4 / 3)
    assert parse_output("a.tif[compression=jpeg]").estimated_ratio < 0.5


def test_deepzoom_holds_what_its_tiles_hold() -> None:
    deep = image_info(dtype="uint16", bands=4, interpretation="rgb16")
    fit_output(parse_output("a.dzi[suffix=.png]"), deep, Size(10**6, 10**6))
    with pytest.raises(OutputError, match=r"--depth 8, or write 'a\.dzi\[suffix=\.png\]'"):
        fit_output(parse_output("a.dzi"), deep, Size(10, 10))
    assert parse_output("a.dzi").vips_format == ".dz[suffix=.jpg[Q=90],keep=icc]"
    assert parse_output("a.dzi[]").vips_format == ".dz[keep=icc]"
    assert parse_output("a.dzi[keep=all]").vips_format == ".dz[keep=all]"
    assert parse_output("a.dzi[layout=dz,container=fs]").path == "a.dzi"


@pytest.mark.parametrize("options", ["layout=iiif", "container=zip", "suffix=.v", "imagename=b"])
def test_what_is_no_deepzoom(options: str) -> None:
    with pytest.raises(OutputError):
        parse_output(f"a.dzi[{options}]")


def test_options_of_tiles_are_in_brackets_of_their_own() -> None:
    spec = parse_output("d[1]/a.dzi[suffix=.jpg[Q=80,optimize_coding],overlap = 2,centre]")
    assert spec.path == "d[1]/a.dzi"
    parsed = {"suffix": ".jpg[Q=80,optimize_coding]", "overlap": "2", "centre": "", "keep": "icc"}
    assert spec.parsed == parsed


def test_what_belongs_to_an_output() -> None:
    assert companion("d/a.b.dzi") == "d/a.b_files"
    assert companion("a.raw") == "a.raw.json"
    assert companion("a.BIN") == "a.BIN.json"
    assert companion("a.tif") is None
    assert companion("a.zarr") is None


@pytest.mark.parametrize(
    ("space", "dtype", "depth", "expected"),
    [
        ("srgb", "uint8", 16, ("rgb16", "uint16")),
        ("rgb", "uint8", 16, ("rgb16", "uint16")),
        ("b-w", "uint8", 16, ("grey16", "uint16")),
        ("rgb16", "uint16", 8, ("srgb", "uint8")),
        ("grey16", "uint16", 8, ("b-w", "uint8")),
        ("multiband", "uint16", 8, ("multiband", "uint8")),
        ("rgb16", "uint16", 16, ("rgb16", "uint16")),
        ("srgb", "uint8", None, ("srgb", "uint8")),
    ],
)
def test_depth_of_the_output(
    space: str, dtype: str, depth: int | None, expected: tuple[str, str]
) -> None:
    written = as_written(image_info(interpretation=space, dtype=dtype), depth)
    assert (written.interpretation, written.dtype) == expected
