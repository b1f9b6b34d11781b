"""Images whose profile is unlike sRGB: their look stays, and models see what they know."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st

import srpipe
from srpipe.io.tone_curve import (
    is_like_srgb,
    read_curves,
    srgb_light,
    srgb_number,
    tables,
)
from tests.conftest import photograph_pixels, read_pixels

SRGB_PARAMETERS = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def parametric(kind: int, *numbers: float) -> bytes:
    values = [round(n * 65536) for n in numbers]
    return b"para\0\0\0\0" + struct.pack(f">HH{len(values)}i", kind, 0, *values)


RGB, GREY = (b"rTRC", b"gTRC", b"bTRC"), (b"kTRC",)
D50 = (0xF6D6, 0x10000, 0xD32D)


def profile(trc: bytes, names: tuple[bytes, ...] = RGB) -> bytes:
    """A profile whose numbers rise so, with the primaries of sRGB."""
    trc += bytes(-len(trc) % 4)
    tags = [(b"wtpt", _xyz(*D50)), *((name, trc) for name in names)]
    if names == RGB:
        primaries = ((0x6FA2, 0x38F5, 0x390), (0x6299, 0xB785, 0x18DA), (0x24A0, 0xF84, 0xB6CF))
        tags += zip((b"rXYZ", b"gXYZ", b"bXYZ"), (_xyz(*p) for p in primaries), strict=True)
    start = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += struct.pack(">4sII", name, start + len(content), len(data))
        content += data
    space = b"RGB " if names == RGB else b"GRAY"
    header = struct.pack(
        ">I4sI4s4s4s", start + len(content), b"", 0x2100000, b"mntr", space, b"XYZ "
    )
    header += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3I", *D50)
    return header.ljust(128, b"\0") + table + content


def _xyz(*values: int) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *values)


def write(path: Path, pixels: np.ndarray, icc: bytes | None) -> Path:
    spaces = {(8, False): "b-w", (8, True): "srgb", (16, False): "grey16", (16, True): "rgb16"}
    space = spaces[8 * pixels.itemsize, pixels.shape[2] > 2]
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=space)
    if icc is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    image.tiffsave(str(path))
    return path


def enhance(source: Path, output: Path, **options: Any) -> np.ndarray:
    srpipe.enhance(source, output, model="lite-x2", tile_size=64, overwrite=True, **options)
    return read_pixels(output)


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_another_tone_curve_changes_nothing_that_is_seen(
    tmp_path: Path, bands: int, gamma: float
) -> None:
    pixels = photograph_pixels(70, 90, bands, "uint16")
    expected = enhance(write(tmp_path / "srgb.tif", pixels, None), tmp_path / "expected.tif")
    other = pixels.copy()
    colours = min(bands, 3)
    light = srgb_light(pixels[..., :colours] / 65535)
    other[..., :colours] = np.round(light ** (1 / gamma) * 65535)
    icc = profile(curve(gamma), RGB if bands > 1 else GREY)
    source = write(tmp_path / "in.tif", other, icc)
    result = enhance(source, tmp_path / "out.tif")
    assert pyvips.Image.new_from_file(str(tmp_path / "out.tif")).get("icc-profile-data") == icc
    seen = result.astype(np.float64) / 65535
    seen[..., :colours] = srgb_number(seen[..., :colours] ** gamma)
    difference = np.abs(seen - expected / 65535)
    # A linear image has few numbers for what is dark.
    assert np.percentile(difference, 99) < 0.002
    assert difference.mean() < 2e-4
    off = enhance(source, tmp_path / "off.tif", color_management="off").astype(np.float64) / 65535
    off[..., :colours] = srgb_number(off[..., :colours] ** gamma)
    assert np.abs(off - expected / 65535).mean() > 2 * difference.mean()
    eight = enhance(source, tmp_path / "eight.tif", depth=8)
    assert np.abs(eight.astype(int) - result / 257).max() <= 1.01


@pytest.mark.parametrize(
    "icc", [None, profile(curve(2.2)), profile(parametric(3, *SRGB_PARAMETERS))]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_is_like_srgb_is_left_alone(tmp_path: Path, icc: bytes | None, dtype: str) -> None:
    source = write(tmp_path / "in.tif", photograph_pixels(70, 90, 3, dtype), icc)
    kept, off = (tmp_path / f"{name}.tif" for name in ("keep", "off"))
    enhance(source, kept)
    enhance(source, off, color_management="off")
    assert kept.read_bytes() == off.read_bytes()


def test_a_wide_gamut_keeps_its_look(tmp_path: Path) -> None:
    narrow = pyvips.Image.new_from_array(photograph_pixels(70, 90, 3)).copy(interpretation="srgb")
    wide = narrow.icc_transform("p3", input_profile="srgb")
    wide.tiffsave(str(tmp_path / "wide.tif"))
    kept = enhance(tmp_path / "wide.tif", tmp_path / "kept.tif")
    assert np.array_equal(kept, enhance(tmp_path / "wide.tif", tmp_path / "off.tif",
                                        color_management="off"))  # fmt: skip
    icc = wide.get("icc-profile-data")
    assert pyvips.Image.new_from_file(str(tmp_path / "kept.tif")).get("icc-profile-data") == icc
    converted = enhance(tmp_path / "wide.tif", tmp_path / "srgb.tif", color_management="srgb")
    result = pyvips.Image.new_from_file(str(tmp_path / "srgb.tif"))
    assert result.get("icc-profile-data") != icc
    expected = enhance(write(tmp_path / "narrow.tif", narrow.numpy(), None), tmp_path / "e.tif")
    assert np.abs(converted.astype(int) - expected).mean() < 1.5
    assert np.abs(kept.astype(int) - expected).mean() > 1.5  # other numbers, for the same look


def test_it_is_another_job(tmp_path: Path) -> None:
    source = write(tmp_path / "in.tif", photograph_pixels(200, 90, 3, "uint16"), profile(curve(1)))
    stop = srpipe.StopRequest()
    with pytest.raises(srpipe.Interrupted):
        enhance(source, tmp_path / "out.tif", stop=stop,
                progress=lambda e: stop.request() if e.tiles_done == 3 else None)  # fmt: skip
    with pytest.raises(srpipe.JobError, match="colour management"):
        enhance(source, tmp_path / "out.tif", color_management="off")
    enhance(source, tmp_path / "out.tif")


@pytest.mark.parametrize(
    ("trc", "expected"),
    [
        (b"curv\0\0\0\0\0\0\0\0", lambda x: x),
        (curve(1.8), lambda x: x ** (461 / 256)),
        (b"curv\0\0\0\0" + struct.pack(">I3H", 3, 0, 16384, 65535), lambda x: np.interp(
            x, [0, 0.5, 1], [0, 16384 / 65535, 1])),
        (parametric(0, 2.0), lambda x: x**2),
        (parametric(1, 2.0, 1.25, -0.25), lambda x: np.maximum(1.25 * x - 0.25, 0) ** 2),
        (parametric(3, *SRGB_PARAMETERS), srgb_light),
        (parametric(4, *SRGB_PARAMETERS, 0, 0), srgb_light),
    ],
)  # fmt: skip
def test_curves_are_read(trc: bytes, expected: Any) -> None:
    curves = read_curves(profile(trc))
    assert curves is not None
    assert len(curves) == 3
    x = np.linspace(0, 1, 65536)
    np.testing.assert_allclose(curves[0], expected(x), atol=1e-4)
    assert is_like_srgb(curves) == (np.abs(srgb_number(expected(x)) - x).max() < 0.04)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2, 2.6])
def test_tables_lead_there_and_back(gamma: float) -> None:
    curves = read_curves(profile(curve(gamma)))
    assert curves is not None
    there, back = tables(curves)
    assert (np.diff(there[0].astype(int)) >= 0).all()
    # In light, and so in what is seen: where a curve is steep its numbers tell less than they seem to.
    returned = curves[0][back[0][there[0]]]
    assert np.abs(returned - curves[0]).max() < 5e-5


@given(st.binary(max_size=600), st.sampled_from([b"curv", b"para", b"mft2", b""]))
def test_damaged_profiles_are_none(content: bytes, kind: bytes) -> None:
    read_curves(content)
    curves = read_curves(profile(kind + content))
    assert curves is None or all(np.isfinite(c).all() for c in curves)


def test_a_curve_that_divides_by_nothing_is_none() -> None:
    assert read_curves(profile(parametric(1, 2.0, 0, 0.5))) is None
