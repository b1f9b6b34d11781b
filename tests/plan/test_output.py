from __future__ import annotations

import pytest

from srpipe.errors import OutputError
from srpipe.plan.geometry import Size
from srpipe.plan.output import fit_output, parse_output
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
